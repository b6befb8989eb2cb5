# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""events.jsonl: what happened to a run, in order, over all its starts.

One JSON object a line, appended at once, so that a killed process leaves its story:

    {"time": …, "began": …, "up": …, "event": name, …}

`time` is now and `began` when the process began, both by the wall clock, in seconds since
the epoch; `up` is the seconds between them by a clock that nobody sets. Lines of one
process share `began`. `python -m profiling.goodput` tells from this file where the time
went.
"""

import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

Event = Literal[
    "start",
    "compile",
    "restore",
    "steps",
    "eval",
    "save",
    "saved",
    "checkpoint",
    "save_interval",
    "rewind",
    "verify",
    "hosts",
    "maintenance",
    "tracking",
    "stop",
    "fault",
]

STEPS_EVERY_SECS = 10.0


def _clock() -> float:
    """Seconds, those of a suspended machine too where the kernel counts them."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _age_secs() -> float:
    """Of this process. Imports alone take seconds, so the kernel is asked when it began
    (Linux, proc_pid_stat(5), field 22); elsewhere it begins with this import."""
    if sys.platform != "linux":
        return 0.0
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, _clock() - began)


_BEGAN = _clock() - _age_secs()
_BEGAN_TIME = round(time.time() - _clock() + _BEGAN, 3)


class Events:
    """The ledger of one run folder. Threads may share it."""

    def __init__(self, workdir: str | Path, *, process: int = 0):
        self._process = process
        self._path = Path(workdir) / "events.jsonl"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        self._file: int | None = os.open(self._path, flags, 0o666)
        self._lock = threading.Lock()
        self._is_warned = False
        size = os.fstat(self._file).st_size
        is_cut = size and os.pread(self._file, 1, size - 1) != b"\n"
        # A kill or a full disk cut the last line: it must not take ours with it.
        self._unwritten = b"\n" if is_cut and not process else b""

    def add(self, event: Event, **fields: Any) -> None:
        """Appends one event; of other processes than the first only faults, by number.

        A line that a full disk refuses is kept, and written with the next one.
        """
        if self._process:
            if event != "fault":
                return
            fields["process"] = self._process
        with self._lock:
            line = {
                "time": round(time.time(), 3),
                "began": _BEGAN_TIME,
                "up": round(_clock() - _BEGAN, 3),
                "event": event,
                **fields,
            }
            self._unwritten += json.dumps(line).encode() + b"\n"
            self._write()

    def _write(self) -> None:
        try:
            while self._unwritten and self._file is not None:
                written = os.write(self._file, self._unwritten)
                self._unwritten = self._unwritten[written:]
        except OSError as error:
            if not self._is_warned:
                self._is_warned = True
                print(
                    f"WARNING: {self._path}: {error.strerror}; training goes on, and the "
                    "lines are written when that is possible again",
                    file=sys.stderr,
                )

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._write()
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Steps:
    """Notes steps: the first one at once, then all since, every ten seconds.

    So a killed run's work is known to within ten seconds or one step. A `steps` event has
    `first`, `last`, `secs` from the end of the step before `first` to the end of `last`,
    and `wait_secs`, those of them in which the devices waited for data.
    """

    def __init__(self, events: Events):
        self._events = events
        self._first: int | None = None
        self._last, self._secs, self._wait_secs = 0, 0.0, 0.0
        self._noted = -math.inf

    def waited(self, secs: float) -> None:
        """The devices waited for data, during the step that is added next."""
        self._wait_secs += secs

    def add(self, step: int, secs: float) -> None:
        """A step came to its end."""
        if self._first is not None and step != self._last + 1:  # the run went back
            self.flush()
        if self._first is None:
            self._first = step
        self._last = step
        self._secs += secs
        if time.monotonic() - self._noted >= STEPS_EVERY_SECS:
            self.flush()

    def flush(self) -> None:
        """Notes what was added; before anything else takes the loop's time."""
        if self._first is None:
            return
        self._events.add(
            "steps",
            first=self._first,
            last=self._last,
            secs=round(self._secs, 3),
            wait_secs=round(min(self._wait_secs, self._secs), 3),
        )
        self._first, self._secs, self._wait_secs = None, 0.0, 0.0
        self._noted = time.monotonic()


def read_events(workdir: str | Path) -> list[dict[str, Any]]:
    """All events of a run, but for lines that a kill or a full disk cut short."""
    return read_lines(workdir)[0]


def read_lines(workdir: str | Path) -> tuple[list[dict[str, Any]], int]:
    """All events of a run, and how many lines are none."""
    text = (Path(workdir) / "events.jsonl").read_text(errors="replace")
    found, num_bad = [], 0
    for line in text.split("\n"):
        try:
            event = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            event = {}
        if event is None:
            continue
        if isinstance(event, dict) and {"time", "event"} <= event.keys():
            found.append(event)
        else:
            num_bad += 1
    return found, num_bad
