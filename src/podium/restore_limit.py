# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A restore that takes little more memory than what it restores.

Orbax reads 96 GB at once and holds what it read beside what it made of it: half as much
again as the state, in what follows a tenth (benchmarks/checkpoint.py).
"""

import gc
import math
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

LEAST_GROUP_BYTES = 1 << 28
_GROUPS = 20  # about as many, of arrays that are not larger than a share


class InTurns(ocp.type_handlers.ArrayHandler):
    """Reads arrays a few at a time, and lets go of what was read after each time."""

    async def deserialize(
        self,
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.type_handlers.RestoreArgs] | None = None,
    ) -> Sequence[jax.Array]:
        """As its base does, each of the groups after the other."""
        assert args is not None
        arrays: list[jax.Array] = []
        for group in groups([_own_bytes(arg) for arg in args]):
            read = await super().deserialize(infos[group], args[group])
            # Only then are the buffers that were read into of no use. They hang in the
            # reference cycles of the coroutines, which Python finds when it likes.
            arrays += jax.block_until_ready(read)
            gc.collect()
        return arrays


def groups(sizes: Sequence[int]) -> list[slice]:
    """Neighbours that together have a share of the bytes, or single larger ones."""
    limit = max(LEAST_GROUP_BYTES, sum(sizes) // _GROUPS)
    found: list[slice] = []
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and total + size > limit:
            found.append(slice(start, i))
            start, total = i, 0
        total += size
    return [*found, slice(start, len(sizes))] if sizes else []


def _own_bytes(arg: Any) -> int:
    """Bytes of an array that this process holds, replicas included."""
    shard = math.prod(arg.sharding.shard_shape(arg.global_shape))
    return shard * arg.dtype.itemsize * len(arg.sharding.addressable_devices)


def largest_read_bytes(want: Any, saved: Any) -> int:
    """Bytes of the largest shard of this process, with all of the chunks it touches.

    A chunk is read whole or not at all.

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
