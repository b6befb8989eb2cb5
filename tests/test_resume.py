# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import pytest

from podium import resume
from podium.config import MeshConfig, TrainConfig
from podium.errors import ConfigError


@pytest.fixture
def run(tmp_path):
    cfg = TrainConfig()
    resume.write_config(tmp_path, cfg, ["aaaa"])
    (tmp_path / "checkpoints" / "40").mkdir(parents=True)
    (tmp_path / "checkpoints" / "50.orbax-checkpoint-tmp").mkdir()
    return tmp_path, cfg


def test_the_newest_whole_checkpoint_is_continued(run):
    workdir, cfg = run
    assert resume.step_to_resume(workdir, cfg) == 40


def test_mesh_and_length_of_the_run_may_change(run):
    workdir, cfg = run
    other = dataclasses.replace(cfg, mesh=MeshConfig(tensor=2), num_steps=9_999)
    assert resume.step_to_resume(workdir, other) == 40


def test_anything_else_is_an_error_that_shows_both_values(run):
    workdir, cfg = run
    with pytest.raises(ConfigError, match="seed: saved 0, now 7"):
        resume.step_to_resume(workdir, dataclasses.replace(cfg, seed=7))


def test_other_data_is_an_error_that_shows_both_fingerprints(run):
    workdir, _ = run
    resume.check_fingerprints(workdir, ["aaaa"])
    with pytest.raises(ConfigError, match=r"trained on data aaaa.*now holds bbbb"):
        resume.check_fingerprints(workdir, ["bbbb"])


def test_a_folder_without_checkpoints_begins_anew_whatever_its_config(tmp_path):
    resume.write_config(tmp_path, TrainConfig(), ["aaaa"])
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    assert resume.step_to_resume(tmp_path, TrainConfig(seed=1)) is None
