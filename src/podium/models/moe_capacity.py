# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts with a capacity: of each row's tokens an expert takes a fixed number.

GShard, arXiv:2006.16668, with the tokens that score an expert highest going first
(arXiv:2106.05974, section 4.1). What an expert takes is a matter of the row alone, so
it depends neither on the mesh nor on the other rows. A token turned away keeps its
residual stream.

Every device lays its rows out by expert and slot. Where the mesh splits the experts, the
devices of an "expert" group send each other the slots of theirs, each runs its own
experts, and the results go back. Left to the TPU compiler the slots of all rows lie on
every device: 565 GiB for four layers of DeepSeek-V3 on v5p-2048, here 10.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from podium.models.moe_kernel import ExpertKernel
from podium.models.moe_slots import Share, into_slots, out_of_slots, table
from podium.sharding.constrain import current_rules
from podium.sharding.rules import ShardingRules


def experts(
    x_BTD: Array,
    experts_BTk: Array,
    weights_BTk: Array,
    gate: ExpertKernel,
    up: ExpertKernel,
    down: ExpertKernel,
    *,
    act: Callable[[Array], Array],
    factor: float,
) -> Array:
    """Sum over each token's experts that took it; x's type. C slots an expert and row."""
    T, k, E = x_BTD.shape[1], experts_BTk.shape[-1], gate.w.shape[0]
    C = min(T, math.ceil(factor * k * T / E))
    rules = current_rules()
    axes = _Axes() if rules is None else _axes(rules)  # empty on one device
    run = functools.partial(_on_device, act=act, num_experts=E, capacity=C, axes=axes)
    if rules is not None and rules.mesh.size > 1:
        tokens = P(axes.batch or None, axes.length or None, None)
        of_E = (*axes.sliced, *axes.exchanged)
        into, out = (of_E, axes.embed, axes.mlp), (of_E, axes.mlp, axes.embed)
        run = jax.shard_map(
            run,
            mesh=rules.mesh,
            in_specs=(
                tokens,
                tokens,
                tokens,
                gate.layout(*into),
                up.layout(*into),
                down.layout(*out),
            ),
            out_specs=P(
                axes.batch or None, (*axes.length, *axes.scatter) or None, None
            ),
            check_vma=False,
        )
    return run(x_BTD, experts_BTk, weights_BTk, gate, up, down)


class _Axes(NamedTuple):
    """The mesh axes that split something here; on one device there are none."""

    batch: tuple[str, ...] = ()
    length: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()  # width of the experts' weights
    mlp: tuple[str, ...] = ()
    scatter: tuple[str, ...] = ()  # those of "mlp" that split the result's positions
    exchanged: tuple[str, ...] = ()  # of the experts, and of the batch too
    sliced: tuple[str, ...] = ()  # of the experts alone: rows are the same along them


def _axes(rules: ShardingRules) -> _Axes:
    of_experts, batch = rules.mesh_axes("experts"), rules.mesh_axes("batch")
    length, mlp = rules.mesh_axes("length"), rules.mesh_axes("mlp")
    return _Axes(
        batch=batch,
        length=length,
        embed=rules.mesh_axes("expert_embed"),
        mlp=mlp,
        scatter=mlp if rules.mesh_axes("act_length") == (*length, *mlp) else (),
        exchanged=tuple(a for a in of_experts if a in batch),
        sliced=tuple(a for a in of_experts if a not in batch),
    )


def _on_device(
    x_BTD: Array,
    experts_BTk: Array,
    weights_BTk: Array,
    gate: ExpertKernel,
    up: ExpertKernel,
    down: ExpertKernel,
    *,
    act: Callable[[Array], Array],
    num_experts: int,
    capacity: int,
    axes: _Axes,
) -> Array:
    def whole(t: Array, over: tuple[str, ...]) -> Array:
        return jax.lax.all_gather(t, over, axis=1, tiled=True) if over else t

    def exchanged(by_expert: Array) -> Array:
        """Experts of one device -> devices that sent to its own; its own inverse."""
        if not axes.exchanged:
            return by_expert
        return jax.lax.all_to_all(by_expert, axes.exchanged, 0, 0, tiled=True)

    x_BTD, experts_BTk, weights_BTk = (
        whole(t, axes.length) for t in (x_BTD, experts_BTk, weights_BTk)
    )
    gate, up = gate.whole_inputs(axes.embed), up.whole_inputs(axes.embed)
    # Gathered along its last dim it would have to be turned round whole.
    down = down.turned().whole_outputs(axes.embed)
    (B, T, D), k = x_BTD.shape, experts_BTk.shape[-1]
    mine = _share(num_experts, axes.sliced)
    # Devices that hold parts of the same rows fill a share of the slots each.
    places = _share(capacity, tuple(a for a in axes.length if a not in axes.sliced))
    where = table(
        *(experts_BTk, weights_BTk, num_experts, capacity), experts=mine, places=places
    )

    x_SD: Array = into_slots(x_BTD.reshape(B * T, D), where, k)
    # Of P devices, S slots of each of E experts.
    x_PESD = exchanged(x_SD).reshape(-1, gate.w.shape[0], B * places.size, D)
    x_PESD = checkpoint_name(x_PESD, "expert_input")
    # Weighted before the last matmul, not after: no gradient needs its result then.
    weights_S: Array = exchanged(into_slots(weights_BTk.reshape(-1), where, 1))
    weights_PES1 = weights_S.reshape(*x_PESD.shape[:3], 1).astype(x_PESD.dtype)
    gate_PESF = gate.times(x_PESD, _product)
    gate_PESF = checkpoint_name(gate_PESF, "expert_gate")
    up_PESF = up.times(x_PESD, _product)
    up_PESF = checkpoint_name(up_PESF, "expert_up")
    h_PESF = act(gate_PESF) * up_PESF * weights_PES1
    y_PESD = down.times(h_PESF, _product)
    y_nD: Array = out_of_slots(exchanged(y_PESD.reshape(x_SD.shape)), where, k)
    y_BTD = y_nD.reshape(B, T, D)

    # What is left are parts of a sum: of other experts, of other slots, of F.
    scattered = (*axes.length, *axes.scatter)
    summed = tuple(a for a in (*axes.sliced, *axes.mlp) if a not in scattered)
    if scattered:
        y_BTD = jax.lax.psum_scatter(y_BTD, scattered, scatter_dimension=1, tiled=True)
    return jax.lax.psum(y_BTD, summed) if summed else y_BTD


def _product(x: Array, w: Array, is_turned: bool) -> Array:
    return jnp.einsum("PESI,EOI->PESO" if is_turned else "PESI,EIO->PESO", x, w)


def _share(total: int, axes: tuple[str, ...]) -> Share:
    """This device's part of `total` along mesh axes; the last one may go past it."""
    if not axes:
        return Share(0, total)
    size = -(-total // jax.lax.axis_size(axes))
    return Share(jax.lax.axis_index(axes) * size, size)
