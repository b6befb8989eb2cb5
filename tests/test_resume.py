# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import os

import pytest

from podium import resume
from podium.config import DataConfig, MeshConfig, TrainConfig
from podium.errors import CheckpointError, ConfigError


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
    resume.check_fingerprints(workdir, ["gold"], ["aaaa"])
    with pytest.raises(
        ConfigError,
        match=r"on \S+/data \(fingerprint aaaa\);.*gold \(fingerprint bbbb\)",
    ):
        resume.check_fingerprints(workdir, ["gold"], ["bbbb"])


def test_another_text_is_refused_but_not_another_spelling_or_gold_data(run):
    workdir, cfg = run
    mine = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, text="a/"))
    resume.write_config(workdir, mine, ["aaaa"])

    def resumed(**changes):
        data = dataclasses.replace(cfg.data, **changes)
        return resume.step_to_resume(workdir, dataclasses.replace(cfg, data=data))

    assert resumed(text="a") == 40
    assert resumed(text="b", paths=("gold",)) == 40  # compared by fingerprint
    with pytest.raises(ConfigError, match=r"data.text: saved 'a/', now 'b'.*--workdir"):
        resumed(text="b")


def test_data_is_found_from_another_folder_and_where_it_was_moved(
    tmp_path, monkeypatch
):
    (tmp_path / "gold").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    cfg = TrainConfig(data=DataConfig(paths=("gold",)))
    resume.write_config("run", cfg, ["aaaa"])
    monkeypatch.chdir("/")
    assert resume.load_run(tmp_path / "run").data.paths == (str(tmp_path / "gold"),)
    (tmp_path / "gold").rename(tmp_path / "moved")
    assert resume.load_run(tmp_path / "run").data.paths == ("gold",)


def test_only_a_new_an_empty_or_a_runs_folder_becomes_a_run(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").touch()
    with pytest.raises(ConfigError, match=r"holds other things \(page.md\)"):
        resume.check_folder(tmp_path / "docs")
    with pytest.raises(ConfigError, match="is no folder"):
        resume.check_folder(tmp_path / "docs" / "page.md")
    with pytest.raises(ConfigError, match="/proc/run cannot be written"):
        resume.make_folder("/proc/run")
    for _ in range(2):  # new, then a run that was stopped before its first step
        resume.check_folder(tmp_path / "new")
        resume.make_folder(tmp_path / "new")
        (tmp_path / "new" / "data.partial").mkdir(exist_ok=True)


def test_a_run_is_locked_until_its_process_ends(tmp_path):
    resume.make_folder(tmp_path)
    with (
        resume.lock(tmp_path),
        pytest.raises(ConfigError, match=rf"by pid {os.getpid()} on host \S+; stop"),
        resume.lock(tmp_path),
    ):
        pass
    with resume.lock(tmp_path):
        pass


def test_damaged_files_are_named_with_what_to_do(run):
    workdir, cfg = run
    (workdir / "config.json").write_text('{"seed": ')
    with pytest.raises(CheckpointError, match=r"config.json is damaged.*delete it"):
        resume.step_to_resume(workdir, cfg)
    (workdir / "config.json").unlink()
    assert resume.step_to_resume(workdir, cfg) == 40  # as the message says


def test_a_folder_that_is_not_there_is_not_one_without_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        resume.find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoints"):
        resume.find_checkpoint(tmp_path)


def test_a_folder_without_checkpoints_begins_anew_whatever_its_config(tmp_path):
    resume.write_config(tmp_path, TrainConfig(), ["aaaa"])
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    assert resume.step_to_resume(tmp_path, TrainConfig(seed=1)) is None
