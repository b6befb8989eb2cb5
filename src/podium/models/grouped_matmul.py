# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every expert's rows times that expert's matrix, rows sorted by expert.

On TPUs jax's own Megablox kernels (arXiv:2211.15841). `lax.ragged_dot` compiles there to
as good a kernel, but the gradient of its weights becomes a matmul over all experts'
rows for every expert: 8 times the operations for 8 experts. Elsewhere `lax.ragged_dot`.
"""

import functools
import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from podium.sharding.constrain import current_platform

ROW_TILE = 512  # rows that a kernel multiplies at a time
MIN_TILE = 16  # the fewest rows of bfloat16 that fill a register
MAX_TILE = 1024  # with 512 rows: 10 of the 16 MiB that a kernel may take by default


def grouped_matmul(
    x_RD: Array, w: Array, sizes: Array, *, transpose_w: bool = False
) -> Array:
    """[R, D] x [E, D, F] -> [R, F], x's type: the first sizes[0] rows by w[0], and so on.

    With `transpose_w`, w is [E, F, D]. The int32 sizes add up to R. There may be one
    more than there are matrices: of the rows that none multiplies; they come out as
    anything.
    """
    if current_platform() == "tpu":
        return on_tpu(x_RD, w, sizes, transpose_w=transpose_w)
    w_EDF = w.swapaxes(1, 2) if transpose_w else w
    return jax.lax.ragged_dot(x_RD, w_EDF, sizes[: w.shape[0]])


def on_tpu(
    x_RD: Array,
    w: Array,
    sizes: Array,
    *,
    transpose_w: bool = False,
    interpret: bool = False,
) -> Array:
    """The TPU's way; `interpret` runs its kernels on a CPU, slowly."""
    rows, E = x_RD.shape[0], w.shape[0]
    tile = math.gcd(rows, ROW_TILE)
    if tile < MIN_TILE:
        tile, padding = MIN_TILE, -rows % MIN_TILE
        x_RD = jnp.pad(x_RD, ((0, padding), (0, 0)))
        rest = jnp.sum(sizes[E:], dtype=jnp.int32) + padding
        sizes = jnp.append(sizes[:E], rest)
    out: Array = _grouped(tile, transpose_w, interpret, x_RD, w, sizes)
    return out[:rows]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _grouped(
    tile: int, transpose_w: bool, interpret: bool, x: Array, w: Array, sizes: Array
) -> Array:
    into, out = w.shape[:0:-1] if transpose_w else w.shape[1:]
    return _kernels().gmm(
        x,
        w,
        sizes,
        x.dtype,
        (tile, side_tile(into), side_tile(out)),
        transpose_rhs=transpose_w,
        interpret=interpret,
    )


def _forward(
    tile: int, transpose_w: bool, interpret: bool, x: Array, w: Array, sizes: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _grouped(tile, transpose_w, interpret, x, w, sizes), (x, w, sizes)


def _backward(
    tile: int,
    transpose_w: bool,
    interpret: bool,
    saved: tuple[Array, Array, Array],
    g: Array,
) -> tuple[Array, Array, None]:
    x, w, sizes = saved
    dx: Array = _grouped(tile, not transpose_w, interpret, g, w, sizes)
    left, right = (g, x) if transpose_w else (x, g)
    dw = _kernels().tgmm(
        left.swapaxes(0, 1),
        right,
        sizes,
        w.dtype,
        (tile, side_tile(w.shape[1]), side_tile(w.shape[2])),
        num_actual_groups=w.shape[0],
        interpret=interpret,
    )
    return dx, dw, None


_grouped.defvjp(_forward, _backward)


def side_tile(size: int) -> int:
    """Columns at a time, a multiple of 128: large, with little of the last one empty."""
    if size <= 128:
        return size
    tiles = range(128, MAX_TILE + 1, 128)
    # A tile also costs the traffic of its edges: that of 128 columns, about.
    return min(tiles, key=lambda tile: -(-size // tile) * (tile + 128))


def _kernels() -> Any:
    # On first use: Pallas takes over a second. By name: the package has a function, too.
    return importlib.import_module("jax.experimental.pallas.ops.tpu.megablox.gmm")
