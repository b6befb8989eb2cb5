# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Batches that a rewind left out: which batch a step sees. No jax.

Without rewinds step N sees batch N - 1 of the order. After one that went back from step
N to checkpoint S, step S + 1 sees what step N + 1 would have seen. The list lies in
each checkpoint and, for who asks later, in D/skipped_batches.json.
"""

import json
from collections.abc import Sequence
from pathlib import Path

Skips = Sequence[tuple[int, int]]  # (after which step, how many batches)

_FILE = "skipped_batches.json"


def num_skipped(skips: Skips, step: int) -> int:
    """How many batches were left out before the one that `step` (from 1) sees."""
    return sum(num for after, num in skips if after < step)


def batch_of(skips: Skips, step: int) -> int:
    """Which batch of the data order `step` (from 1) sees, from 0."""
    return step - 1 + num_skipped(skips, step)


def is_same_run(some: Skips, others: Skips, step: int) -> bool:
    """Whether two lists agree on every batch up to a step's."""
    return [s for s in some if s[0] < step] == [s for s in others if s[0] < step]


def load(workdir: str | Path) -> Skips:
    """Those of a run so far."""
    try:
        tree = json.loads((Path(workdir) / _FILE).read_text())
    except FileNotFoundError:
        return []
    return as_skips(tree)


def as_skips(tree: list[list[int]]) -> list[tuple[int, int]]:
    """From JSON."""
    return [(int(after), int(num)) for after, num in tree]


def write(workdir: str | Path, skips: Skips) -> None:
    """Notes them in the run folder; without any there is no file."""
    path = Path(workdir) / _FILE
    if not skips:
        path.unlink(missing_ok=True)
        return
    part = path.with_suffix(".part")
    part.write_text(json.dumps(list(skips)) + "\n")
    part.replace(path)
