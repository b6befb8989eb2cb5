# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Batch: the contract between input and trainer."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Rows of T tokens. NumPy int32 on the host, global jax.Arrays on the devices.

    A NamedTuple is a pytree without importing jax.
    """

    tokens: Any  # [B, T] inputs
    targets: Any  # [B, T] next token of the same document; -1 where nothing is scored
    segment_ids: Any  # [B, T] 1.. per document within the row; 0 is padding
    positions: Any  # [B, T] 0.. within the segment


PADDING = Batch(tokens=0, targets=-1, segment_ids=0, positions=0)  # of a position
