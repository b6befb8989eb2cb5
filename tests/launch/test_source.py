# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import gzip
import io
import json
import os
import tarfile

import pytest

from launch.source import DIFF_FILE, SOURCE_FILE, read_checkout
from podium.errors import ConfigError
from tests.launch.conftest import git


def files_of(checkout):
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(checkout.tar_gz()))) as tar:
        return {
            member.name: tar.extractfile(member).read()
            for member in tar
            if not member.issym()
        }


def test_a_clean_checkout_is_its_commit(repo):
    checkout = read_checkout(repo / "launch")
    files = files_of(checkout)
    names = {".gitignore", "uv.lock", "a.py", "launch/Dockerfile", SOURCE_FILE}
    assert set(files) == names
    assert not checkout.is_dirty
    about = json.loads(files[SOURCE_FILE])
    assert about == {
        "commit": checkout.commit,
        "is_dirty": False,
        "diff_sha256": None,
    }
    assert checkout.describe().startswith(f"commit {checkout.commit[:12]}, 0.0 MB")


def test_changes_new_and_removed_files_are_in_the_archive_and_in_the_patch(
    repo, tmp_path_factory
):
    clean = read_checkout(repo)
    (repo / "a.py").write_text("a = 2\n")
    (repo / "new.bin").write_bytes(bytes(range(256)))
    (repo / "uv.lock").write_text("version = 2\n")
    (repo / "link").unlink()
    dirty = read_checkout(repo)
    files = files_of(dirty)
    assert files["a.py"] == b"a = 2\n"
    assert files["new.bin"] == bytes(range(256))
    assert dirty.commit == clean.commit
    assert dirty.sha256 != clean.sha256
    assert "with changes (diff " in dirty.describe()
    # The patch alone turns the commit into what was packaged.
    other = tmp_path_factory.mktemp("clone") / "clone"
    git(repo, "clone", "-q", ".", other)
    (other / "patch").write_bytes(files[DIFF_FILE])
    git(other, "apply", "patch")
    (other / "patch").unlink()
    names = set(files) - {DIFF_FILE, SOURCE_FILE}
    assert {name: (other / name).read_bytes() for name in names} == {
        name: files[name] for name in names
    }
    assert not (other / "link").is_symlink()


def test_the_same_files_make_the_same_archive_and_another_mode_another(repo):
    first = read_checkout(repo)
    os.utime(repo / "a.py", (1, 1))
    again = read_checkout(repo)
    assert first.tar_gz() == again.tar_gz()
    (repo / "a.py").chmod(0o755)
    assert read_checkout(repo).sha256 != first.sha256


def test_what_is_no_checkout_of_podium_is_one_line(repo, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(
        ConfigError, match=r"not a git repository.*git checkout of Podium"
    ):
        read_checkout(empty)
    (repo / "uv.lock").unlink()
    with pytest.raises(ConfigError, match=r"has no uv\.lock; launch from a checkout"):
        read_checkout(repo)


def test_a_huge_file_is_named(repo):
    with (repo / "weights.bin").open("wb") as file:
        file.truncate(1 << 29)
    with pytest.raises(ConfigError, match=r"the largest weights\.bin \(537 MB\)"):
        read_checkout(repo)
