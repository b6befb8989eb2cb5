# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The last figures of a run, by which runs are compared: the same from every source."""

import math
import statistics
from pathlib import Path
from typing import Any

from podium.trainer.events import read_events
from podium.trainer.metrics import read_metrics

_WINDOW_ROWS = 100  # the last ones, of which rates are the median
RATES = ("tokens_per_sec", "tokens_per_sec_per_device", "mfu", "step_secs")
FINAL = ("loss", "eval_loss", "eval_perplexity")


def summary(workdir: str | Path) -> dict[str, float]:
    """Last losses, median rates, and the time of the steps that count over wall time.

    `goodput` here is Σ(step_secs - input_wait_secs) of the rows in metrics.jsonl, which
    hold no step twice, over the time from the first start to the ledger's last line:
    what profiling.goodput finds, without its parts.
    """
    try:
        rows = read_metrics(workdir)
    except FileNotFoundError:
        return {}
    found: dict[str, float] = {}
    steps = [row for row in rows if "loss" in row]
    if steps:
        found["step"] = steps[-1]["step"]
        found["tokens"] = sum(row.get("tokens") or 0 for row in steps)
    for name in FINAL:
        if last := [row[name] for row in rows if _is_number(row.get(name))]:
            found[name] = last[-1]
    for name in RATES:
        window = [
            row[name] for row in steps[-_WINDOW_ROWS:] if _is_number(row.get(name))
        ]
        if window:
            found[name] = statistics.median(window)
    wall = _wall_secs(workdir)
    if wall > 0:
        found["wall_secs"] = wall
        worked = sum(
            (row.get("step_secs") or 0.0) - (row.get("input_wait_secs") or 0.0)
            for row in steps
        )
        found["goodput"] = min(1.0, max(0.0, worked / wall))
    return {name: float(value) for name, value in found.items()}


def _wall_secs(workdir: str | Path) -> float:
    try:
        events = read_events(workdir)
    except FileNotFoundError:
        return 0.0
    began = [e["began"] for e in events if _is_number(e.get("began"))]
    times = [e["time"] for e in events if _is_number(e["time"])]
    return max(times) - min(began) if began and times else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
