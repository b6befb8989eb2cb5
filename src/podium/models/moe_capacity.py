# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts with a capacity: of each row's tokens an expert takes a fixed number.

GShard, arXiv:2006.16668, with the tokens that score an expert highest going first
(arXiv:2106.05974, section 4.1). What an expert takes is a matter of the row alone, so
it depends neither on the mesh nor on the other rows. A token turned away keeps its
residual stream.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from podium.sharding.constrain import shard


def experts(
    x_BTD: Array,
    experts_BTk: Array,
    weights_BTk: Array,
    gate_EDF: Array,
    up_EDF: Array,
    down_EFD: Array,
    *,
    act: Callable[[Array], Array],
    factor: float,
) -> Array:
    """Sum over each token's experts that took it; x's type. C slots an expert and row."""
    B, T, _ = x_BTD.shape
    k, E = experts_BTk.shape[-1], gate_EDF.shape[0]
    C = min(T, math.ceil(factor * k * T / E))
    slot_BR = slots(experts_BTk, weights_BTk, E)  # R = T * k
    is_in_BR = slot_BR < C
    where_BR = experts_BTk.reshape(B, -1) * C + jnp.where(is_in_BR, slot_BR, 0)
    token_R = jnp.arange(T * k) // k
    rows_B1 = jnp.arange(B)[:, None]
    empty = T  # a row of zeros stands behind the tokens
    source_BS = jnp.full((B, E * C + 1), empty, jnp.int32)
    target_BR = jnp.where(is_in_BR, where_BR, E * C)
    source_BS = source_BS.at[rows_B1, target_BR].set(token_R[None])[:, : E * C]
    padded_BTD = jnp.pad(x_BTD, ((0, 0), (0, 1), (0, 0)))
    sent_BSD = jnp.take_along_axis(padded_BTD, source_BS[..., None], axis=1)
    sent_BECD = sent_BSD.reshape(B, E, C, -1)
    sent_BECD = shard(sent_BECD, "expert_batch", "experts", None, "act_embed")
    sent_BECD = checkpoint_name(sent_BECD, "expert_input")
    gate_BECF = jnp.einsum("BECD,EDF->BECF", sent_BECD, gate_EDF)
    up_BECF = jnp.einsum("BECD,EDF->BECF", sent_BECD, up_EDF)
    gate_BECF = checkpoint_name(gate_BECF, "expert_gate")
    up_BECF = checkpoint_name(up_BECF, "expert_up")
    h_BECF = shard(act(gate_BECF) * up_BECF, "expert_batch", "experts", None, "mlp")
    y_BECD = jnp.einsum("BECF,EFD->BECD", h_BECF, down_EFD)
    y_BECD = shard(y_BECD, "batch", None, None, "act_embed")
    y_BECD = checkpoint_name(y_BECD, "expert_out")
    back_BRD = jnp.take_along_axis(
        y_BECD.reshape(B, E * C, -1), where_BR[..., None], axis=1
    )
    weights_BR = jnp.where(is_in_BR, weights_BTk.reshape(B, -1), 0.0)
    y_BRD = back_BRD.astype(jnp.float32) * weights_BR[..., None]
    return jnp.sum(y_BRD.reshape(B, T, k, -1), axis=2).astype(x_BTD.dtype)


def slots(experts_BTk: Array, weights_BTk: Array, num_experts: int) -> Array:
    """Place of every (token, choice) in its expert's queue, best scores first: [B, T*k]."""
    B = experts_BTk.shape[0]
    expert_BR = experts_BTk.reshape(B, -1)
    weight_BR = jax.lax.stop_gradient(weights_BTk).reshape(B, -1)
    order_BR = jnp.argsort(-weight_BR, axis=1, stable=True)
    ranked_BR = jnp.take_along_axis(expert_BR, order_BR, axis=1)
    one_hot_BRE = jax.nn.one_hot(ranked_BR, num_experts, dtype=jnp.int32)
    before_BRE = jnp.cumsum(one_hot_BRE, axis=1) - one_hot_BRE
    place_BR = jnp.take_along_axis(before_BRE, ranked_BR[..., None], axis=2)[..., 0]
    back_BR = jnp.argsort(order_BR, axis=1)
    return jnp.take_along_axis(place_BR, back_BR, axis=1)
