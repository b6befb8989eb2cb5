# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Documents -> rows of T tokens. A row is a list of chunks (document, start, length).

`concat` lays all documents end to end in file order and cuts every T tokens; nothing
is stored, a row follows from the running token counts in O(log documents).
`best_fit` keeps a document whole where it fits in a row (`best_fit.py`).

In both, every token stands in exactly one chunk, and a chunk that stops before the end
of its document fills its row to the end.
"""

from typing import NamedTuple, Protocol

import numpy as np

from podium.config import DataConfig
from podium.input.best_fit import load_or_make_plan
from podium.input.tfrecord import Documents


class Chunks(NamedTuple):
    """C chunks in the order of rows and columns; all int64 [C]."""

    row: np.ndarray  # which of the rows asked for, 0..
    column: np.ndarray  # of the chunk's first token
    document: np.ndarray
    start: np.ndarray  # token of the document
    length: np.ndarray  # tokens, >= 1


class Packing(Protocol):
    """Rows 0..num_rows-1 over the documents of one split."""

    num_rows: int

    def chunks(self, rows: np.ndarray) -> Chunks:
        """The chunks of the given rows."""
        ...


class Concat:
    """Row r holds tokens r * T to (r + 1) * T of all documents laid end to end."""

    def __init__(self, first_token: np.ndarray, seq_len: int):
        """first_token: [documents + 1] int64, tokens in all documents before."""
        self._first_token, self._seq_len = first_token, seq_len
        self.num_rows = -(-int(first_token[-1]) // seq_len)

    def chunks(self, rows: np.ndarray) -> Chunks:
        """The chunks of the given rows."""
        first_token = self._first_token
        begin = rows * self._seq_len
        end = np.minimum(begin + self._seq_len, first_token[-1])
        first = np.searchsorted(first_token, begin, side="right") - 1
        last = np.searchsorted(first_token, end - 1, side="right") - 1
        row, document = _spread(first, last - first + 1)
        chunk_begin = np.maximum(first_token[document], begin[row])
        chunk_end = np.minimum(first_token[document + 1], end[row])
        return Chunks(
            row,
            chunk_begin - begin[row],
            document,
            chunk_begin - first_token[document],
            chunk_end - chunk_begin,
        )


class BestFit:
    """Rows of a plan made by `best_fit.py`."""

    def __init__(self, plan, tokens: np.ndarray, seq_len: int):
        self._plan, self._tokens, self._seq_len = plan, tokens, seq_len
        self.num_rows = len(plan.row_begin) - 1

    def chunks(self, rows: np.ndarray) -> Chunks:
        """The chunks of the given rows."""
        plan = self._plan
        begin = plan.row_begin[rows]
        counts = plan.row_begin[rows + 1] - begin
        row, index = _spread(begin, counts)
        document = plan.document[index].astype(np.int64)
        start = plan.start[index].astype(np.int64)
        length = np.minimum(self._tokens[document] - start, self._seq_len)
        before = np.cumsum(length) - length
        first_chunk = np.cumsum(counts) - counts
        return Chunks(row, before - before[first_chunk[row]], document, start, length)


def make_packing(data: DataConfig, documents: Documents) -> Packing:
    """The packing that `data` asks for, over one split."""
    if data.packing == "concat":
        return Concat(documents.first_token, data.seq_len)
    plan = load_or_make_plan(documents, data.seq_len)
    return BestFit(plan, documents.tokens, data.seq_len)


def _spread(first: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(i, first[i] + 0..counts[i]-1) for every i, flat."""
    i = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return i, np.arange(len(i)) - (before - first)[i]
