# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How much of a checkpoint must be read at once: a chunk is read whole or not at all."""

import math
from typing import Any

import jax


def largest_read_bytes(want: Any, saved: Any) -> int:
    """Bytes of the largest shard of this process, with all of the chunks it touches.

    Args:
        want: tree of jax.ShapeDtypeStruct with shardings, to be read into.
        saved: Orbax's metadata of the same tree or one that holds it.
    """
    chunks = {
        jax.tree_util.keystr(path): leaf.storage.chunk_shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(saved)
        if getattr(leaf, "storage", None) and leaf.storage.chunk_shape
    }
    largest = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(want):
        chunk = chunks.get(jax.tree_util.keystr(path), leaf.shape)
        places = leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
        for place in places:
            lengths = (
                _touched(index, size, step)
                for index, size, step in zip(place, leaf.shape, chunk, strict=True)
            )
            largest = max(largest, math.prod(lengths) * leaf.dtype.itemsize)
    return largest


def _touched(index: slice, size: int, chunk: int) -> int:
    """Length of all chunks that hold a part of `index`; the last one counts as whole."""
    start, stop, _ = index.indices(size)
    return -(-stop // chunk) * chunk - start // chunk * chunk
