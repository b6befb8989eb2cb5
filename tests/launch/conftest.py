# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import subprocess

import pytest

from launch import verbs, vertex
from launch.cloud import Cloud, Patience
from launch.source import read_checkout
from tests import gcs
from tests.launch.fake_cloud import fake_cloud

FAST = Patience(first_secs=0.01, most_secs=0.05, total_secs=20.0, poll_secs=0.05)


@pytest.fixture(scope="session")
def bucket(tmp_path_factory):
    with gcs.bucket(tmp_path_factory.mktemp("bucket")) as refusals:
        yield refusals


@pytest.fixture
def google(bucket, monkeypatch):
    """Google Cloud on this machine, and launchers that do not wait long for it."""

    def fast(project, region):
        return Cloud(project, region, FAST)

    monkeypatch.setattr(vertex, "Cloud", fast)
    monkeypatch.setattr(verbs, "Cloud", fast)
    bucket.left = 0
    with fake_cloud() as google:
        yield google


@pytest.fixture
def cloud(google):
    return Cloud("my-project", "us-central1", FAST)


def git(folder, *args):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "-C", folder, *who, *args], check=True, capture_output=True)


@pytest.fixture
def repo(tmp_path):
    """A small checkout with all that a launch looks for."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "uv.lock").write_text("version = 1\n")
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("ignored/\n")
    (tmp_path / "link").symlink_to("a.py")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "ignored").mkdir()
    (tmp_path / "ignored" / "big").write_text("x")
    return tmp_path


@pytest.fixture
def checkout(repo):
    return read_checkout(repo)
