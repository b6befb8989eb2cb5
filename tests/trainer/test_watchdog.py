# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import threading
import time

import pytest

from podium.config import WatchdogConfig
from podium.trainer.events import Events, read_events
from podium.trainer.watchdog import Watchdog


class Program:
    """What a compiled step says of itself."""

    def as_text(self):
        return """
  %all-gather-start.1 = (f32[2], f32[8]) all-gather-start(%p), replica_groups={}
  %fusion = f32[8] fusion(%x), kind=kLoop
  ROOT %all-reduce.7 = f32[] all-reduce(%y), to_apply=%add
"""


@pytest.fixture
def watched(tmp_path):
    """(a watchdog that allows 0.2 s or 5 x the median, what it said, its folder)."""
    said, is_over = [], threading.Event()

    def leave(why):
        said.append(why)
        is_over.set()

    with Events(tmp_path) as events:
        cfg = WatchdogConfig(min_secs=0.2, times_median=5.0)
        dog = Watchdog(cfg, tmp_path, events, leave=leave)
        dog.is_over, dog.said = is_over, said
        yield dog


def test_a_step_that_does_not_end_is_ended_with_stacks_and_collectives(
    watched, tmp_path
):
    with watched:
        watched.begin(Program(), 6)
        watched.step(6, 0.01)
        assert watched.is_over.wait(20)
    assert watched.said[0].startswith("step 7 has not ended for")
    [fault] = read_events(tmp_path)
    assert (fault["what"], fault["doing"]) == ("hang", "step 7")
    [path] = (tmp_path / "faults").iterdir()
    assert str(path) == fault["file"]
    text = path.read_text()
    assert "test_a_step_that_does_not_end" in text  # the stack of this thread
    assert "  all-gather-start  all-gather-start.1\n  all-reduce  all-reduce.7" in text


def test_the_bound_follows_the_steps(watched):
    assert watched.bound_secs() == 6.0  # the first step may take long
    watched.step(1, 0.01)
    assert watched.bound_secs() == 0.2
    for step in range(2, 8):
        watched.step(step, 3.0)
    assert watched.bound_secs() == 15.0


def test_an_evaluation_may_take_longer_than_a_step(watched):
    with watched:
        watched.begin(Program(), 1)
        watched.step(1, 0.01)
        with watched.during("evaluation"):
            assert watched.bound_secs() == 6.0
            time.sleep(0.5)
        watched.step(2, 0.01)
    assert watched.said == []


def test_without_a_config_nothing_is_watched(tmp_path):
    with Events(tmp_path) as events, Watchdog(None, tmp_path, events) as dog:
        dog.begin(Program(), 1)
        assert not dog._thread.is_alive()
