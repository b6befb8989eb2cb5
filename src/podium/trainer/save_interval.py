# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""When to save next: every so many steps, or as often as pays.

A save costs the loop C seconds; a run that is interrupted every M seconds on average
does half an interval of steps again each time. The sum of both is least at

    tau = sqrt(2 C M) (1 + sqrt(C / 2M) / 3 + C / 18 M) - C      for C < 2M, else M

Daly 2006, A higher order estimate of the optimum checkpoint interval for restart
dumps, eq. 37; its first term is Young's of 1974.
"""

import math
from typing import Any

_DAY_SECS = 86_400.0
# Until a save was measured.
_FIRST_SAVE_SECS = 60.0


def optimum_secs(save_secs: float, secs_between_failures: float) -> float:
    """Seconds of work between two saves."""
    C, M = save_secs, secs_between_failures
    if C >= 2 * M:
        return M
    ratio = C / (2 * M)
    return math.sqrt(2 * C * M) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - C


def secs_between_failures(events: list[dict[str, Any]], now: float) -> float:
    """Mean time between interruptions of a run, by its ledger.

    As if one day without an interruption had gone before, so that a young run has a
    rate too. A start is an interruption's end unless the run had come to its end.
    """
    starts = [e["time"] for e in events if e["event"] == "start"]
    ended = sum(e["event"] == "stop" and bool(e.get("done")) for e in events)
    interruptions = max(0, len(starts) - 1 - ended)
    return (_DAY_SECS + (now - starts[0] if starts else 0.0)) / (interruptions + 1)


class Interval:
    """Steps from one save to the next."""

    def __init__(self, every_steps: int | None, first_step: int):
        """`every_steps`: None where they are found out, see `steps`."""
        self._every_steps = every_steps
        self._last = first_step
        self.steps: int | None = None  # found out; None: not yet

    @property
    def is_auto(self) -> bool:
        """Whether they are found out."""
        return self._every_steps is None

    def is_due(self, step: int) -> bool:
        """Whether the state after this step is to be saved."""
        if self._every_steps is not None:
            return step % self._every_steps == 0
        return self.steps is not None and step - self._last >= self.steps

    def begin(self, step: int) -> None:
        """A save begins after this step."""
        self._last = step


def steps_until_save(
    *,
    save_secs: float | None,
    write_secs: float,
    step_secs: float,
    failure_secs: float,
) -> int:
    """The interval in steps.

    Args:
        save_secs: by which a save holds up the loop; None: not known yet.
        write_secs: from the start of a save to its end: saves do not overlap.
        step_secs: of a step.
        failure_secs: mean time between interruptions.
    """
    secs = _FIRST_SAVE_SECS
    if save_secs is not None:
        secs = max(optimum_secs(save_secs, failure_secs), 2 * write_secs)
    return max(1, round(secs / max(step_secs, 1e-6)))
