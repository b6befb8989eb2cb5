# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A frozen weight with a trained low-rank change: LoRA and DoRA at one matmul.

An `Adapted` stands where a module's parameter is an array; `linear` and the experts'
matmuls know what to do with it. Letters: I inputs, r rank, O outputs; I and O are each
one axis or two (heads and their channels).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from podium.models.quantized import dequantized


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapted:
    """A frozen weight and its adapter, in the place of a parameter."""

    base: Any  # [.., I, O]: an array, or a qwix.QArray of int8
    a: Any  # [.., I, r] float32
    b: Any  # [.., r, O] float32
    magnitude: Any  # [.., O] float32: DoRA's; None: LoRA
    scale: float = dataclasses.field(metadata={"static": True})  # alpha / r

    def add_change(
        self, x: Array, y: Array, product: Callable[[Array, Array, int], Array]
    ) -> Array:
        """The result from y = x W, for x [.., I] of the weight of one layer.

        `product(x, w, n)` contracts x's last n axes with w's first, in x's type. No
        gradient of W's size is made: those of `a` and `b` go through [.., r].
        """
        num_in = self.a.ndim - 1
        change = product(product(x, self.a, num_in), self.b, 1)
        y = y + jnp.asarray(self.scale, y.dtype) * change
        if self.magnitude is None:
            return y
        factor = self.magnitude / self.norm()
        return y * jnp.expand_dims(factor, range(y.ndim - factor.ndim)).astype(y.dtype)

    def norm(self) -> Array:
        """|W + scale A B| of every output, float32 [O]; a constant to the gradient, as in
        arXiv:2402.09353, section 4.3."""
        num_in = self.a.ndim - 1
        changed_IO = jax.lax.stop_gradient(self._changed())
        return column_norm(changed_IO, num_in)

    def merged(self) -> Array:
        """The one weight that does the same, float32 [I, O]."""
        changed_IO = self._changed()
        if self.magnitude is None:
            return changed_IO
        factor_O = self.magnitude / column_norm(changed_IO, self.a.ndim - 1)
        return changed_IO * jnp.expand_dims(factor_O, range(self.a.ndim - 1))

    def _changed(self) -> Array:
        exact = jax.lax.Precision.HIGHEST
        change_IO = jnp.tensordot(self.a, self.b, 1, precision=exact)
        return as_float(self.base, jnp.dtype(jnp.float32)) + self.scale * change_IO


def as_float(weight: Any, dtype: jnp.dtype) -> Array:
    """A weight in a float type, however it is kept."""
    return (
        weight.astype(dtype)
        if isinstance(weight, Array)
        else dequantized(weight, dtype)
    )


def column_norm(w_IO: Array, num_in: int) -> Array:
    """The Euclidean norm of what every output is made with, [O]; not 0."""
    squares_O = jnp.sum(jnp.square(w_IO), axis=tuple(range(num_in)))
    return jnp.sqrt(jnp.maximum(squares_O, 1e-30))
