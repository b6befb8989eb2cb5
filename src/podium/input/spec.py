# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""StreamSpec: what a trainer asks of its input. Imports nothing heavy."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from podium.config import DataConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """The batches of one split, or a slice of their rows, from `first_step` on."""

    data: DataConfig
    split: Literal["train", "eval"]
    seed: int = 0
    global_batch_seqs: int
    rows: Sequence[int]  # of the global batch, ascending: those this process feeds
    first_step: int = 0
    num_steps: int | None = None  # at most; None: to the end, or without end
    # One pass in file order, its last batch filled up with padding rows; else epoch
    # after epoch, shuffled. None: one pass for eval.
    is_one_pass: bool | None = None

    def __post_init__(self):
        if self.is_one_pass is None:
            object.__setattr__(self, "is_one_pass", self.split == "eval")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """What a stream found out when it opened."""

    num_rows: int  # packed rows in an epoch of all data sets together
    num_tokens: int  # in those rows, padding not counted
    padding_share: float  # of the positions in those rows
    first_step: int
    stop_step: int | None  # None: endless
