# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which packed rows a step holds: a pure function of (seed, step).

Training slot g = step * global_batch_seqs + i goes to data set k as its j-th sequence
(`mixing.py`); with n rows in data set k, that is row permutation(seed, k, j // n) of
j % n (`permutation.py`). Nothing else enters: no state, no host, no worker.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from podium.config import DataConfig
from podium.errors import DataError
from podium.input.manifest import check_one_tokenizer
from podium.input.mixing import Mixing
from podium.input.packing import Packing, make_packing
from podium.input.permutation import mix, permute
from podium.input.tfrecord import Documents

NO_ROW = -1  # data set number of a padding row


class Dataset(NamedTuple):
    """One split of one gold folder, packed."""

    documents: Documents
    packing: Packing


def open_datasets(data: DataConfig, split: str) -> list[Dataset]:
    """Opens `data.paths`. Raises DataError if they do not go together."""
    if not data.paths:
        raise DataError(
            "data.paths is empty; name at least one folder made by podium.prepare"
        )
    documents = [Documents(path, split) for path in data.paths]
    check_one_tokenizer(data.paths, [d.manifest for d in documents])
    return [Dataset(d, make_packing(data, d)) for d in documents]


class Order:
    """The order of the rows of one or more data sets."""

    def __init__(self, data: DataConfig, datasets: Sequence[Dataset], seed: int):
        self._rows = [d.packing.num_rows for d in datasets]
        # Rows measure tokens in units of T; as weights they make K data sets end their
        # epochs together.
        self._mixing = Mixing(data.weights or self._rows)
        self._seed, self._shuffle = seed, data.shuffle
        self.num_rows = sum(self._rows)

    def epochs(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(data set, row) of training slots; int64."""
        dataset, j = self._mixing.locate(slots)
        row = np.empty_like(j)
        for k, n in enumerate(self._rows):
            mine = dataset == k
            row[mine] = self._shuffled(k, j[mine], n)
        return dataset, row

    def one_pass(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(data set, row) in file order, data set by data set; NO_ROW past the end."""
        ends = np.cumsum(self._rows)
        dataset = np.searchsorted(ends, slots, side="right")
        is_row = dataset < len(ends)
        begins = np.append(ends - self._rows, 0)
        row = np.where(is_row, slots - begins[dataset], 0)
        return np.where(is_row, dataset, NO_ROW), row

    def _shuffled(self, k: int, j: np.ndarray, n: int) -> np.ndarray:
        epoch, row = np.divmod(j, n)
        return permute(row, n, mix(self._seed, k, epoch)) if self._shuffle else row


def num_eval_batches(data: DataConfig, global_batch_seqs: int) -> int:
    """Batches in one pass over the eval split, the last one padded."""
    rows = sum(d.packing.num_rows for d in open_datasets(data, "eval"))
    return -(-rows // global_batch_seqs)
