# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The last figures of a run, by which runs are compared: the same from every source."""

import math
import statistics
from pathlib import Path
from typing import Any

from podium.trainer.events import read_events
from podium.trainer.goodput import Account, account
from podium.trainer.metrics import read_metrics

_WINDOW_ROWS = 100  # the last ones, of which rates are the median
RATES = ("tokens_per_sec", "tokens_per_sec_per_device", "mfu", "step_secs")
FINAL = ("loss", "eval_loss", "eval_perplexity")


def summary(workdir: str | Path) -> dict[str, float]:
    """Last losses, median rates, and of the ledger its wall time and goodput: the share
    of the steps that count, as profiling.goodput tells it, by the same function."""
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
    ledger = _account(workdir)
    if wall := sum(ledger.millis.values()):
        found["wall_secs"], found["goodput"] = wall / 1000, ledger.goodput
    return {name: float(value) for name, value in found.items()}


def _account(workdir: str | Path) -> Account:
    try:
        return account(read_events(workdir))
    except FileNotFoundError:
        return account([])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
