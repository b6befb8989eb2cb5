# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of weights: SHA-256 over a line an array, with its digest. No jax.

Digests are those of `trainer.digest`, of float32 values in row-major order, here for
arrays on the host, share by share.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np

from podium.config_lora import Lora


def line(path: str, shape: Sequence[int], number: int) -> str:
    """What the fingerprint says of one array."""
    return f"{path} {list(shape)} {number % 2**32:08x}"


def of_weights(lines: list[str]) -> str:
    """Of all arrays, in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def of_adapters(lora: Lora, base: str, lines: list[str]) -> str:
    """Of weights that adapters make of others: `base` is the others' fingerprint."""
    return of_weights([json.dumps(dataclasses.asdict(lora)), base, *lines])


def host_digest(share: np.ndarray, start: int) -> int:
    """The part of an array's digest that a share makes whose first element is number
    `start` of the array; parts add up, modulo 2^32."""
    words = np.ascontiguousarray(share, np.float32).view(np.uint32).ravel()
    factor = (np.arange(words.size, dtype=np.uint64) + start) * 2 + 1
    return int(np.sum(words * factor.astype(np.uint32), dtype=np.uint32))
