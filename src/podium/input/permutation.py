# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A keyed permutation of 0..n-1 that is computed entry by entry, never stored.

A Feistel network permutes the smallest power of two that holds n; entries that land
outside are sent through again until they come back ("cycle walking", Black & Rogaway
2002, Ciphers with Arbitrary Finite Domains). Entry 10**18 costs what entry 0 costs.
"""

import numpy as np

_ROUNDS = 6  # 4 are known to suffice for wide halves (Luby & Rackoff 1988)
_ROUNDS_NARROW = 32  # halves of a few bits mix slowly; measured on all 5! orders
_NARROW_BITS = 12
_MAX_ROWS = 1 << 62
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, the step of SplitMix64


def permute(index: np.ndarray, n: int, key: np.ndarray) -> np.ndarray:
    """Where each of `index` (ints in [0, n)) goes under the permutation of its key.

    A bijection of [0, n) for every key; n is 1 to 2**62.

    Args:
        index: [M] integers.
        n: size of the domain.
        key: [M] uint64 from `mix`, or [1] if all entries share one.

    Returns:
        [M] int64.
    """
    if not 1 <= n <= _MAX_ROWS:
        raise ValueError(f"permute: n is {n}; expected 1 to 2**62")
    bits = (n - 1).bit_length()
    rounds = _ROUNDS_NARROW if bits < _NARROW_BITS else _ROUNDS
    out = index.astype(np.uint64)
    keys = np.broadcast_to(key, out.shape)
    todo = np.arange(len(out))
    while len(todo):
        moved = _feistel(out[todo], bits, keys[todo], rounds)
        out[todo] = moved
        todo = todo[moved >= np.uint64(n)]
    return out.astype(np.int64)


def mix(*parts: int | np.ndarray) -> np.ndarray:
    """64-bit hashes of tuples of integers >= 0, broadcast together; uint64, [1] or [M]."""
    out = np.full(1, _GOLDEN, np.uint64)
    for part in parts:
        out = _hash((out ^ np.asarray(part).astype(np.uint64)) * np.uint64(_GOLDEN))
    return out


def _feistel(x: np.ndarray, bits: int, key: np.ndarray, rounds: int) -> np.ndarray:
    low_bits = np.uint64((bits + 1) // 2)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << np.uint64(bits // 2)) - np.uint64(1)
    high, low = x >> low_bits, x & low_mask
    for _ in range(0, rounds, 2):
        key = key + np.uint64(_GOLDEN)
        high = high ^ (_hash(low ^ key) & high_mask)
        key = key + np.uint64(_GOLDEN)
        low = low ^ (_hash(high ^ key) & low_mask)
    return (high << low_bits) | low


def _hash(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014); wraps modulo 2**64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
