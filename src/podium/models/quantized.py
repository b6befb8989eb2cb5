# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Dots of eight-bit numbers, by qwix.

An operand is divided by a scale for each index that is not contracted, which is the
largest absolute value along the contraction over the largest eight-bit number, so a
token's scale depends on that token alone. Under a mesh that splits the contraction the
partitioner makes that maximum one over devices: the scales are those of one device.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from podium.config_quantization import Quantization
from podium.sharding.constrain import shard

# By default qwix brings the largest value to 127.5, the border between two numbers:
# where it is negative, the last bit of a division would say whether it is -127 or -128.
_LARGEST_IS_127 = f"absmax,{127.5 / 127}"


class Types(NamedTuple):
    """In which two types a dot multiplies."""

    lhs: str
    rhs: str


class Dots(NamedTuple):
    """The types of the three dots of a `linear`; None: those of the operands."""

    forward: Types | None = None  # x, w
    inputs: Types | None = None  # g, w
    weights: Types | None = None  # x, g


def dots(quantization: Quantization | None, part: str) -> Dots:
    """What `model.quantization` says of the projections of a part of a block."""
    q = quantization
    if q is None or part not in q.parts:
        return Dots()
    value, gradient = q.value_type, q.gradient_type
    return Dots(
        Types(value, value),
        None if q.backward == "none" else Types(gradient, value),
        Types(value, gradient) if q.backward == "all" else None,
    )


def quantized_dot(
    a: Array,
    b: Array,
    a_axes: range,
    b_axes: range,
    types: Types,
    b_layout: tuple[str | None, ...] | None = None,
) -> Array:
    """`dot` of eight-bit numbers, summed in int32 or float32; the result has a's type.

    `b_layout` are the logical axes that b's numbers are brought to: weights are gathered
    as eight bits, before the dot. Left to itself the partitioner of TPUs cuts the dot
    into as many as there are devices and adds their int32 results one by one.
    """
    import qwix

    lhs, rhs = quantize(a, a_axes, types.lhs), quantize(b, b_axes, types.rhs)
    if b_layout is not None:
        # The barrier keeps XLA:TPU from gathering float32 and rounding everywhere.
        here = jax.lax.optimization_barrier(rhs.qvalue)
        rhs = dataclasses.replace(rhs, qvalue=shard(here, *b_layout))
    dims = ((tuple(a_axes), tuple(b_axes)), ((), ()))
    return qwix.dot_general(lhs, rhs, dims).astype(a.dtype)


def quantize(x: Array, contracted: range, type_name: str) -> Any:
    """A qwix.QArray with float32 scales, of size 1 along the contracted axes.

    In float32: a bfloat16 quotient would be rounded before it is rounded to eight bits.
    """
    import qwix  # on first use: without quantisation nothing else needs it

    others = [axis for axis in range(x.ndim) if axis not in contracted]
    return qwix.quantize(
        x.astype(jnp.float32),
        jnp.dtype(type_name),
        channelwise_axes=others,
        calibration_method=_LARGEST_IS_127 if type_name == "int8" else "absmax",
    )


def dequantized(weight: Any, dtype: jnp.dtype) -> Array:
    """The numbers that a qwix.QArray stands for, rounded to `dtype` once."""
    return (weight.qvalue.astype(jnp.float32) * weight.scale).astype(dtype)


def scaled(product: Array, lhs: Any, rhs: Any, num_rows: int) -> Array:
    """The product over the first `num_rows` dims of two quantised arrays' numbers, times
    their scales, in float32."""
    outer = [s.scale.reshape(s.scale.shape[num_rows:]) for s in (lhs, rhs)]
    trailing = tuple(range(outer[0].ndim, product.ndim))
    by = jnp.expand_dims(outer[0], trailing) * jax.lax.expand_dims(
        outer[1], tuple(range(product.ndim - outer[1].ndim))
    )
    return product.astype(jnp.float32) * by
