# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs in a service beside the files: sent from a thread that training never waits for.

metrics.jsonl is the source of truth and the queue: the thread reads on from the row that
the service confirmed last, so memory holds one batch however long the service is away,
and what was missed goes out when it is back, in this start of the run or in a later one.
A backend takes the same row twice without harm, as answers get lost.
"""

import abc
import contextlib
import dataclasses
import json
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

from podium.trainer.metrics import row_of

STATE_FILE = "tracking.json"  # in D/: the run's name, and how far each service is
MOST_ROWS = 200  # of a batch
_FIRST_PAUSE_SECS, _MOST_PAUSE_SECS = 1.0, 60.0
END_SECS = 60.0  # for the rest, when a run is done
HURRY_SECS = 5.0  # when it was told to go, or failed
_LEAST_SECS = 1.0  # between batches: rows are gathered, and quotas are by request

State = Literal["RUNNING", "COMPLETE", "FAILED", "CANCELLED"]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What a service is told of a run before its first row."""

    run: str
    workdir: str
    params: dict[str, int | float | str]
    data: list[tuple[str, str]]  # path and fingerprint of every manifest
    commit: str  # of the code; "" where it is not known
    config: str  # where config.json lies
    checkpoints: str  # where they lie


class Backend(abc.ABC):
    """A service that shows runs. Every call may raise, and is then repeated."""

    name: str

    @abc.abstractmethod
    def open(self, about: About) -> None:
        """Begins a run, or goes on with the one of that name."""

    @abc.abstractmethod
    def log(self, rows: list[Row]) -> None:
        """Takes rows of metrics.jsonl; a step that it has is replaced."""

    @abc.abstractmethod
    def close(self, state: State, summary: dict[str, float], steps: list[int]) -> None:
        """The run has ended for now: its last figures, and its checkpoints."""


