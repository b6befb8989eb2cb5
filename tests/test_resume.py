# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import os

import pytest

from podium import checksums, resume, run_folder
from podium.config import DataConfig, MeshConfig, TrainConfig
from podium.errors import CheckpointError, ConfigError
from podium.storage import open_folder


@pytest.fixture
def run(tmp_path):
    cfg = TrainConfig()
    resume.write_config(tmp_path, cfg, ["aaaa"])
    checkpoint(tmp_path, "40")
    checkpoint(tmp_path, "50.orbax-checkpoint-tmp")
    return tmp_path, cfg


def checkpoint(workdir, name):
    folder = workdir / "checkpoints" / name
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "d").write_bytes(b"weights")
    checksums.write(open_folder(folder), has_late=True)


def test_the_newest_whole_checkpoint_is_continued(run):
    workdir, cfg = run
    assert resume.step_to_resume(workdir, cfg).step == 40


def test_mesh_and_length_of_the_run_may_change(run):
    workdir, cfg = run
    other = dataclasses.replace(cfg, mesh=MeshConfig(tensor=2), num_steps=9_999)
    assert resume.step_to_resume(workdir, other).step == 40


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
        changed = dataclasses.replace(cfg, data=data)
        return resume.step_to_resume(workdir, changed).step

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
        run_folder.check_folder(tmp_path / "docs")
    with pytest.raises(ConfigError, match="is no folder"):
        run_folder.check_folder(tmp_path / "docs" / "page.md")
    with pytest.raises(ConfigError, match="/proc/run cannot be written"):
        run_folder.make_folder("/proc/run")
    for _ in range(2):  # new, then a run that was stopped before its first step
        run_folder.check_folder(tmp_path / "new")
        run_folder.make_folder(tmp_path / "new")
        (tmp_path / "new" / "data.partial").mkdir(exist_ok=True)


def test_a_run_is_locked_until_its_process_ends(tmp_path):
    run_folder.make_folder(tmp_path)
    with (
        run_folder.lock(tmp_path),
        pytest.raises(ConfigError, match=rf"by pid {os.getpid()} on host \S+; stop"),
        run_folder.lock(tmp_path),
    ):
        pass
    with run_folder.lock(tmp_path):
        pass


def test_damaged_files_are_named_with_what_to_do(run):
    workdir, cfg = run
    (workdir / "config.json").write_text('{"seed": ')
    with pytest.raises(CheckpointError, match=r"config.json is damaged.*delete it"):
        resume.step_to_resume(workdir, cfg)
    (workdir / "config.json").unlink()
    assert resume.step_to_resume(workdir, cfg).step == 40  # as the message says


def test_a_folder_that_is_not_there_is_not_one_without_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        resume.find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoints"):
        resume.find_checkpoint(tmp_path)


def test_a_folder_without_checkpoints_begins_anew_whatever_its_config(tmp_path):
    resume.write_config(tmp_path, TrainConfig(), ["aaaa"])
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    assert resume.step_to_resume(tmp_path, TrainConfig(seed=1)) == (None, {})


def test_a_damaged_checkpoint_is_passed_over_and_moved_out_of_the_way(run):
    workdir, cfg = run
    for name in ("70", "80"):
        checkpoint(workdir, name)
        (workdir / "checkpoints" / name / "state" / "d").write_bytes(b"weighty")
    good = resume.step_to_resume(workdir, cfg)
    assert good.step == 40
    assert list(good.damaged) == [80, 70]
    assert "checkpoints/80/state/d has CRC-32C" in good.damaged[80]
    folder = resume.checkpoints_folder(workdir)
    assert resume.set_aside(folder, 80) == "80.damaged"
    checkpoint(workdir, "80")
    assert resume.set_aside(folder, 80) == "80.damaged-2"
    assert resume.whole_steps(folder) == [40, 70]


def test_a_checkpoint_that_lost_its_checksums_is_damaged_and_kept(run):
    workdir, cfg = run
    checkpoint(workdir, "70")
    (workdir / "checkpoints" / "70" / "checksums.json").unlink()
    good = resume.step_to_resume(workdir, cfg)
    assert good.step == 40
    assert good.damaged[70].endswith("checkpoints/70/checksums.json is missing")
    resume.clear_unfinished(resume.checkpoints_folder(workdir))
    left = sorted(p.name for p in (workdir / "checkpoints").iterdir())
    assert left == ["40", "70"]


def test_a_run_without_a_good_checkpoint_does_not_begin_anew_by_itself(run):
    workdir, cfg = run
    (workdir / "checkpoints" / "40" / "state" / "d").unlink()
    for use in (lambda: resume.step_to_resume(workdir, cfg),
                lambda: resume.find_checkpoint(workdir)):  # fmt: skip
        with pytest.raises(CheckpointError, match=r"every checkpoint .*d is missing"):
            use()


def test_who_reads_a_damaged_checkpoint_is_told_which_one_is_used(run):
    workdir, _ = run
    checkpoint(workdir, "90")
    (workdir / "checkpoints" / "90" / "state" / "d").unlink()
    said = []
    assert resume.find_checkpoint(workdir, None, said.append) == 40
    assert "checkpoint 90 is damaged" in said[0]
    assert "using 40" in said[0]
    with pytest.raises(CheckpointError, match="checkpoint 90 is damaged"):
        resume.find_checkpoint(workdir, 90)
