# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The ledger of a run -> every millisecond since its first start, in one part each.

An attempt, one process that trained, lasts from its beginning to its last line, by its own
clock. A line with `secs` says what the time just before it went to, as far as no line
before has claimed it; of two things that went on at once, the compile and the restore,
the one that ended first has its time, the other what it took on top. Times are whole
milliseconds, so the parts sum to the wall time exactly, whatever the lines say.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, TypeGuard

PARTS = {
    "productive": "steps that count",
    "initialisation": "start of the process, imports, data, mesh, state",
    "compile": "the train step",
    "restore": "a checkpoint read",
    "data_wait": "devices idle until a batch came",
    "checkpoint": "saves that held up the loop",
    "evaluation": "held-out loss, with the compile of its step",
    "verification": "steps computed again to compare",
    "lost": "steps done again or rolled back, and what a crash cut short",
    "down": "from an attempt's last line to the next process",
    "idle": "after the run was done, until it was made longer",
    "other": "the rest: writing metrics, above all",
}
# What a line with `secs` tells of. The others happen beside the loop.
_PART_OF_EVENT = {
    "compile": "compile",
    "restore": "restore",
    "checkpoint": "checkpoint",
    "eval": "evaluation",
    "steps": "productive",
    "verify": "verification",
}


@dataclasses.dataclass
class Attempt:
    """One process that trained, and the time since the one before."""

    began: float  # wall clock, seconds since the epoch
    millis: dict[str, int]  # by part
    resumed_at: int | None = None  # steps done before; None: it never came to say
    last_step: int | None = None
    end: str = ""  # in words; nothing: killed, or still running


@dataclasses.dataclass
class Account:
    """A whole run."""

    attempts: list[Attempt]
    num_clock_jumps: int  # starts that seem to lie before the end of the attempt before

    @property
    def millis(self) -> dict[str, int]:
        """By part, of all attempts."""
        return {part: sum(a.millis[part] for a in self.attempts) for part in PARTS}

    @property
    def goodput(self) -> float:
        """Productive time over wall time, 0 to 1."""
        wall = sum(self.millis.values())
        return self.millis["productive"] / wall if wall else 0.0


@dataclasses.dataclass
class _Done:
    """Steps that count until they are lost."""

    attempt: Attempt
    first: int
    last: int
    millis: int


def account(events: Iterable[dict[str, Any]]) -> Account:
    """Of the lines of a ledger in order; those of other processes than the first, and
    those without times, say nothing here."""
    out = Account([], 0)
    reader: _Reader | None = None
    done: list[_Done] = []
    for event in events:
        if event.get("process") or not _is_timed(event):
            continue
        if reader is None or reader.attempt.began != event["began"]:
            if reader is not None:
                reader.close(is_last=False)
            reader = _Reader(out, event, reader, done)
        reader.take(event)
    if reader is not None:
        reader.close(is_last=True)
    return out


class _Reader:
    """Reads the lines of one attempt."""

    def __init__(
        self,
        out: Account,
        first: dict[str, Any],
        before: "_Reader | None",
        done: list[_Done],
    ):
        self.attempt = Attempt(float(first["began"]), dict.fromkeys(PARTS, 0))
        out.attempts.append(self.attempt)
        self._done = done
        self._told = 0  # milliseconds of this attempt that are in a part
        self._alive = 0
        self._has_steps = self._is_over = self._is_done = self._has_failed = False
        self._last_time = 0.0
        if before is not None:
            gap = _millis(first["began"]) - _millis(before._last_time)
            if 0 <= -gap <= _millis(first["up"]):
                # It was loading while the one before left: that time is told already.
                self._told = -gap
            elif gap < 0:
                out.num_clock_jumps += 1
            else:
                part = "idle" if before._is_done else "down"
                self.attempt.millis[part] = gap

    def take(self, event: dict[str, Any]) -> None:
        """A line."""
        self._last_time, now = event["time"], _millis(event["up"])
        self._alive = max(self._alive, now)
        kind = event["event"]
        if kind in ("start", "steps"):  # whatever failed before, it goes on
            self._has_failed = self._is_over = self._is_done = False
            self.attempt.end = ""
        if kind == "start" and _is_count(event.get("step")):
            self.attempt.resumed_at = event["step"]
            self._lose_from(event["step"] + 1)
        elif kind == "rewind" and _is_count(event.get("to")):
            self._lose_from(event["to"] + 1)
            self._tell(now, "lost")  # a step that was under way
        elif kind == "stop":
            self._is_over, self._is_done = True, bool(event.get("done"))
            self.attempt.end = "done" if self._is_done else "stopped, saved"
        elif kind == "fault":
            self._has_failed = True
            what = event.get("what") or event.get("error") or "fault"
            self.attempt.end = " ".join(str(what).split())[:60]
        if kind in _PART_OF_EVENT and _is_number(event.get("secs")):
            self._claim(_PART_OF_EVENT[kind], event, now)

    def _claim(self, part: str, event: dict[str, Any], now: int) -> None:
        self._tell(max(self._told, now - max(0, _millis(event["secs"]))), self._rest())
        secs = max(0, now - self._told)
        if part != "productive":
            self._tell(now, part)
            return
        wait = event.get("wait_secs")
        wait = min(secs, max(0, _millis(wait))) if _is_number(wait) else 0
        self._tell(self._told + wait, "data_wait")
        first, last = event.get("first"), event.get("last")
        if not (_is_count(first) and _is_count(last) and first <= last):
            self._tell(now, "other")
            return
        self._has_steps = True
        self._lose_from(first)
        self._done.append(_Done(self.attempt, first, last, secs - wait))
        self.attempt.last_step = last
        self._tell(now, "productive")

    def _rest(self) -> str:
        return "other" if self._has_steps else "initialisation"

    def _tell(self, until: int, part: str) -> None:
        if until > self._told:
            self.attempt.millis[part] += until - self._told
            self._told = until

    def _lose_from(self, step: int) -> None:
        """The state is again that before a step."""
        while self._done and self._done[-1].last >= step:
            had = self._done[-1]
            num_lost = had.last - max(had.first, step) + 1
            lost = had.millis * num_lost // (had.last - had.first + 1)
            had.attempt.millis["productive"] -= lost
            had.attempt.millis["lost"] += lost
            if num_lost > had.last - had.first:
                self._done.pop()
            else:
                had.last, had.millis = step - 1, had.millis - lost

    def close(self, *, is_last: bool) -> None:
        """No line follows. What was under way when it broke off is lost."""
        is_cut = not self._is_over and (self._has_failed or not is_last)
        is_lost = is_cut and self._has_steps
        self._tell(self._alive, "lost" if is_lost else self._rest())


def _is_timed(event: dict[str, Any]) -> bool:
    has_times = all(_is_number(event.get(name)) for name in ("time", "began", "up"))
    return has_times and isinstance(event.get("event"), str)


def _is_number(value: Any) -> TypeGuard[int | float]:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value) and abs(value) < 1e12


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _millis(secs: int | float) -> int:
    return round(secs * 1000)
