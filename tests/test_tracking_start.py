# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import importlib.util
import json
import subprocess

import pytest

from podium import tracking_start
from podium.config import TrainConfig
from podium.config_launch import LaunchConfig
from podium.errors import ConfigError
from podium.trainer.tracking import run_of


def config(**launch):
    return TrainConfig(launch=LaunchConfig(experiment="first", **launch))


def test_an_experiment_needs_a_project_and_the_clients(monkeypatch):
    with pytest.raises(ConfigError, match=r"launch\.project is not set"):
        tracking_start.check(config())
    tracking_start.check(config(project="my-project"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="uv sync --extra vertex"):
        tracking_start.check(config(project="my-project"))


def test_the_run_keeps_its_name(tmp_path):
    cfg, data = config(project="my-project"), [("gold", "f" * 64)]
    (first,) = tracking_start.trackers(cfg, tmp_path, data)
    name = run_of(tmp_path)
    assert name
    (second,) = tracking_start.trackers(cfg, tmp_path, data)
    about = second._about
    assert about == first._about
    assert about.run == name
    assert about.data == data
    assert about.checkpoints == f"{tmp_path}/checkpoints"
    assert about.params["optim.optimizer.kind"] == cfg.optim.optimizer.kind
    assert about.params["launch.bucket"] == "None"
    assert {type(v) for v in about.params.values()} <= {int, float, str}


def test_a_job_names_its_run_and_its_folder(tmp_path):
    cfg = config(project="my-project", run="big")
    assert tracking_start.run_name(cfg.launch.run, tmp_path) == "big"


def test_the_commit_is_that_of_a_packaged_checkout_or_of_git(tmp_path, monkeypatch):
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert tracking_start.commit().removesuffix("-dirty") == head
    (tmp_path / ".podium").mkdir()
    about = {"commit": "c0ffee", "is_dirty": True}
    (tmp_path / ".podium" / "source.json").write_text(json.dumps(about))
    monkeypatch.chdir(tmp_path)
    assert tracking_start.commit() == "c0ffee-dirty"
