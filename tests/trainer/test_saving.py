# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import math
import time

import pytest

from podium.config import CheckpointConfig, TrainConfig
from podium.errors import StorageError
from podium.trainer import saving
from podium.trainer.events import Events, read_events
from podium.trainer.save_interval import (
    Interval,
    optimum_secs,
    secs_between_failures,
    steps_until_save,
)
from podium.trainer.state import TrainState

DAY = 86_400.0
STATE = TrainState(step=0, params={}, opt_state=(), ema=None, recent=())


class Disk:
    """Stands in for Orbax: keeps what is saved, and fails when told to."""

    def __init__(self):
        self.saved, self.fails, self.is_saving = [], 0, False

    def save(self, state, *, step, **_):
        if self.fails:
            self.fails -= 1
            raise OSError(28, "No space left on device")
        self.saved.append(step)

    def wait(self):
        pass

    def close(self):
        pass


@pytest.fixture
def saver(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_FIRST_WAIT_SECS", 0.05)
    monkeypatch.setattr(saving, "_LAST_WAIT_SECS", 0.01)
    said = []
    with Events(tmp_path) as events:
        out = saving.Saver(
            tmp_path,
            TrainConfig(checkpoint=CheckpointConfig(every_steps=10)),
            events,
            fingerprints=[],
            skips=[],
            first_step=0,
            say=said.append,
        )
        out._opened = out.disk = Disk()
        out.said, out.folder = said, tmp_path
        yield out


def run(saver, steps):
    for step in steps:
        saver.poll(0.1)
        if saver.is_due(step, 0.1):
            saver.save(STATE, step, None, 0.1)


def test_a_failed_save_is_tried_again_while_the_run_goes_on(saver):
    saver.disk.fails = 1
    run(saver, range(1, 14))
    assert saver.disk.saved == []
    assert "step 10 is not saved (try 1 of 5, the next in" in saver.said[0]
    assert "No space left on device" in saver.said[0]
    time.sleep(0.06)
    run(saver, range(14, 25))
    assert saver.disk.saved == [14, 20]
    saver.poll(0.1)
    found = [(e["event"], e["step"]) for e in read_events(saver.folder)]
    expected = [("fault", 10), ("save", 14), ("saved", 14), ("save", 20), ("saved", 20)]
    assert found == expected


def test_an_interval_shorter_than_the_wait_uses_up_no_tries(saver):
    saver.disk.fails = 1
    run(saver, range(10, 100, 10))
    assert saver.disk.saved == []
    assert saver._failures == 1


def test_after_five_failures_in_a_row_the_run_ends(saver, monkeypatch):
    monkeypatch.setattr(saving, "_FIRST_WAIT_SECS", 0.0)
    saver.disk.fails = 5
    with pytest.raises(StorageError, match=r"5 saves in a row failed.*No space left"):
        run(saver, range(10, 100, 10))
    saver.disk.saved.clear()
    saver._failures, saver.disk.fails = 0, 4  # one that succeeds begins anew
    run(saver, range(100, 150, 10))
    saver.disk.fails = 4
    run(saver, range(150, 200, 10))
    assert saver.disk.saved == [140, 190]


def test_the_last_save_is_tried_until_it_is_whole(saver):
    saver.disk.fails = 4
    saver.finish(STATE, 7, None, 0.1)
    assert saver.disk.saved == [7]
    saver.disk.fails = 5
    with pytest.raises(StorageError, match="at step 8"):
        saver.finish(STATE, 8, None, 0.1)


def test_the_interval_costs_least():
    def cost(tau, C, M):  # seconds wasted per second of work, first order
        return C / tau + (tau + C) / (2 * M)

    for C, M in ((1.0, DAY), (20.0, DAY / 24), (0.1, 600.0)):
        tau = optimum_secs(C, M)
        assert tau == pytest.approx(math.sqrt(2 * C * M), rel=0.1)  # Young
        assert cost(tau, C, M) <= min(cost(0.8 * tau, C, M), cost(1.25 * tau, C, M))
    assert optimum_secs(100.0, 40.0) == 40.0


def test_the_rate_of_failures_is_that_of_the_ledger():
    def starts(*times, done=()):
        events = [{"time": t, "event": "start"} for t in times]
        return events + [{"time": t, "event": "stop", "done": True} for t in done]

    assert secs_between_failures([], 0.0) == DAY
    assert secs_between_failures(starts(0.0), DAY) == 2 * DAY
    assert secs_between_failures(starts(0.0, 1.0, 2.0), DAY) == 2 * DAY / 3
    # A run that was made longer was not interrupted.
    assert secs_between_failures(starts(0.0, 9.0, done=(5.0,)), DAY) == 2 * DAY


def test_an_interval_in_steps_follows_the_costs_and_never_overlaps_saves():
    def steps(**changes):
        known = dict(save_secs=2.0, write_secs=1.0, step_secs=0.5, failure_secs=DAY)
        return steps_until_save(**{**known, **changes})

    assert steps() == round(optimum_secs(2.0, DAY) / 0.5)
    assert steps(write_secs=5000.0) == 20_000
    assert steps(save_secs=None) == 120  # a minute
    assert steps(step_secs=1e9) == 1


def test_an_automatic_interval_is_counted_from_the_last_save():
    fixed, auto = Interval(10, 3), Interval(None, 3)
    assert [s for s in range(30) if fixed.is_due(s)] == [0, 10, 20]
    assert not any(auto.is_due(s) for s in range(30))
    auto.steps = 7
    assert [s for s in range(3, 12) if auto.is_due(s)] == [10, 11]
    auto.begin(10)
    assert not auto.is_due(16)
    assert auto.is_due(17)


def test_a_run_finds_its_interval_and_notes_it(saver):
    saver._interval = Interval(None, 0)
    run(saver, range(1, 1000))
    saver.poll(0.1)
    events = read_events(saver.folder)
    found = [e["steps"] for e in events if e["event"] == "save_interval"]
    # A minute at first; this disk costs next to nothing.
    assert found[0] == 600
    assert found[1] < 300
    assert saver.disk.saved[0] == 600
    assert saver.disk.saved[1] == 600 + found[1]
