# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts without a limit: tokens sorted by expert, then one grouped matmul.

arXiv:2211.15841 (MegaBlocks). Where the mesh splits the experts, the devices of an
"expert" group gather each other's tokens, each runs its own experts on those that chose
them, and the results are summed on the way back: exact, whatever the load.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from podium.models.grouped_matmul import grouped_matmul
from podium.models.moe_kernel import ExpertKernel
from podium.sharding.constrain import current_rules


def experts(
    x_BTD: Array,
    experts_BTk: Array,
    weights_BTk: Array,
    gate: ExpertKernel,
    up: ExpertKernel,
    down: ExpertKernel,
    *,
    act: Callable[[Array], Array],
) -> Array:
    """Sum over each token's experts of weight * down(act(gate(x)) * up(x)); x's type."""
    rules = current_rules()
    if rules is None or rules.mesh.size == 1:
        kernels = gate, up, down.turned()
        return _local(x_BTD, experts_BTk, weights_BTk, *kernels, act, None)
    expert_axes, embed_axes = (
        rules.mesh_axes("experts"),
        rules.mesh_axes("expert_embed"),
    )
    mlp_axes, batch_axes = rules.mesh_axes("mlp"), rules.mesh_axes("batch")
    length, split_length = rules.mesh_axes("length"), rules.mesh_axes("act_length")
    # After the last matmul every device of a "mlp" group holds a part of the sum.
    scatter = mlp_axes if split_length == (*length, *mlp_axes) else ()
    shares = [axis for axis in expert_axes if axis in batch_axes]

    def on_device(x, chosen, weights, gate, up, down):
        if shares:
            x, chosen, weights = (
                jax.lax.all_gather(t, tuple(shares), axis=0, tiled=True)
                for t in (x, chosen, weights)
            )
        gate, up = gate.whole_inputs(embed_axes), up.whole_inputs(embed_axes)
        # Gathered along its last dim it would have to be turned round whole.
        down = down.turned().whole_outputs(embed_axes)
        first = None
        if expert_axes:
            first = jax.lax.axis_index(expert_axes) * gate.w.shape[0]
        y = _local(x, chosen, weights, gate, up, down, act, first)
        if shares:
            y = jax.lax.psum_scatter(y, tuple(shares), scatter_dimension=0, tiled=True)
        if scatter:
            return jax.lax.psum_scatter(y, scatter, scatter_dimension=1, tiled=True)
        return jax.lax.psum(y, mlp_axes) if mlp_axes else y

    tokens = P(batch_axes or None, length or None, None)
    into = expert_axes, embed_axes, mlp_axes
    out = expert_axes, mlp_axes, embed_axes
    return jax.shard_map(
        on_device,
        mesh=rules.mesh,
        in_specs=(
            tokens,
            tokens,
            tokens,
            gate.layout(*into),
            up.layout(*into),
            down.layout(*out),
        ),
        out_specs=P(batch_axes or None, (*length, *scatter) or None, None),
        check_vma=False,
    )(x_BTD, experts_BTk, weights_BTk, gate, up, down)


def _local(x_BTD, experts_BTk, weights_BTk, gate, up, down, act, first):
    """The part of the sum that the experts `first` .. first + E - 1 make.

    `first` None: they are all the experts there are.
    """
    B, T, D = x_BTD.shape
    k, E = experts_BTk.shape[-1], gate.w.shape[0]
    expert_R, num_groups = experts_BTk.reshape(-1), E
    if first is not None:
        expert_R, num_groups = expert_R - first, E + 1
        is_here_R = (expert_R >= 0) & (expert_R < E)
        expert_R = jnp.where(is_here_R, expert_R, E)  # the others' go to the end
    order_R = jnp.argsort(expert_R, stable=True)
    sizes = jnp.bincount(expert_R, length=num_groups).astype(jnp.int32)

    def used(a: Array) -> Array:
        """Zeros in the rows past the last group, and in their gradients.

        Those rows belong to other devices' experts, and hold anything.
        """
        if first is None:
            return a
        is_used_R1 = (jnp.arange(B * T * k) < jnp.sum(sizes[:E]))[:, None]
        return jnp.where(is_used_R1, a, 0)

    def product(x: Array, w: Array, is_turned: bool) -> Array:
        return grouped_matmul(x, w, sizes, transpose_w=is_turned)

    x_RD = used(sorted_copies(x_BTD.reshape(B * T, D), order_R, k))
    x_RD = checkpoint_name(x_RD, "expert_input")
    # Weighted before the last matmul, not after: no gradient needs its result then.
    weights_R1 = used(in_order(weights_BTk.reshape(-1, 1), order_R)).astype(x_RD.dtype)
    gate_RF = gate.times(x_RD, product)
    gate_RF = checkpoint_name(gate_RF, "expert_gate")
    up_RF = up.times(x_RD, product)
    up_RF = checkpoint_name(up_RF, "expert_up")
    h_RF = act(gate_RF) * up_RF * weights_R1
    y_RD = used(down.times(h_RF, product))
    y_nD: Array = summed_copies(y_RD, order_R, k)
    return y_nD.reshape(B, T, D)


@jax.custom_vjp
def in_order(y_RD: Array, order_R: Array) -> Array:
    """Row i of the result is row order_R[i] of y. Both ways a gather, never a scatter."""
    return y_RD[order_R]


in_order.defvjp(
    lambda y, order: (in_order(y, order), order),
    lambda order, g: (g[jnp.argsort(order)], None),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def sorted_copies(x_nD: Array, order_R: Array, k: int) -> Array:
    """k copies of every row, in the order given: [n, D] -> [n * k, D]."""
    return x_nD[order_R // k]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def summed_copies(y_RD: Array, order_R: Array, k: int) -> Array:
    """The transpose of `sorted_copies`, as k gathers: [n * k, D] -> [n, D]."""
    place_nk = jnp.argsort(order_R).reshape(-1, k)
    # One gather of all, [n, k, D], would pad k to the 8 rows of a register.
    parts = (y_RD[place_nk[:, j]].astype(jnp.float32) for j in range(k))
    return functools.reduce(jnp.add, parts).astype(y_RD.dtype)


sorted_copies.defvjp(
    lambda x, order, k: (sorted_copies(x, order, k), order),
    lambda k, order, g: (summed_copies(g, order, k), None),
)
summed_copies.defvjp(
    lambda y, order, k: (summed_copies(y, order, k), order),
    lambda k, order, g: (sorted_copies(g, order, k), None),
)
