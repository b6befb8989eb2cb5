# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The exact checkout as one archive, named by what is in it.

In it lie all files that git tracks, as they are on the disk, and those that it would
track; `.podium/source.json` says of which commit, and `.podium/diff.patch` what differs
from it. The same files make the same archive to the byte, whenever and wherever.
"""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from podium.errors import ConfigError

_MOST_BYTES = 1 << 28
SOURCE_FILE = ".podium/source.json"
DIFF_FILE = ".podium/diff.patch"


@dataclasses.dataclass(frozen=True)
class Checkout:
    """A work tree of git, read once."""

    root: Path
    commit: str
    diff: bytes  # against the commit, new files too; empty: it is the commit
    tar: bytes = dataclasses.field(repr=False)

    @property
    def is_dirty(self) -> bool:
        """Whether it differs from its commit."""
        return bool(self.diff)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the archive before compression, in hex."""
        return hashlib.sha256(self.tar).hexdigest()

    def tar_gz(self) -> bytes:
        """The archive, compressed."""
        out = io.BytesIO()
        with gzip.GzipFile("", "wb", mtime=0, fileobj=out) as packed:
            packed.write(self.tar)
        return out.getvalue()

    def describe(self) -> str:
        """For a person: commit, whether more, size and hash."""
        more = ""
        if self.is_dirty:
            sha = hashlib.sha256(self.diff).hexdigest()[:12]
            more = f" with changes (diff {sha}, {len(self.diff):,} bytes)"
        return (
            f"commit {self.commit[:12]}{more}, {len(self.tar) / 1e6:.1f} MB, "
            f"sha256 {self.sha256[:12]}"
        )


def read_checkout(folder: str | Path = ".") -> Checkout:
    """The checkout that a folder lies in. Raises ConfigError."""
    top = _git(folder, "rev-parse", "--show-toplevel").decode().strip()
    root = Path(top)
    commit = _git(root, "rev-parse", "HEAD").decode().strip()
    names = sorted(set(_listed(root, "--cached", "--others", "--exclude-standard")))
    for name in ("uv.lock", "launch/Dockerfile"):
        if not (root / name).is_file():
            raise ConfigError(
                f"{root} has no {name}; launch from a checkout of Podium (git clone)"
            )
    new = list(_listed(root, "--others", "--exclude-standard"))
    diff = _git(root, "diff", "--binary", "--no-ext-diff", "HEAD") + _new_files(
        root, new
    )
    about = {
        "commit": commit,
        "is_dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None,
    }
    return Checkout(root, commit, diff, _tar(root, names, about, diff))


def holds(root: Path, path: Path) -> bool:
    """Whether the archive has a file at a path of the checkout, or below it."""
    names = _git(
        *(root, "ls-files", "--cached", "--others", "--exclude-standard", "--"),
        path.as_posix(),
    )
    return bool(names.strip())


def _git(folder: str | Path, *args: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, check=True
        )
    except FileNotFoundError as error:
        raise ConfigError("git is not installed; it says what is packaged") from error
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode(errors="replace").strip().split("\n")[0]
        raise ConfigError(
            f"{Path(folder).absolute()}: {why}; launch from a git checkout of Podium "
            "with at least one commit"
        ) from error
    return done.stdout


def _listed(root: Path, *flags: str) -> Iterator[str]:
    for name in _git(root, "ls-files", "-z", *flags).decode().split("\0"):
        path = root / name
        if name and (path.is_symlink() or path.is_file()):  # not deleted, no submodule
            yield name


def _new_files(root: Path, names: list[str]) -> bytes:
    """New files as a patch has them: `git diff` leaves them out."""
    parts = []
    against_nothing = ["git", "-C", str(root), "diff", "--binary", "--no-ext-diff"]
    against_nothing.append("--no-index")
    for name in names:
        done = subprocess.run(
            [*against_nothing, "--", "/dev/null", name],
            capture_output=True,
            check=False,  # 1: they differ
        )
        parts.append(done.stdout)
    return b"".join(parts)


def _tar(root: Path, names: list[str], about: dict[str, Any], diff: bytes) -> bytes:
    sizes = {name: (root / name).lstat().st_size for name in names}
    if sum(sizes.values()) > _MOST_BYTES:
        big = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            f"the checkout has {sum(sizes.values()) / 1e6:,.0f} MB of files, the "
            f"largest {big} ({sizes[big] / 1e6:,.0f} MB); expected at most "
            f"{_MOST_BYTES / 1e6:,.0f} MB: name in .gitignore what the job does not need"
        )
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            path = root / name
            info = tarfile.TarInfo(name)
            if path.is_symlink():
                info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
                tar.addfile(info)
                continue
            info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            _add(tar, info, path.read_bytes())
        text = json.dumps(about, indent=2, sort_keys=True) + "\n"
        _add(tar, tarfile.TarInfo(SOURCE_FILE), text.encode())
        if diff:
            _add(tar, tarfile.TarInfo(DIFF_FILE), diff)
    return out.getvalue()


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
