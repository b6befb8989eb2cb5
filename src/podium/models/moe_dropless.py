# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts without a limit: tokens sorted by expert, then one grouped matmul.

arXiv:2211.15841 (MegaBlocks). Where the mesh splits the experts, the devices of an
"expert" group gather each other's tokens, each runs its own experts on those that chose
them, and the results are summed on the way back: exact, whatever the load.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from podium.sharding.constrain import current_rules


def experts(
    x_BTD: Array,
    experts_BTk: Array,
    weights_BTk: Array,
    gate_EDF: Array,
    up_EDF: Array,
    down_EFD: Array,
    *,
    act: Callable[[Array], Array],
) -> Array:
    """Sum over each token's experts of weight * down(act(gate(x)) * up(x)); x's type."""
    rules = current_rules()
    if rules is None or rules.mesh.size == 1:
        return _local(
            x_BTD, experts_BTk, weights_BTk, gate_EDF, up_EDF, down_EFD, act, 0
        )
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
        if embed_axes:
            gate = jax.lax.all_gather(gate, embed_axes, axis=1, tiled=True)
            up = jax.lax.all_gather(up, embed_axes, axis=1, tiled=True)
            down = jax.lax.all_gather(down, embed_axes, axis=2, tiled=True)
        first = 0
        if expert_axes:
            first = jax.lax.axis_index(expert_axes) * gate.shape[0]
        y = _local(x, chosen, weights, gate, up, down, act, first)
        if shares:
            y = jax.lax.psum_scatter(y, tuple(shares), scatter_dimension=0, tiled=True)
        if scatter:
            return jax.lax.psum_scatter(y, scatter, scatter_dimension=1, tiled=True)
        return jax.lax.psum(y, mlp_axes) if mlp_axes else y

    tokens = P(batch_axes or None, length or None, None)
    into = P(expert_axes or None, embed_axes or None, mlp_axes or None)
    return jax.shard_map(
        on_device,
        mesh=rules.mesh,
        in_specs=(
            tokens,
            tokens,
            tokens,
            into,
            into,
            P(expert_axes or None, mlp_axes or None, embed_axes or None),
        ),
        out_specs=P(batch_axes or None, (*length, *scatter) or None, None),
        check_vma=False,
    )(x_BTD, experts_BTk, weights_BTk, gate_EDF, up_EDF, down_EFD)


def _local(x_BTD, experts_BTk, weights_BTk, gate_EDF, up_EDF, down_EFD, act, first):
    """The part of the sum that the experts first .. first + E - 1 make."""
    B, T, D = x_BTD.shape
    k, E = experts_BTk.shape[-1], gate_EDF.shape[0]
    expert_R = experts_BTk.reshape(-1) - first
    is_here_R = (expert_R >= 0) & (expert_R < E)
    expert_R = jnp.where(is_here_R, expert_R, E)  # the others' go to the end
    order_R = jnp.argsort(expert_R, stable=True)
    sizes_E = jnp.bincount(expert_R, length=E + 1)[:E].astype(jnp.int32)
    x_RD = sorted_copies(x_BTD.reshape(B * T, D), order_R, k)
    x_RD = checkpoint_name(x_RD, "expert_input")
    # Rows past the last group mean nothing: an implementation may leave them unset.
    used_R1 = (jnp.arange(B * T * k) < jnp.sum(sizes_E))[:, None]
    gate_RF = jax.lax.ragged_dot(x_RD, gate_EDF, sizes_E)
    gate_RF = checkpoint_name(gate_RF, "expert_gate")
    up_RF = jax.lax.ragged_dot(x_RD, up_EDF, sizes_E)
    up_RF = checkpoint_name(up_RF, "expert_up")
    h_RF = jnp.where(used_R1, act(gate_RF) * up_RF, 0)
    y_RD = jnp.where(used_R1, jax.lax.ragged_dot(h_RF, down_EFD, sizes_E), 0)
    y_RD = checkpoint_name(y_RD, "expert_out")
    y_nkD = unsorted(y_RD, order_R).reshape(B * T, k, D)
    weights_nk = jnp.where(is_here_R, weights_BTk.reshape(-1), 0.0).reshape(-1, k)
    y_nD = jnp.einsum("nk,nkD->nD", weights_nk, y_nkD.astype(jnp.float32))
    return y_nD.astype(x_BTD.dtype).reshape(B, T, D)


@jax.custom_vjp
def unsorted(y_RD: Array, order_R: Array) -> Array:
    """Row order_R[i] of the result is row i of y. Both ways a gather, never a scatter."""
    return y_RD[jnp.argsort(order_R)]


unsorted.defvjp(
    lambda y, order: (unsorted(y, order), order), lambda order, g: (g[order], None)
)


def sorted_copies(x_nD: Array, order_R: Array, k: int) -> Array:
    """k copies of every row, in the order given: [n, D] -> [n * k, D]."""
    return _sorted_copies(k, x_nD, order_R)


def _sorted_copies(k: int, x_nD: Array, order_R: Array) -> Array:
    return x_nD[order_R // k]


_sorted_copies = jax.custom_vjp(_sorted_copies, nondiff_argnums=(0,))
_sorted_copies.defvjp(
    lambda k, x, order: (_sorted_copies(k, x, order), order),
    lambda k, order, g: (
        jnp.sum(g[jnp.argsort(order)].reshape(-1, k, g.shape[-1]), axis=1),
        None,
    ),
)
