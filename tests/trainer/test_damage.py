# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import contextlib

import pytest

from podium.input.damage import Damage
from podium.trainer.damage import DamageLog
from podium.trainer.events import Events, read_events

ONE, TWO, THREE = (Damage("gold/a.tfrecord", n, 100 * n, "torn") for n in (1, 2, 3))


@pytest.fixture
def start(tmp_path):
    """A function (process) -> its log, and the list of what it says."""
    with contextlib.ExitStack() as opened:

        def start(process=0):
            said = []
            events = Events(tmp_path, process=process)
            opened.callback(events.close)
            return DamageLog(tmp_path, events, said.append, process=process), said

        yield start


def test_a_record_is_named_once_counted_and_remembered_over_a_restart(start, tmp_path):
    log, said = start()
    assert log.count(1) is None  # and no metric
    log.note([ONE], 1)
    log.note([ONE, TWO], 2)
    assert (log.count(1), log.count(2)) == (1, 2)
    assert said == [f"WARNING: step 1 goes without {ONE}",
                    f"WARNING: step 2 goes without {TWO}"]  # fmt: skip
    again, said = start()  # from a checkpoint of step 1
    assert again.count(1) == 1
    again.note([ONE, TWO], 2)
    assert again.count(2) == 2
    again.note([THREE], 2)
    assert again.count(2) == 3
    assert said == [f"WARNING: step 2 goes without {THREE}"]
    faults = read_events(tmp_path)
    assert [(e["event"], e["step"], e["record"]) for e in faults] == [
        ("fault", 1, 1), ("fault", 2, 2), ("fault", 2, 3)
    ]  # fmt: skip
    assert faults[0]["shard"] == ONE.file
    assert faults[0]["byte"] == 100
    assert faults[0]["error"] == f"skipped: {ONE}"


def test_another_process_writes_its_number_and_counts_its_own(start, tmp_path):
    first, _ = start()
    first.note([ONE], 1)
    second, _ = start(process=1)
    assert second.count(9) is None
    second.note([ONE, TWO], 1)
    assert [e.get("process", 0) for e in read_events(tmp_path)] == [0, 1, 1]
    assert start()[0].count(9) == 1
    assert start(process=1)[0].count(9) == 2


def test_a_line_cut_short_and_other_faults_are_passed_over(start, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(
        '{"event": "fault", "error": "x"}\n[1]\n5\n{"event": "fau{"time": 1}\n'
    )
    log, _ = start()
    log.note([ONE], 3)
    with path.open("a") as file:
        file.write('{"event": "fault", "shard": "s", "record": [1], "step": 1}\n{"ev')
    assert start()[0].count(3) == 1
