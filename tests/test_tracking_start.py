# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import importlib.util
import subprocess
import sys

import pytest

from podium import tracking_start
from podium.config import TrainConfig
from podium.config_launch import LaunchConfig
from podium.config_tracking import MlflowConfig, TrackingConfig, WandbConfig
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


def test_wandb_and_mlflow_are_asked_for_by_name_and_checked_first(
    tmp_path, monkeypatch
):
    """Without launch settings: they hold for a run on any machine."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wandb = TrainConfig(tracking=TrackingConfig(wandb=WandbConfig(project="p")))
    mlflow = TrainConfig(tracking=TrackingConfig(mlflow=MlflowConfig()))
    tracking_start.check(wandb)
    with pytest.raises(ConfigError, match="or set MLFLOW_TRACKING_URI"):
        tracking_start.check(mlflow)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    with pytest.raises(ConfigError, match=r"'localhost:5000'; expected http://HOST"):
        tracking_start.check(mlflow)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    tracking_start.check(mlflow)
    both = TrackingConfig(wandb=WandbConfig(), mlflow=MlflowConfig(uri="databricks"))
    cfg = TrainConfig(tracking=both, launch=LaunchConfig(run="big"))
    found = tracking_start.trackers(cfg, tmp_path, [])
    assert [t.backend.name for t in found] == ["wandb", "mlflow"]
    assert {t._about.run for t in found} == {"big"}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_extra_is_one_line_before_anything_compiles(tmp_path, name):
    """A real process, in which the library cannot be found."""
    (tmp_path / "hide.py").write_text(HIDE.format(name=name))
    out = subprocess.run(
        [sys.executable, str(tmp_path / "hide.py")], capture_output=True, text=True
    )
    assert out.returncode == 2
    assert out.stderr.count("\n") == 1
    assert f"uv sync --extra {name}, or --config.tracking.{name}=None" in out.stderr


HIDE = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda n, *rest: None if n == "{name}" else real(n, *rest)
sys.argv[1:] = ["--config=configs/quickstart.py", "--workdir=/nowhere/run"]
sys.argv += ["--config.tracking.wandb.project=p"] if "{name}" == "wandb" else []
sys.argv += ["--config.tracking.mlflow.experiment=e"] if "{name}" == "mlflow" else []
from podium import cli, train
cli.run(train.main)
"""


@pytest.mark.parametrize("project", ["", "a/b", "a" * 129])
def test_a_project_that_wandb_refuses(project):
    with pytest.raises(ConfigError, match=r"tracking\.wandb\.project is"):
        WandbConfig(project=project)


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
