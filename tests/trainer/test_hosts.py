# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Who of several hosts is slow, from what they tell."""

import json
import re
import time

import pytest

from podium import processes
from podium.trainer import hosts
from podium.trainer.events import Events, read_events


def row(process, **secs):
    told = {"late_secs": 0.0, "input_wait_secs": 0.0, "paused_secs": 0.0, **secs}
    return {"process": process, "host": f"h{process}", "steps": 9, "secs": 10.0, **told}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([row(0), row(1, paused_secs=5.0)], "process 1 on h1: 50% of .*it was not run"),
        ([row(0, late_secs=3.0), row(1)], "process 0 on h0: 30% of .*late with steps"),
        (
            [row(0), row(1, late_secs=2.0, input_wait_secs=1.9), row(2)],
            "process 1 on h1: 20% of .*its input is slow",
        ),
    ],
)
def test_the_slow_host_is_named_with_a_reason(rows, says):
    slow = hosts.slowest(rows)
    assert slow is not None
    words = hosts.in_words(slow)
    assert re.search(says, words), words


@pytest.mark.parametrize(
    "rows",
    [
        [row(0), row(1)],
        [row(i, late_secs=6.0 + i / 10) for i in range(4)],  # all alike: tiny steps
        [row(0, late_secs=9.0)],
    ],
)
def test_of_hosts_that_are_alike_none_is(rows):
    assert hosts.slowest(rows) is None


class Store(dict):
    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self[key] = value

    def key_value_dir_get(self, folder):
        return [(k, v) for k, v in self.items() if k.startswith(folder)]


def test_the_first_process_notes_the_table(tmp_path, monkeypatch):
    store, said = Store(), []
    store["podium/hosts/1"] = json.dumps(row(1))
    monkeypatch.setattr(processes, "client", lambda: store)
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "_FIRST_WINDOW_SECS", 0.3)
    until = time.monotonic() + 30
    with Events(tmp_path) as events, hosts.HostTimes(events, said.append) as times:
        while not said and time.monotonic() < until:
            times.dispatched(lambda: True, 0.0, follows=True)
            time.sleep(0.1)
    event = read_events(tmp_path)[0]
    assert event["slowest"] == 0
    mine, other = event["hosts"]
    assert mine["steps"] >= 1
    assert 0 < mine["late_secs"] <= mine["secs"]
    assert other == row(1)
    assert "process 0 on" in said[0]


@pytest.mark.parametrize(
    ("is_done", "follows", "late"),
    [(True, True, 1.0), (False, True, 0.0), (True, False, 0.0)],
)
def test_late_is_what_the_devices_had_nothing_to_do(
    tmp_path, monkeypatch, is_done, follows, late
):
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.time, "monotonic", lambda: 8.0)
    with Events(tmp_path) as events:
        times = hosts.HostTimes(events, print)
        times.dispatched(lambda: is_done, 0.1, follows=True)
        times._look(7.0)
        times.dispatched(lambda: True, 0.1, follows=follows)
    assert times._late_secs == late
