# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""W&B's own library, offline: what it keeps for `wandb sync`, read record by record."""

import json
import os
import socket
import struct
import time

import pytest

from podium.trainer.track_wandb import WandbBackend, has_key
from podium.trainer.tracking import Tracker, lost_line
from tests.trainer import tracked

pytest.importorskip("wandb", reason="uv sync --extra wandb")
_BLOCK = 32768  # LevelDB's log format, doc/log_format.md there, behind seven bytes


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    tracked.hurry(monkeypatch)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def records(path):
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of a record, or its last part
            yield Record.FromString(whole)
            whole = b""


def starts(workdir):
    """The records of every start of the run, oldest first."""
    paths = sorted((workdir / "wandb").glob("offline-run-*/run-*.wandb"))
    return [list(records(path)) for path in paths]


def items(update):
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in update}


def config_of(start):
    found = {}
    for record in start:
        found |= items(record.run.config.update) | items(record.config.update)
    return found


def curve(start, name):
    found = [items(record.history.item) for record in start]
    return {row["step"]: row[name] for row in found if name in row}


def summary_of(start):
    found = {}
    for record in start:
        found |= items(record.summary.update)
    return found


def test_a_run_is_there_with_config_curves_figures_and_checkpoints(tmp_path):
    told = tracked.run(WandbBackend("mine", None), tmp_path, 0, 8)
    assert (told["sent"], told["missed"], told["failures"]) == (10, 0, 0)
    assert told["is_closed"]
    (start,) = starts(tmp_path)
    (run,) = [r.run for r in start if r.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.project, run.display_name) == ("mine", "mine", "mine")
    config = config_of(start)
    assert config.items() >= tracked.about(tmp_path).params.items()
    assert config["podium_commit"] == "c0ffee-dirty"
    assert config["podium_data"] == {"gs://b/gold": "f" * 64}
    assert curve(start, "loss") == tracked.losses(1, 8)
    assert curve(start, "eval_loss") == {4: 4.6, 8: 4.2}
    assert curve(start, "grad_norm") == {}
    assert summary_of(start).items() >= tracked.SUMMARY.items()
    axes = {r.metric.glob_name: r.metric.step_metric for r in start}
    assert axes["*"] == "step"
    (git,) = [r.environment.git.commit for r in start if r.environment.HasField("git")]
    assert git == "c0ffee"
    made = [r.artifact for r in start if r.WhichOneof("record_type") == "artifact"]
    assert [(a.type, a.name) for a in made] == [("model", "checkpoint-mine")] * 2
    assert json.loads(made[1].metadata) == {
        "uri": "gs://b/runs/mine/checkpoints/8",
        "step": 8,
        "format": "orbax",
    }
    assert "step-8" in made[1].aliases
    assert made[0].digest != made[1].digest
    assert [r.exit.exit_code for r in start if r.HasField("exit")] == [0]


def test_a_resumed_run_is_the_same_run(tmp_path):
    told = tracked.run(WandbBackend("p", None), tmp_path, 0, 6, state="CANCELLED")
    assert told["is_closed"]
    told = tracked.run(WandbBackend("p", None), tmp_path, 4, 8, num_steps=9)
    assert told["sent"] == 7  # 5 to 8 with an evaluation, and both rows of 4 again
    first, second = starts(tmp_path)
    ids = {r.run.run_id for s in (first, second) for r in s if r.run.run_id}
    assert ids == {"mine"}
    assert curve(first, "loss") | curve(second, "loss") == tracked.losses(1, 8)
    assert config_of(second)["num_steps"] == 9
    codes = [r.exit.exit_code for s in (first, second) for r in s if r.HasField("exit")]
    assert codes == [75, 0]
    assert any(r.HasField("preempting") for r in first)


def test_a_process_that_dies_is_begun_again_and_has_all(tmp_path):
    backend = WandbBackend("p", None)
    tracker = Tracker(backend, tracked.about(tmp_path), every=1)
    tracker.start()
    tracked.rows(tmp_path, 0, 4, tracker)
    while tracker.num_sent < 5:
        time.sleep(0.01)
    backend._child.kill()
    tracked.rows(tmp_path, 4, 8, tracker)
    told = tracker.close("COMPLETE", tracked.SUMMARY, [8], 60.0)
    assert (told["missed"], told["is_closed"]) == (0, True)
    assert told["failures"] >= 1
    found = {}
    for start in starts(tmp_path):
        found |= curve(start, "loss")
    assert found.items() >= {s: v for s, v in tracked.losses(5, 8).items()}.items()


def test_a_service_that_never_answers_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(
            "WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        backend = WandbBackend("p", None)
        tracker = Tracker(backend, tracked.about(tmp_path), every=1)
        tracker.start()
        tracked.rows(tmp_path, 0, 8, tracker)
        told = tracker.close("COMPLETE", tracked.SUMMARY, [8], 2.0)
        assert told["missed"] == 10
        assert "10 rows" in lost_line(told)
        child = backend._child
        assert os.getpgid(child.pid) != os.getpgid(0)  # Ctrl-C does not reach it
        assert child.poll() is None  # where there is something, it still sends that
        child.kill()
        child.wait()
        tracker._thread.join()
        backend._leave()


def test_a_run_needs_a_key_or_to_be_offline(tmp_path, monkeypatch):
    assert has_key()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert not has_key()
    (tmp_path / ".netrc").write_text(
        f"machine api.wandb.ai\n  login user\n  password {'a' * 40}\n"
    )
    (tmp_path / ".netrc").chmod(0o600)
    assert has_key()
