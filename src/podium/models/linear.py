# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Activation times weight, with the backward pass written out.

Left to automatic differentiation, the weight's gradient comes out as the transpose of a
dot, and XLA:CPU fuses whatever produced the activation into that transposing copy: it
took a third of a training step. Written as below it is a plain dot in the weight's own
order. The result is the same on every platform.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from podium.models.adapted import Adapted
from podium.models.quantized import (
    Dots,
    Types,
    dequantized,
    quantize,
    quantized_dot,
    scaled,
)
from podium.models.ring_scatter import ring_size, scattered_gradient
from podium.sharding.constrain import current_platform, current_rules

NOT_QUANTIZED = Dots()


def linear(
    x: Array,
    weight: nnx.Param | Array,
    num_contracted: int = 1,
    *,
    dots: Dots = NOT_QUANTIZED,
) -> Array:
    """Contracts the last axes of `x` with the first of `weight`, in x's type or `dots`.

    [B, T, D] x [D, N, H] -> [B, T, N, H]; with num_contracted=2,
    [B, T, N, H] x [N, H, D] -> [B, T, D]. Gradients pass straight through rounding.
    """
    w = value_of(weight)
    base = w.base if isinstance(w, Adapted) else w
    how = _How(num_contracted, _axes(weight, base.ndim), dots)
    out: Array = _linear(how, x, _cast(base, x.dtype))
    if isinstance(w, Adapted):
        out = w.add_change(x, out, _plain)
    return checkpoint_name(out, "linear")  # what remat="dots" saves


def value_of(weight: nnx.Param | Array) -> Any:
    """What a parameter holds: an array, or for adapters to be trained a frozen weight,
    a qwix.QArray maybe, or an `Adapted`."""
    return weight.get_value() if isinstance(weight, nnx.Param) else weight


def _plain(x: Array, w: Array, num_contracted: int) -> Array:
    return _linear(_How(num_contracted, (), NOT_QUANTIZED), x, w.astype(x.dtype))


def _cast(w: Any, dtype: jnp.dtype) -> Array:
    """A weight in the activations' type."""
    if not isinstance(w, Array):
        return dequantized(w, dtype)
    is_rounded = w.dtype == jnp.float32 and dtype != jnp.float32
    if is_rounded and current_platform() == "tpu":
        return _cast_here(w, dtype)
    return w.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _cast_here(w: Array, dtype: jnp.dtype) -> Array:
    """The cast of a float32 weight that XLA:TPU leaves inside a loop over layers.

    It sees that the loop only rounds the stacked weights, rounds all of them before it
    and keeps that copy through the backward pass: two bytes a parameter. It does not
    look through integers; the barrier keeps it from cancelling there and back.
    """
    bits = jax.lax.bitcast_convert_type(w, jnp.uint32)
    bits = jax.lax.optimization_barrier(bits)
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(dtype)


_cast_here.defvjp(
    lambda w, dtype: (_cast_here(w, dtype), None),
    lambda dtype, _, g: (g.astype(jnp.float32),),  # of a cast; integers have none
)


Width = Literal["in", "out"]  # on which side of a weight the model's width lies, alone


class _How(NamedTuple):
    """What the passes of a `linear` know beside its operands."""

    num_contracted: int
    axes: tuple[str | None, ...]  # logical, of the weight; () if it has none
    dots: Dots

    @property
    def width(self) -> Width | None:
        """Where the model's width is."""
        n = self.num_contracted
        if n == 1 and self.axes[:1] == ("embed",):
            return "in"
        return "out" if self.axes[n:] == ("embed",) else None

    @property
    def gathered(self) -> tuple[str | None, ...] | None:
        """The weight's axes without those that only its storage is split along."""
        stored = ("embed", "latent")
        return tuple(None if a in stored else a for a in self.axes) or None


def _axes(weight: nnx.Param | Array, rank: int) -> tuple[str | None, ...]:
    if not isinstance(weight, nnx.Param):
        return ()
    # A stacked layer still carries "layers" in front.
    return weight.get_metadata().get("axes", ())[-rank:]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear(how: _How, x: Array, w: Array) -> Array:
    n = how.num_contracted
    axes = range(x.ndim - n, x.ndim)
    return _times_weight(x, w, axes, range(n), how.dots.forward, how)


def _times_weight(
    a: Array, w: Array, a_axes: range, w_axes: range, types: Types | None, how: _How
) -> Array:
    if types is None:
        return dot(a, w, a_axes, w_axes)
    return quantized_dot(a, w, a_axes, w_axes, types, how.gathered)


