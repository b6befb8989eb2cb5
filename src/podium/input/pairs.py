# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Records that are pairs: the two sequences of one become two segments of its row.

A pair lies in one row, whatever the packing, the order and the mesh: rows never meet,
so the two are compared where they are. The n-th pair of a row, from 0, has segments
2 n + 1 (chosen) and 2 n + 2 (rejected), also where another pair of it was damaged.
"""

import numpy as np

from podium.input.records import BEGINS_SECOND


def split_pairs(out: np.ndarray, masks: np.ndarray) -> None:
    """Renumbers segments and positions in the fields of a `Batch`, int32 [4, rows, T].

    Args:
        out: a segment is a record.
        masks: [rows, T] uint8, loss masks of the records; padding is not BEGINS_SECOND.
    """
    _, _, segment_ids, positions = out
    column = np.arange(out.shape[2])
    begins = masks == BEGINS_SECOND
    count = np.cumsum(begins, axis=1)
    before = np.take_along_axis(count, column - positions, axis=1)
    is_second = (count > before) & (segment_ids > 0)
    border = np.maximum.accumulate(np.where(begins, column, 0), axis=1)
    np.copyto(positions, column - border, where=is_second)
    np.copyto(segment_ids, 2 * segment_ids - 1 + is_second, where=segment_ids > 0)
