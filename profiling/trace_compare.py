# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Two traces beside each other: parts of the step, and the scopes that differ most.

Instructions have other names in another program, so operations are held against each
other by named scope, phase and kind.
"""

import dataclasses
from typing import Any

from profiling.trace_times import PARTS, Times


@dataclasses.dataclass(frozen=True)
class Row:
    """Seconds of a step before and after."""

    name: str
    before: float
    after: float

    @property
    def change(self) -> float:
        """Seconds; negative: faster."""
        return self.after - self.before


def parts(before: Times, after: Times) -> list[Row]:
    """The parts of the step, then the step."""
    rows = [Row(part, before.parts[part], after.parts[part]) for part in PARTS]
    return [*rows, Row("step", before.step_secs, after.step_secs)]


def scopes(before: Times, after: Times) -> list[Row]:
    """Scopes by phase and kind, the largest change first."""
    old, new = (t.by("scope", "phase", "kind") for t in (before, after))
    rows = [
        Row(" ".join(word or "-" for word in key), old.get(key, 0.0), new.get(key, 0.0))
        for key in {**old, **new}
    ]
    return sorted(rows, key=lambda row: (-abs(row.change), row.name))


def verdict(before: Times, after: Times) -> str:
    """One sentence."""
    ratio = after.step_secs / before.step_secs
    rows = parts(before, after)[:-1]
    most = max(rows, key=lambda row: abs(row.change))
    faster = "faster" if ratio < 1 else "slower"
    times = 1 / ratio if ratio < 1 else ratio
    return (
        f"A step takes {1000 * after.step_secs:.4g} ms, was "
        f"{1000 * before.step_secs:.4g} ms: {times:.2f} times {faster}. Most of the "
        f"change is {most.name.replace('_', ' ')} ({1000 * most.change:+.4g} ms)."
    )


def as_json(before: Times, after: Times) -> dict[str, Any]:
    """Plain data; seconds a step."""
    return {
        "verdict": verdict(before, after),
        "parts": [dataclasses.asdict(row) for row in parts(before, after)],
        "scopes": [dataclasses.asdict(row) for row in scopes(before, after)],
    }