class Tracker:
    """Keeps one backend up to date with D/metrics.jsonl."""

    def __init__(self, backend: Backend, about: About, *, every: int):
        """`every`: of how many steps one is sent; those with an evaluation all are."""
        self.backend, self._about, self._every = backend, about, every
        self._workdir = Path(about.workdir)
        self._step = _read_state(self._workdir)["sent"].get(backend.name, 0)
        self._at = 0  # bytes of the file that are done with
        self._file_number = 0  # grows when the file is replaced
        self._lock = threading.Lock()
        self._wakes, self._is_open = threading.Event(), False
        self._ending: tuple[State, dict[str, float], list[int]] | None = None
        self._until = math.inf
        self.num_sent, self.num_failures = 0, 0
        self._error = ""
        self._thread = threading.Thread(
            target=self._loop, name=f"track-{backend.name}", daemon=True
        )

    def start(self) -> None:
        """From here on the service is asked."""
        self._thread.start()

    def wake(self) -> None:
        """There are new rows. Never waits."""
        self._wakes.set()

    def rewind(self, step: int) -> None:
        """metrics.jsonl was replaced and ends with a step."""
        with self._lock:
            self._step = min(self._step, step)
            self._at, self._file_number = 0, self._file_number + 1

    def close(
        self, state: State, summary: dict[str, float], steps: list[int], secs: float
    ) -> dict[str, Any]:
        """Sends what is left, for so many seconds; what became of it, for the ledger."""
        if self._thread.is_alive():
            self._until = time.monotonic() + secs
            self._ending = state, summary, steps
            self._wakes.set()
            self._thread.join(secs)
        missed = len(self._rows(MOST_ROWS * 10**6)[0])
        return {
            "backend": self.backend.name,
            "run": self._about.run,
            "sent": self.num_sent,
            "missed": missed,
            "failures": self.num_failures,
            "is_closed": self._ending is None and not self._thread.is_alive(),
            "error": self._error,
        }

    # --- the thread ------------------------------------------------------------------

    def _loop(self) -> None:
        pause = _FIRST_PAUSE_SECS
        while True:
            try:
                is_done = self._work()
            except Exception as error:  # whatever a service or its library does
                self.num_failures += 1
                self._tell(error)
                self._is_open = False  # what it knows is looked up again
                left = self._until - time.monotonic()
                if left <= 0:
                    return
                self._nap(min(pause, left))
                pause = min(2 * pause, _MOST_PAUSE_SECS)
                continue
            if self._error:
                self._error = ""
                _say(f"{self.backend.name}: reached again; what was missed is sent")
            if is_done:
                return
            pause = _FIRST_PAUSE_SECS
            time.sleep(0 if self._ending else _LEAST_SECS)

    def _nap(self, secs: float) -> None:
        """Shorter where the run ends meanwhile."""
        until = time.monotonic() + secs
        while (left := min(until, self._until) - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
            if self._ending and secs > _FIRST_PAUSE_SECS:
                return

    def _work(self) -> bool:
        """One batch; whether the run has ended and all is sent."""
        self._wakes.clear()
        ending = self._ending
        if not self._is_open:
            self.backend.open(self._about)
            self._is_open = True
        number = self._file_number
        rows, at = self._rows(MOST_ROWS)
        if rows:
            self.backend.log(rows)
            self.num_sent += len(rows)
        with self._lock:
            if number == self._file_number:
                self._at = at
                self._step = rows[-1]["step"] if rows else self._step
        if rows:
            write_state(self._workdir, sent={self.backend.name: self._step})
            return False
        if ending:
            self.backend.close(*ending)
            self._ending = None
            return True
        self._wakes.wait()
        return False

    def _rows(self, most: int) -> tuple[list[Row], int]:
        """Rows to send, and the byte behind the last one that was looked at.

        The step that was sent last is among them after a start: an evaluation has a row
        of its own, of the same step.
        """
        rows: list[Row] = []
        with self._lock:
            at, step = self._at, self._step
        try:
            file = (self._workdir / "metrics.jsonl").open("rb")
        except FileNotFoundError:
            return [], at
        with file:
            file.seek(at)
            for line in file:
                if not line.endswith(b"\n") or len(rows) >= most:
                    break
                at += len(line)
                row = row_of(line)
                if row is None or row["step"] < step:
                    continue
                if row["step"] % self._every == 0 or "eval_loss" in row:
                    rows.append(row)
        return rows, at

    def _tell(self, error: Exception) -> None:
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if not self._error:
            _say(f"WARNING: {self.backend.name}: {line}; tried again, training goes on")
        self._error = line


def lost_line(outcome: dict[str, Any]) -> str:
    """For the user, where a run ended before the service had all; else empty."""
    if outcome["is_closed"] and not outcome["missed"]:
        return ""
    why = outcome["error"] or "no time was left"
    return (
        f"WARNING: {outcome['backend']}: {outcome['missed']} rows of metrics.jsonl have "
        f"not arrived ({why}); the same command sends them"
    )


def write_state(workdir: Path, **parts: Any) -> None:
    """Changes D/tracking.json; a disk that is full only means that rows go twice."""
    with contextlib.suppress(OSError), _STATE_LOCK:
        tree = _read_state(workdir)
        tree["sent"] |= parts.pop("sent", {})
        part = workdir / f"{STATE_FILE}.part"
        part.write_text(json.dumps({**tree, **parts}) + "\n")
        part.replace(workdir / STATE_FILE)


def run_of(workdir: Path) -> str | None:
    """The name under which services know a run."""
    return _read_state(workdir).get("run")


_STATE_LOCK = threading.Lock()


def _read_state(workdir: Path) -> dict[str, Any]:
    tree: Any = None
    with contextlib.suppress(OSError, ValueError):
        tree = json.loads((workdir / STATE_FILE).read_bytes())
    tree = tree if isinstance(tree, dict) else {}
    sent = tree.get("sent")
    return {**tree, "sent": sent if isinstance(sent, dict) else {}}


def _say(line: str) -> None:
    print(line, file=sys.stderr)
