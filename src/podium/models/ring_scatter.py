# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A weight's gradient, summed over devices while it is computed.

Under FSDP every device has rows of the batch and needs the sum over all rows of its
shard of the gradient. XLA:TPU makes of that a matmul and then a full all-reduce that
nothing overlaps. Here the gradient is made in chunks that travel a ring: each device
adds its rows' part of a chunk, in the matmul itself, and passes the sum on; while it is
on its way the chunk's other half, which travels the other way round, computes.
Wang et al. 2023, "Overlap communication with dependent computation via decomposition".

The ring follows the longest dim of the torus. What is left to sum, over the devices
across it, is smaller by the ring's length, and is an ordinary reduce-scatter.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec as P

from podium.sharding.rules import ShardingRules

MIN_WIDTH = 512  # narrower chunks leave the matrix units waiting


def ring_size(rules: ShardingRules, embed_dim: int) -> int | None:
    """How many devices the ring has; None where a plain sum is the better way.

    The axis that splits the width must be the one that splits the rows, and the mesh's
    only one: FSDP on one slice. Beside a tensor axis each of its devices would gather
    the others' columns and make the whole gradient: four times the step's operations on
    a 16 x 8 mesh. The axis' outermost part lies along a torus dim, see `make_mesh`.

    On v4 alone: v5e's all-reduces ride in matmuls, later chips have SparseCores to
    scatter beside the core, and chunks cost the matmuls 2 to 3% there.
    """
    if rules.mesh.devices.flat[0].device_kind != "TPU v4":
        return None
    axes = rules.mesh_axes("embed")
    if len(axes) != 1 or rules.mesh_axes("batch") != axes:
        return None
    if rules.mesh.shape[axes[0]] != rules.mesh.size:
        return None
    ring = outermost_torus_dim(rules)
    if ring < 4 or embed_dim // ring < MIN_WIDTH or embed_dim % (2 * ring):
        return None
    return ring


def outermost_torus_dim(rules: ShardingRules) -> int:
    """Length of the torus dim that varies slowest along the mesh's only axis."""
    devices = list(rules.mesh.devices.flat)
    if devices[0].platform != "tpu" or rules.mesh.size == 1:
        return 1
    first, last = devices[0].coords, devices[-1].coords
    spans = {dim: b - a + 1 for dim, (a, b) in enumerate(zip(first, last, strict=True))}
    moved = [
        next(d for d in spans if devices[i].coords[d] != first[d])
        for i in range(1, len(devices))
        if sum(devices[i].coords[d] != first[d] for d in spans) == 1
    ]
    return spans[moved[-1]]


def scattered_gradient(
    wide: Array,
    other: Array,
    num_rows: int,
    rules: ShardingRules,
    ring: int,
    dtype: jnp.dtype,
) -> Array:
    """Sum over rows of wide[.., D] x other[.., F..] -> [D, F..], split along D.

    The first `num_rows` dims of both are rows, split over the mesh axis that splits D.
    Partial sums travel in `dtype`, the result's: the operands', unless they are quantised.
    """
    (axis,) = rules.mesh_axes("embed")
    size = rules.mesh.shape[axis]
    across = size // ring
    onward = [(i, (i + across) % size) for i in range(size)]
    crossing = [[r * across + i for i in range(across)] for r in range(ring)]
    rows = tuple(range(num_rows))

    def local(wide: Array, other: Array) -> Array:
        place = jax.lax.axis_index(axis) // across
        half = wide.shape[-1] // ring // 2

        def part(number: int, sign: int) -> Array:
            """The columns whose sum this device adds to in a step of a direction."""
            chunk = (place - sign * (number + 1)) % ring
            first = 2 * half * chunk + (half if sign < 0 else 0)
            return jax.lax.dynamic_slice_in_dim(wide, first, half, axis=num_rows)

        def dot(part: Array, dtype: jnp.dtype) -> Array:
            dims = ((rows, rows), ((), ()))
            # Of int8, int32 whatever is asked for: a float sum would leave the units.
            sums = jnp.int32 if part.dtype == jnp.int8 else dtype
            return jax.lax.dot_general(
                part, other, dims, preferred_element_type=sums
            ).astype(dtype)

        def step(total: Array, number: int, sign: int) -> Array:
            pairs = onward if sign > 0 else [(b, a) for a, b in onward]
            # The barrier makes the matmul wait for the sum, so that adding it is part
            # of the matmul: as an operation of its own it took a fifth of its time.
            total, mine = jax.lax.optimization_barrier(
                (jax.lax.ppermute(total, axis, pairs), part(number, sign))
            )
            sums = total.astype(jnp.float32) + dot(mine, jnp.dtype(jnp.float32))
            return sums.astype(dtype)

        up, down = (dot(part(0, sign), dtype) for sign in (1, -1))
        for number in range(1, ring):
            up, down = step(up, number, 1), step(down, number, -1)
        return jax.lax.psum_scatter(
            jnp.concatenate([up, down]),
            axis,
            scatter_dimension=0,
            axis_index_groups=crossing,
            tiled=True,
        )

    return jax.shard_map(
        local, mesh=rules.mesh, in_specs=P(axis), out_specs=P(axis), check_vma=False
    )(wide, other)
