# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention as masked softmax in plain JAX: every platform, every feature."""

import jax
import jax.numpy as jnp
from jax import Array

from podium.models.layers import soft_cap

# Far below any score, finite: a row with nothing to see gives a mean, not a NaN.
MASKED = -1e30


def attention(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    segment_ids_BT: Array | None,
    *,
    window: int | None,
    cap: float | None,
) -> Array:
    """As `attention_dispatch.attend`."""
    T = q_BTNH.shape[1]
    back_TS = jnp.arange(T)[:, None] - jnp.arange(T)[None, :]
    visible_BTS = (back_TS >= 0)[None]
    if window is not None:
        visible_BTS &= (back_TS < window)[None]
    if segment_ids_BT is not None:
        visible_BTS &= segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    return masked_softmax_attention(q_BTNH, k_BTKH, v_BTKH, visible_BTS, cap=cap)


def masked_softmax_attention(
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKH: Array,
    visible_BTS: Array,
    *,
    cap: float | None,
) -> Array:
    """softmax(mask(cap(q k^T))) v, with G = N/K query heads reading each kv head.

    Scores and softmax are float32, the weights are cast to v's type. `q` comes
    scaled. `visible_BTS` is boolean: query t sees key s. Returns [B, T, N, H].
    """
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    scores_BKGTS = jnp.einsum(
        "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
    )
    scores_BKGTS = soft_cap(scores_BKGTS, cap)
    scores_BKGTS = jnp.where(visible_BTS[:, None, None], scores_BKGTS, MASKED)
    weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
    out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH)
    return out_BTKGH.reshape(B, T, N, H)


def attention_to_cache(
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKH: Array,
    positions_BT: Array,
    cached_positions_BS: Array,
    *,
    window: int | None,
    cap: float | None,
) -> Array:
    """Queries at `positions_BT` see the cached keys at or before their position.

    A cached position of -1 is an empty slot or padding, which nobody sees.
    """
    back_BTS = positions_BT[:, :, None] - cached_positions_BS[:, None, :]
    visible_BTS = (back_BTS >= 0) & (cached_positions_BS[:, None, :] >= 0)
    if window is not None:
        visible_BTS &= back_BTS < window
    return masked_softmax_attention(q_BTNH, k_BSKH, v_BSKH, visible_BTS, cap=cap)
