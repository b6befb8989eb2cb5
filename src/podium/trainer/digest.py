# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A number for the bits that each device holds of each array.

The digest of the words x_i of a shard, in row-major order, is

    sum over i of x_i (2 i + 1), modulo 2^32

It does not depend on the order of the sum, so it is the same on any hardware that adds
integers; the factors are odd, so any one changed word changes it for certain.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def digest(shard: Array) -> Array:
    """Of one array on one device: [] uint32."""
    index, stride = jnp.zeros(shard.shape, jnp.uint32), 1
    for dim in reversed(range(shard.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, shard.shape, dim)
        index = index + along * jnp.uint32(stride % 2**32)
        stride *= shard.shape[dim]
    factor = index * jnp.uint32(2) + jnp.uint32(1)
    return jnp.sum(_words(shard) * factor, dtype=jnp.uint32)


def _words(x: Array) -> Array:
    """The bits of each element as uint32; elements have 32 bits at most."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32)


def digests_of(mesh: Mesh, specs: list[P]) -> Callable[[list[Any]], Array]:
    """A function of arrays laid out by `specs` -> uint32 [*mesh, arrays].

    Each device looks at what it holds itself, also of what all are said to hold alike.
    """

    def local(*shards: Array) -> Array:
        found = jnp.stack([digest(shard) for shard in shards])
        return found.reshape(*(1,) * len(mesh.axis_names), -1)

    gather = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=tuple(specs),
        out_specs=P(*mesh.axis_names),
        check_vma=False,  # what is not split need not be alike: that is the question
    )
    everywhere = NamedSharding(mesh, P())

    def digests(arrays: list[Any]) -> Array:
        return jax.lax.with_sharding_constraint(gather(*arrays), everywhere)

    return digests
