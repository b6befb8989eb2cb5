# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Ends a run that hangs, and leaves behind what it was doing.

The loop says when a step has come to its end. If none does for much longer than steps
have taken so far, the stacks of all Python threads and the program that the devices
were given last, with its collectives, go to D/faults/, and the process ends with 75 so
that whoever started it starts it again.
"""

import contextlib
import datetime
import faulthandler
import re
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from podium.config import WatchdogConfig
from podium.lost_peers import leave
from podium.trainer.events import Events

_RECENT_STEPS = 100
_TIMES_LONG = 30
_STOPPED_SECS = 5.0
_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%?([\w.-]+) = .*? "
    r"((?:all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?)\(",
    re.MULTILINE,
)


class Watchdog:
    """Watches while it is entered, from the first program on."""

    def __init__(
        self,
        cfg: WatchdogConfig | None,
        workdir: Path,
        events: Events,
        *,
        process: int = 0,
        leave: Callable[[str], None] = leave,
    ):
        """None for `cfg` watches nothing."""
        self._cfg, self._workdir, self._events = cfg, workdir, events
        self._process, self._leave = process, leave
        self._secs: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._since: float | None = None  # of the last sign of life
        self._doing, self._is_step = "", True
        self._program: Any = None
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="podium-watchdog", daemon=True
        )

    def begin(self, program: Any, step: int) -> None:
        """The compiled step runs from now on; it has collectives to tell of."""
        self._program, self._doing = program, f"step {step}"
        self._since = time.monotonic()

    def step(self, step: int, secs: float) -> None:
        """A step has come to its end."""
        self._secs.append(secs)
        self._since, self._doing = time.monotonic(), f"step {step + 1}"

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """What is done in here takes longer than a step."""
        before, self._doing, self._is_step = self._doing, what, False
        self._since = time.monotonic()
        yield
        self._since, self._doing, self._is_step = time.monotonic(), before, True

    def bound_secs(self) -> float:
        """How long a step may take: so many times the median of the last ones.

        The first one, an evaluation and a save may take an hour at `min_secs` of two
        minutes.
        """
        assert self._cfg
        if not self._secs or not self._is_step:
            return _TIMES_LONG * self._cfg.min_secs
        return max(
            self._cfg.min_secs, self._cfg.times_median * statistics.median(self._secs)
        )

    def __enter__(self) -> "Watchdog":
        if self._cfg is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        assert self._cfg
        pause = min(1.0, self._cfg.min_secs / 4)
        last = time.monotonic()
        while not self._wake.wait(pause):
            now = time.monotonic()
            if now - last > pause + _STOPPED_SECS and self._since is not None:
                self._since = now  # the whole process was stopped: Ctrl-Z
            last = now
            if self._since is not None and now - self._since > self.bound_secs():
                self._end(now - self._since)
                return

    def _end(self, secs: float) -> None:
        doing, bound = self._doing, self.bound_secs()
        path = self._dump(secs)
        self._events.add(
            "fault", what="hang", doing=doing, secs=round(secs, 1), file=str(path)
        )
        self._leave(
            f"{doing} has not ended for {secs:.0f} s, more than the {bound:.0f} s that "
            f"the watchdog allows (watchdog.min_secs, times_median); {path} has the stacks"
        )

    def _dump(self, secs: float) -> Path:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        path = self._workdir / "faults" / f"hang-{now}-process-{self._process}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            file.write(f"{self._doing}: no sign of life for {secs:.1f} s\n\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
            file.write(f"\n{self._collectives()}\n")
        return path

    def _collectives(self) -> str:
        """What the devices may be waiting in: they do not say which one it is."""
        if self._program is None:
            return "no program was handed to the devices yet"
        found = [f"  {m[2]}  {m[1]}" for m in _COLLECTIVE.finditer(self._text())]
        what = "\n".join(found) if found else "  none: one device"
        return f"collectives of the program that the devices have, in order:\n{what}"

    def _text(self) -> str:
        try:
            return self._program.as_text()
        except Exception as error:  # a runtime in trouble: the stacks are there
            return f"{type(error).__name__}: {error}"