def _forward(how: _How, x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _linear(how, x, w), (x, w)


def _backward(how: _How, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    (x, w), n, dots = saved, how.num_contracted, how.dots
    rows = range(x.ndim - n)
    g_axes, w_axes = range(len(rows), g.ndim), range(n, w.ndim)
    dx = _times_weight(g, w, g_axes, w_axes, dots.inputs, how)
    if current_platform() != "cpu" or x.size <= g.size or dots.weights:
        return dx, _weight_gradient(x, g, len(rows), how.width, dots.weights)
    # XLA:CPU transposes the left operand of this dot, and computes again whatever
    # made it while it does: so let that be the smaller one, and turn the result round.
    dw = jax.lax.optimization_barrier(dot(g, x, rows, rows))
    outs = w.ndim - n
    return dx, jnp.moveaxis(dw, range(outs), range(-outs, 0))


def _weight_gradient(
    x: Array, g: Array, num_rows: int, width: Width | None, types: Types | None = None
) -> Array:
    rules, rows, ring = current_rules(), range(num_rows), None
    if rules is not None and width is not None and current_platform() == "tpu":
        ring = ring_size(rules, x.shape[-1] if width == "in" else g.shape[-1])
    if ring is None or width is None:
        if types is None:
            return dot(x, g, rows, rows)
        return quantized_dot(x, g, rows, rows, types)
    if types is None:
        return _on_ring(x, g, num_rows, width, ring, x.dtype)
    lhs, rhs = quantize(x, rows, types.lhs), quantize(g, rows, types.rhs)
    sums = _on_ring(lhs.qvalue, rhs.qvalue, num_rows, width, ring, x.dtype)
    return scaled(sums, lhs, rhs, num_rows).astype(x.dtype)


def _on_ring(
    x: Array, g: Array, num_rows: int, width: Width, ring: int, dtype: jnp.dtype
) -> Array:
    wide, other = (x, g) if width == "in" else (g, x)
    rules = current_rules()
    assert rules is not None
    dw = scattered_gradient(wide, other, num_rows, rules, ring, dtype)
    return dw if width == "in" else jnp.moveaxis(dw, 0, -1)


_linear.defvjp(_forward, _backward)


def linear_to_float32(x: Array, weight: nnx.Param | Array, axis: int) -> Array:
    """[..., D] x a matrix whose `axis` is D -> float32 [..., V], not rounded to x's type.

    The gradient that comes back is rounded to x's type before its two products: in
    float32 they would leave the fast matrix units.
    """
    w = value_of(weight)
    if not isinstance(w, Adapted):
        return _linear32(axis, x, w.astype(x.dtype))
    out: Array = _linear32(axis, x, w.base.astype(x.dtype))
    return w.add_change(x, out, _plain32)


def _plain32(x: Array, w: Array, num_contracted: int) -> Array:
    assert num_contracted == 1
    return _linear32(0, x, w.astype(x.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear32(axis: int, x: Array, w: Array) -> Array:
    dims = (((x.ndim - 1,), (axis,)), ((), ()))
    return jax.lax.dot_general(x, w, dims, preferred_element_type=jnp.float32)


def _forward32(axis: int, x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _linear32(axis, x, w), (x, w)


def _backward32(axis: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    g = g.astype(x.dtype)
    rows = range(x.ndim - 1)
    dx = dot(g, w, range(len(rows), g.ndim), range(1 - axis, 2 - axis))
    # An output head is [D, V], a tied table [V, D].
    dw = dot(g, x, rows, rows) if axis else _weight_gradient(x, g, len(rows), "in")
    return dx, dw


_linear32.defvjp(_forward32, _backward32)


def dot(a: Array, b: Array, a_axes: range, b_axes: range) -> Array:
    """Contracts `a_axes` of a with `b_axes` of b; the result has a's type."""
    out = jax.lax.dot_general(
        a,
        b,
        ((tuple(a_axes), tuple(b_axes)), ((), ())),
        preferred_element_type=accumulate_in(a.dtype),
    )
    return out.astype(a.dtype)


def accumulate_in(dtype: jnp.dtype) -> jnp.dtype:
    """The type a dot returns before it is rounded to `dtype`.

    float32 on a CPU: XLA has AVX512-BF16 kernels only for that signature, and widens
    the operands of bf16 -> bf16, three times slower. Elsewhere `dtype` itself: the
    units accumulate in float32 anyhow, and partial sums cross the links in bf16.
    """
    return jnp.dtype(jnp.float32) if current_platform() == "cpu" else dtype
