# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which data set fills slot g of the training sequence, in exact shares, without state.

A binary tree over the data sets. A node whose subtrees have integer weights a and b
sends floor(m * a / (a + b) + 1/2) of its first m slots left and the others right, so
each level is off its share by at most half a sequence at every m, and the place of a
slot within its data set falls out of the same arithmetic.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

_MAX_TOTAL = 1 << 31  # products of a weight and a remainder stay below 2**62


class Mixing:
    """A fixed interleaving of K data sets. `max_error`: how far counts may stray."""

    def __init__(self, weights: Sequence[int | float]):
        self.num_datasets = len(weights)
        depth = (len(weights) - 1).bit_length()
        leaves = 1 << depth
        tree = np.zeros(2 * leaves, np.int64)
        tree[leaves : leaves + len(weights)] = _integers(weights)
        for node in range(leaves - 1, 0, -1):
            tree[node] = tree[2 * node] + tree[2 * node + 1]
        self._tree, self._depth, self._leaves = tree, depth, leaves
        self.max_error = 0.5 * depth

    def locate(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(data set k, j): each slot (int >= 0) holds the j-th sequence of data set k.

        As slots run over 0, 1, 2.. the j of every k run over 0, 1, 2.. too.
        """
        index = np.asarray(slots).astype(np.int64)
        node = np.ones_like(index)
        for _ in range(self._depth):
            total, left = self._tree[node], self._tree[2 * node]
            before = _share(index, left, total)
            is_left = _share(index + 1, left, total) > before
            index = np.where(is_left, before, index - before)
            node = 2 * node + ~is_left
        return node - self._leaves, index


def _share(m: np.ndarray, weight: np.ndarray, total: np.ndarray) -> np.ndarray:
    """floor(m * weight / total + 1/2) in integers, without overflow for any m."""
    quotient, remainder = np.divmod(m, total)
    return quotient * weight + (remainder * weight + total // 2) // total


def _integers(weights: Sequence[int | float]) -> list[int]:
    """Weights as integers whose sum fits; integers that fit are kept as they are."""
    exact = [Fraction(w) for w in weights]
    total = sum(exact)
    if total <= _MAX_TOTAL and all(w.denominator == 1 for w in exact):
        return [int(w) for w in exact]
    return [max(1, int(w * (_MAX_TOTAL - len(exact)) / total)) for w in exact]
