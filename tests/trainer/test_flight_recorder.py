# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import json

from podium.config import TrainConfig
from podium.trainer import flight_recorder
from podium.trainer.flight_recorder import FlightRecorder


def record(recorder, step):
    path = recorder.record(step, what="spike", action="keep", skips=(), layers={})
    return None if path is None else json.loads(path.read_text())


def test_a_record_has_the_last_steps_and_those_of_before_a_restart(tmp_path):
    def rows(numbers):
        return [{"step": n, "loss": float(n)} for n in numbers]

    # Of two starts: the second did steps 150 and 151 again.
    lines = [*rows(range(1, 152)), {"step": 150, "eval_loss": 1.0}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"cut'
    (tmp_path / "metrics.jsonl").write_text(text)
    recorder = FlightRecorder(tmp_path, TrainConfig(), print)
    recorder.add(150, {"loss": -1.0})
    recorder.add(151, {"loss": float("inf")})
    tree = record(recorder, 151)
    assert [row["step"] for row in tree["metrics"]] == list(range(52, 152))
    assert [row["loss"] for row in tree["metrics"][-3:]] == [149.0, -1.0, "inf"]


def test_records_of_one_step_are_numbered_and_bounded(tmp_path, monkeypatch):
    recorder = FlightRecorder(tmp_path, TrainConfig(), print)
    monkeypatch.setattr(flight_recorder, "MAX_RECORDS", 3)
    for step in (7, 7, 70, 71):
        recorder.add(step, {"loss": 1.0})
        assert (record(recorder, step) is None) == (step == 71)
    found = [path.name for path in flight_recorder.records(tmp_path, 7)]
    assert found == ["step-7.json", "step-7-2.json"]
