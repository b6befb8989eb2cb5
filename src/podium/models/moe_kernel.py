# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A matmul of all experts, with an adapter or without, as devices split and run it.

`moe_dropless.py` and `moe_capacity.py` bring rows to their experts in different ways;
what an expert's rows are multiplied by is here. Letters: E experts, I inputs, r rank, O
outputs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec as P

from podium.models.adapted import Adapted, as_float

Names = tuple[str, ...]  # of mesh axes; () splits nothing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExpertKernel:
    """Every expert's weight, frozen where there is an adapter, and the adapter."""

    w: Any  # [E, I, O]; [E, O, I] where it is turned
    a: Any = None  # [E, I, r]; None: no adapter
    b: Any = None  # [E, r, O], times alpha / r
    factor: Any = None  # [E, O]: DoRA's trained length over |W + scale A B|; None: LoRA
    is_turned: bool = dataclasses.field(default=False, metadata={"static": True})

    def times(self, x: Array, product: Callable[[Array, Array, bool], Array]) -> Array:
        """What the experts make of their rows.

        `product(x, w, is_turned)` multiplies every row by the matrix of its expert. No
        gradient of w's size is made: those of a and b go through the rank.
        """
        y = product(x, self.w, self.is_turned)
        if self.a is not None:
            y = y + product(product(x, self.a, False), self.b, False)
        if self.factor is None:
            return y
        # To every row its expert's: a product too, of a single input that is 1. It looks
        # at x because lax.ragged_dot is batched, in a pipeline, with all operands or none.
        one = jnp.ones((), x.dtype)
        ones = jnp.where(x[..., :1] == 0, one, one)
        return y * product(ones, self.factor[:, None], False)

    def turned(self) -> "ExpertKernel":
        """With the last two axes of w the other way round."""
        w = self.w.swapaxes(1, 2)
        return dataclasses.replace(self, w=w, is_turned=not self.is_turned)

    def whole_inputs(self, over: Names) -> "ExpertKernel":
        """Of parts of the inputs all, from the devices along mesh axes."""
        w = _gathered(self.w, over, 2 if self.is_turned else 1)
        return dataclasses.replace(self, w=w, a=_gathered(self.a, over, 1))

    def whole_outputs(self, over: Names) -> "ExpertKernel":
        """Of parts of the outputs all, from the devices along mesh axes."""
        return dataclasses.replace(
            self,
            w=_gathered(self.w, over, 1 if self.is_turned else 2),
            b=_gathered(self.b, over, 2),
            factor=_gathered(self.factor, over, 1),
        )

    def layout(self, experts: Names, inputs: Names, outputs: Names) -> "ExpertKernel":
        """PartitionSpecs, by the mesh axes that split each. The rank is not split."""
        e, i, o = experts or None, inputs or None, outputs or None
        return dataclasses.replace(
            self,
            w=P(e, i, o),
            a=None if self.a is None else P(e, i, None),
            b=None if self.b is None else P(e, None, o),
            factor=None if self.factor is None else P(e, o),
        )


def expert_kernel(weight: Any, dtype: jnp.dtype) -> ExpertKernel:
    """A parameter's value, an array, a qwix.QArray or an `Adapted`, in the activations'
    type."""
    if not isinstance(weight, Adapted):
        return ExpertKernel(as_float(weight, dtype))
    factor = None
    if weight.magnitude is not None:
        factor = (weight.magnitude / jax.vmap(Adapted.norm)(weight)).astype(dtype)
    return ExpertKernel(
        as_float(weight.base, dtype),
        weight.a.astype(dtype),
        (weight.scale * weight.b).astype(dtype),
        factor,
    )


def _gathered(t: Any, over: Names, axis: int) -> Any:
    if t is None or not over:
        return t
    return jax.lax.all_gather(t, over, axis=axis, tiled=True)
