# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import json
import subprocess

from podium import code_commit
from podium.code_commit import commit


def test_the_commit_is_that_of_a_packaged_checkout_or_of_git(tmp_path, monkeypatch):
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert commit().removesuffix("-dirty") == head
    (tmp_path / ".podium").mkdir()
    about = {"commit": "c0ffee", "is_dirty": True}
    (tmp_path / ".podium" / "source.json").write_text(json.dumps(about))
    monkeypatch.chdir(tmp_path)
    assert commit() == "c0ffee-dirty"


def test_an_installed_package_does_not_take_the_commit_of_a_repository_around_it(
    tmp_path, monkeypatch
):
    inside = tmp_path / "site-packages" / "podium"
    inside.mkdir(parents=True)
    user = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], [*user, "commit", "-q", "--allow-empty", "-mx"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(code_commit, "__file__", str(inside / "code_commit.py"))
    assert commit() == ""
