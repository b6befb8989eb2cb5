# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A folder on a disk or in a bucket, through the same few verbs. No jax.

Disks are used directly; `gs://bucket/path` by way of gcsfs (the extra `gcs`), which
repeats what a server refuses for a while (429, 5xx), waiting longer each time.
"""

import abc
import base64
import contextlib
import errno
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c

from podium.errors import ConfigError, StorageError

_CHUNK_BYTES = 1 << 22
_THREADS = 16
_SILENT_SECS = 5


class File(NamedTuple):
    """What a file holds, in two numbers."""

    num_bytes: int
    crc32c: int


class Folder(abc.ABC):
    """Names are relative to the folder, parts joined by '/'."""

    path: str

    def __str__(self) -> str:
        return self.path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    @abc.abstractmethod
    def names(self) -> list[str]:
        """Files and folders in it, sorted; none where there is no such folder."""

    @abc.abstractmethod
    def files(self) -> list[str]:
        """Every file in it and below, sorted."""

    @abc.abstractmethod
    def describe(self, name: str) -> File:
        """Size and CRC-32C of a file: a disk's is read, a bucket knows."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """A small file. Raises FileNotFoundError."""

    @abc.abstractmethod
    def read_at(self, name: str, offset: int, num_bytes: int) -> bytes:
        """What a file holds there: less than asked for only at its end. Raises OSError
        where a disk cannot, StorageError where a bucket will not."""

    @abc.abstractmethod
    def sizes(self, names: Sequence[str]) -> list[int]:
        """Bytes of files in it. Raises OSError with the name of one that is missing."""

    @abc.abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """A small file, whole or not at all."""

    @abc.abstractmethod
    def put(self, path: Path, name: str) -> None:
        """A copy of a file on this disk, however large; in a bucket whole or not."""

    @abc.abstractmethod
    def move(self, name: str, to: str) -> None:
        """A file or folder, to a name that is not taken."""

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """A file or folder with all that is in it."""

    @abc.abstractmethod
    def inside(self, name: str) -> "Folder":
        """The folder of that name in it."""


def open_folder(path: str | os.PathLike) -> Folder:
    """The folder at a path or a gs:// address, whether it exists or not.

    Raises ConfigError on another kind of address.
    """
    text = str(path)
    if text.startswith("gs://") and text.strip("/") != "gs:":
        return _Bucket(text.rstrip("/"))
    if "://" in text:
        raise ConfigError(f"{text}: expected a folder or gs://BUCKET/PATH")
    return _Disk(text)


def is_remote(path: str | os.PathLike) -> bool:
    """Whether it is an address in a bucket."""
    return str(path).startswith("gs://")


class _Disk(Folder):
    def __init__(self, path: str):
        self.path, self._root = path, Path(path)

    def names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(entry.name for entry in self._root.iterdir())
        return []

    def files(self) -> list[str]:
        return sorted(
            path.relative_to(self._root).as_posix()
            for path in self._root.rglob("*")
            if path.is_file()
        )

    def describe(self, name: str) -> File:
        checksum, num_bytes = google_crc32c.Checksum(), 0
        with (self._root / name).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                checksum.update(chunk)
                num_bytes += len(chunk)
        return File(num_bytes, int.from_bytes(checksum.digest(), "big"))

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def read_at(self, name: str, offset: int, num_bytes: int) -> bytes:
        with (self._root / name).open("rb") as file:
            return read_at(file.fileno(), offset, num_bytes)

    def sizes(self, names: Sequence[str]) -> list[int]:
        return [(self._root / name).stat().st_size for name in names]

    def write(self, name: str, data: bytes) -> None:
        part = self._root / f"{name}.part"
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._root / name)

    def put(self, path: Path, name: str) -> None:
        shutil.copyfile(path, self._root / name)

    def move(self, name: str, to: str) -> None:
        (self._root / name).rename(self._root / to)

    def remove(self, name: str) -> None:
        path = self._root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def inside(self, name: str) -> Folder:
        return _Disk(str(self._root / name))


