# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which host do the others wait for?

Collectives make all hosts' steps equally long, so step times do not tell. Two things do:

late     the devices of this host had nothing to do until it handed them a step: all
         others waited in that step's first collective. A slow disk, a busy CPU, Python.
paused   this process was not run at all: a thread that wants to wake every 20 ms woke
         later. A stopped process, no memory, a hypervisor that gave its cores away.

Every process tells its own of a window through the store behind `jax.distributed`, which
uses no device and makes nobody wait; the first one notes the table in the ledger.
"""

import json
import logging
import socket
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from podium import processes
from podium.trainer.events import Events

_TICK_SECS = 0.02
_LEAST_PAUSE_SECS = 0.1  # less is how a busy machine schedules
_FIRST_WINDOW_SECS, _WINDOW_SECS = 5.0, 60.0
SLOW_SHARE = 0.05  # of a window by which a host is behind the others, to be named


class HostTimes:
    """This process's part, and on the first one the table. Does nothing if alone."""

    def __init__(self, events: Events, say: Callable[[str], None]):
        self._events, self._say = events, say
        self._is_alone = jax.process_count() == 1
        self._process = jax.process_index()
        self._window_secs = _FIRST_WINDOW_SECS
        self._paused_secs = 0.0
        self._named: int | None = None
        self._is_done: Callable[[], bool] | None = None  # whether the newest step is
        self._dry_since: float | None = None  # when it was first seen to be
        self._closed = threading.Event()
        self._ticker = threading.Thread(
            target=self._tick, name="podium-hosts", daemon=True
        )
        self._begin()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._num_steps, self._late_secs, self._wait_secs = 0, 0.0, 0.0
        self._paused_before = self._paused_secs

    def __enter__(self) -> "HostTimes":
        if not self._is_alone:
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def dispatched(
        self, is_done: Callable[[], bool], wait_secs: float, *, follows: bool
    ) -> None:
        """A step was handed to the devices, after `wait_secs` for its batch; `is_done`
        tells when they are done with it; `follows`: right after another step."""
        if self._is_alone:
            return
        now, dry_since = time.monotonic(), self._dry_since
        self._is_done, self._dry_since = is_done, None
        self._num_steps += 1
        if follows and dry_since is not None:
            self._late_secs += now - dry_since
        self._wait_secs += wait_secs

    def _tell(self, secs: float) -> None:
        row = {
            "process": self._process,
            "host": socket.gethostname(),
            "steps": self._num_steps,
            "secs": round(secs, 3),
            "late_secs": round(self._late_secs, 3),
            "input_wait_secs": round(self._wait_secs, 3),
            "paused_secs": round(self._paused_secs - self._paused_before, 3),
        }
        client = processes.client()
        key = f"podium/hosts/{self._process}"
        client.key_value_set(key, json.dumps(row), allow_overwrite=True)
        if self._process == 0:
            told = [json.loads(v) for _, v in client.key_value_dir_get("podium/hosts/")]
            self._note(sorted(told, key=lambda row: row["process"]))

    def _note(self, rows: list[dict[str, Any]]) -> None:
        slow = slowest(rows)
        number = None if slow is None else slow["process"]
        self._events.add("hosts", hosts=rows, slowest=number)
        if slow is not None and number != self._named:
            self._say(f"WARNING: {in_words(slow)}")
        self._named = number

    def _tick(self) -> None:
        before = time.monotonic()
        while not self._closed.wait(_TICK_SECS):
            now = time.monotonic()
            late = now - before - _TICK_SECS
            if late > _LEAST_PAUSE_SECS:
                self._paused_secs += late
            before = now
            self._look(now)
            if now - self._began < self._window_secs:
                continue
            try:
                self._tell(now - self._began)
            except Exception as error:  # the store is gone: a peer is, others see to it
                logging.debug("host times: %s", error)
            self._window_secs = min(_WINDOW_SECS, 2 * self._window_secs)
            self._begin()

    def _look(self, now: float) -> None:
        is_done = self._is_done
        if is_done is not None and self._dry_since is None and is_done():
            self._dry_since = now
            if is_done is not self._is_done:  # the next one came in between
                self._dry_since = None


def lost_share(row: dict[str, Any]) -> float:
    """Of a window, in which a host kept its devices waiting or was not run."""
    lost = max(row["late_secs"], row["paused_secs"])
    return lost / row["secs"] if row["secs"] else 0.0


def slowest(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The host that the others wait for; None where they are about alike."""
    if len(rows) < 2:
        return None
    *others, worst = sorted(rows, key=lost_share)
    usual = statistics.median(lost_share(row) for row in others)
    return worst if lost_share(worst) - usual > SLOW_SHARE else None


def in_words(row: dict[str, Any]) -> str:
    """What a slow host is, and how slow."""
    why = (
        "it was not run" if row["paused_secs"] > row["late_secs"] else "late with steps"
    )
    if row["input_wait_secs"] > row["late_secs"] / 2 > row["paused_secs"] / 2:
        why = "its input is slow"
    return (
        f"the others wait for process {row['process']} on {row['host']}: "
        f"{lost_share(row):.0%} of the last {row['secs']:.0f} s, {why}"
    )
