# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import errno
import json
import os
import subprocess
import sys
import time

import pytest

from podium.trainer import events as ledger
from podium.trainer.events import Events, Steps, read_events, read_lines


def names(folder):
    return [(e["event"], e.get("step")) for e in read_events(folder)]


@pytest.fixture
def disk(monkeypatch):
    """A disk that takes so many bytes more; None: all."""
    room = {"bytes": None}
    write = os.write

    def limited(file, data):
        if room["bytes"] is None:
            return write(file, data)
        if room["bytes"] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = write(file, data[: room["bytes"]])
        room["bytes"] -= count
        return count

    monkeypatch.setattr(ledger.os, "write", limited)
    return room


@pytest.mark.parametrize("room", [0, 1, 40, 130, 200])
def test_what_a_full_disk_refuses_is_written_when_there_is_room(
    tmp_path, disk, room, capsys
):
    with Events(tmp_path) as events:
        events.add("start", step=0)
        disk["bytes"] = room
        for step in (1, 2, 3):
            events.add("save", step=step)
        disk["bytes"] = None
        events.add("save", step=4)
        expected = [("start", 0), *(("save", step) for step in (1, 2, 3, 4))]
        assert names(tmp_path) == expected
    assert read_lines(tmp_path)[1] == 0
    warning = capsys.readouterr().err
    assert warning.count("WARNING") == 1
    assert "events.jsonl: No space left on device; training goes on" in warning


def test_a_disk_that_stays_full_ends_nothing(tmp_path, disk):
    disk["bytes"] = 0
    with Events(tmp_path) as events:
        events.add("start", step=0)
    events.add("fault", what="after the end")
    assert names(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_cut_short_does_not_take_the_next_one_with_it(tmp_path, cut):
    with Events(tmp_path) as events:
        events.add("start", step=0)
        events.add("save", step=5)
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    # What reads a ledger that is cut, and no later start has mended.
    whole = cut == 1  # the line lacks its end alone
    assert names(tmp_path) == [("start", 0), *([("save", 5)] * whole)]
    with Events(tmp_path, process=1) as events:
        events.add("start", step=5)
    with Events(tmp_path) as events:
        events.add("start", step=5)
    assert names(tmp_path)[-1] == ("start", 5)
    assert read_lines(tmp_path)[1] == (not whole)


def test_a_line_tells_when_its_process_began():
    code = "import time; time.sleep(0.5); begin = time.time(); import podium.trainer.events"
    code += (
        " as e, tempfile as t; d = t.mkdtemp(); e.Events(d).add('start'); import json"
    )
    code += "; print(json.dumps([begin, e.read_events(d)[0]]))"
    before = time.time()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    begin, event = json.loads(out.stdout)
    # The kernel counts hundredths of a second.
    assert before - 0.02 < event["began"] < begin - 0.4
    assert event["up"] == pytest.approx(event["time"] - event["began"], abs=0.01)


def test_other_processes_note_faults_alone_with_their_number(tmp_path):
    with Events(tmp_path, process=2) as events:
        events.add("save", step=1)
        events.add("fault", what="lost process")
    [fault] = read_events(tmp_path)
    assert (fault["event"], fault["process"]) == ("fault", 2)


def steps_noted(folder):
    found = [e for e in read_events(folder) if e["event"] == "steps"]
    return [(e["first"], e["last"], e["secs"], e["wait_secs"]) for e in found]


def test_the_first_step_is_noted_at_once_and_the_others_together(tmp_path):
    with Events(tmp_path) as events:
        steps = Steps(events)
        for step in range(6, 10):
            steps.waited(0.25)
            steps.add(step, 1.0)
        assert steps_noted(tmp_path) == [(6, 6, 1.0, 0.25)]
        steps.flush()
        steps.flush()
    assert steps_noted(tmp_path) == [(6, 6, 1.0, 0.25), (7, 9, 3.0, 0.75)]


def test_steps_are_noted_when_ten_seconds_have_gone_by(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(ledger.time, "monotonic", lambda: now[0])
    with Events(tmp_path) as events:
        steps = Steps(events)
        for step in range(1, 10):
            now[0] += 3.0
            steps.add(step, 3.0)
    noted = [(1, 1, 3.0, 0.0), (2, 5, 12.0, 0.0), (6, 9, 12.0, 0.0)]
    assert steps_noted(tmp_path) == noted


def test_a_run_that_goes_back_notes_what_it_did_before(tmp_path):
    with Events(tmp_path) as events:
        steps = Steps(events)
        for step in (1, 2, 3, 2, 3):
            steps.add(step, 1.0)
        steps.flush()
    noted = [(1, 1, 1.0, 0.0), (2, 3, 2.0, 0.0), (2, 3, 2.0, 0.0)]
    assert steps_noted(tmp_path) == noted