class _Bucket(Folder):
    def __init__(self, path: str):
        self.path = path
        # Orbax reaches buckets through etils: by gcsfs, as we do, and not by importing
        # TensorFlow. gcsfs would ask for the kind of bucket, which takes a permission
        # of its own.
        os.environ.setdefault("EPATH_USE_TF", "false")
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            import gcsfs
        except ImportError as error:
            raise ConfigError(
                f"{path}: buckets need gcsfs; install podium with the extra: "
                "uv sync --extra gcs"
            ) from error
        # It logs the error, with a stack, that we get and say in a line.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        # Shared by all folders; what it lists must not be remembered, as Orbax writes
        # past it.
        self._fs: Any = gcsfs.GCSFileSystem(use_listings_cache=False)
        self._root = path.removeprefix("gs://")

    def names(self) -> list[str]:
        with self._said(), self._patience():
            try:
                found = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def files(self) -> list[str]:
        with self._said():
            found = self._fs.find(self._root)
        return sorted(name.removeprefix(self._root + "/") for name in found)

    def describe(self, name: str) -> File:
        with self._said():
            info = self._fs.info(f"{self._root}/{name}")
        crc = int.from_bytes(base64.b64decode(info["crc32c"]), "big")
        return File(int(info["size"]), crc)

    def read(self, name: str) -> bytes:
        with self._said():
            return self._fs.cat_file(f"{self._root}/{name}")

    def read_at(self, name: str, offset: int, num_bytes: int) -> bytes:
        where, stop = f"{self._root}/{name}", offset + num_bytes
        with self._said():
            return self._fs.cat_file(where, start=offset, end=stop)

    def sizes(self, names: Sequence[str]) -> list[int]:
        with self._said():
            found = {i["name"]: i["size"] for i in self._fs.ls(self._root, detail=True)}
        try:
            return [int(found[f"{self._root}/{name}"]) for name in names]
        except KeyError as error:
            path = f"gs://{error.args[0]}"
            what = os.strerror(errno.ENOENT)
            raise FileNotFoundError(errno.ENOENT, what, path) from error

    def write(self, name: str, data: bytes) -> None:
        with self._said():
            self._fs.pipe_file(f"{self._root}/{name}", data)

    def put(self, path: Path, name: str) -> None:
        with self._said():
            self._fs.put_file(str(path), f"{self._root}/{name}")

    def move(self, name: str, to: str) -> None:
        with self._said():
            found = self._fs.find(f"{self._root}/{name}")
            start = len(f"{self._root}/{name}")
            for path in found:
                self._fs.cp_file(path, f"{self._root}/{to}{path[start:]}")
        self.remove(name)

    def remove(self, name: str) -> None:
        with self._said():
            found = self._fs.find(f"{self._root}/{name}")
            # One by one: `rm` takes a name with brackets for a pattern.
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(self._fs.rm_file, found))

    def inside(self, name: str) -> Folder:
        return _Bucket(f"{self.path}/{name}")

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Says why nothing happens: gcsfs tries for half a minute, and is silent."""
        line = f"{self.path}: no answer for {_SILENT_SECS} s, trying again"
        timer = threading.Timer(_SILENT_SECS, lambda: print(line, file=sys.stderr))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """What the server refuses is a StorageError of one line."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StorageError(f"{self.path}: {refusal(error)}") from error


def read_at(fd: int, offset: int, num_bytes: int) -> bytes:
    """What an open file holds there: less than asked for only at its end."""
    data = os.pread(fd, num_bytes, offset)
    while data and len(data) < num_bytes:  # one call gives 2 GiB at most
        more = os.pread(fd, num_bytes - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


_FORBIDDEN = re.compile(
    r"Forbidden|PERMISSION_DENIED|response code: 403|does not have storage\."
)
_UNKNOWN = re.compile(r"credentials|UNAUTHENTICATED|response code: 401|, 401$")
_AWAY = re.compile(r"Cannot connect to host|Could not resolve|Connect\w* timed? ?out")
_BUSY = re.compile(r"UNAVAILABLE|response code: (408|429|5\d\d)|, (408|429|5\d\d)$")


def is_refusal(error: BaseException) -> bool:
    """Whether a disk or server would not give what it may well have, whole."""
    kinds = (PermissionError, ConnectionError, TimeoutError)
    patterns = (_FORBIDDEN, _UNKNOWN, _BUSY, _AWAY)
    cause = error.__cause__ or error.__context__
    return (
        isinstance(error, kinds)
        or any(pattern.search(str(error)) for pattern in patterns)
        or (cause is not None and is_refusal(cause))
    )


def refusal(error: BaseException) -> str:
    """What a storage server said, and what to do about it."""
    text = " ".join(str(error).split())
    if len(text) > 300:  # tensorstore says where first, and why last
        text = f"{text[:100]} … {text[-190:]}"
    what = f"{type(error).__name__}: {text}"
    if _FORBIDDEN.search(text):
        return f"{what}; give this account the role Storage Object Admin on the bucket"
    if _UNKNOWN.search(text):
        return f"{what}; run: gcloud auth application-default login"
    if _AWAY.search(text):
        return f"{what}; is this machine on a network that reaches it?"
    return what
