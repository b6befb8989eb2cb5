# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention as masked softmax in plain JAX: every platform, every feature.

The backward pass is written out: it keeps q, k, v, the output and the log-normaliser,
and computes the probabilities again, as in FlashAttention (arXiv:2205.14135, section
3.1), so that no [.., T, S] array outlives its layer.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float

from podium.models.layers import soft_cap
from podium.sharding.constrain import current_platform

# Far below any score, finite: a row with nothing to see gives a mean, not a NaN.
MASKED = -1e30


def attention(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKU: Array,
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
    return masked_softmax_attention(q_BTNH, k_BTKH, v_BTKU, visible_BTS, cap=cap)


def masked_softmax_attention(
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKU: Array,
    visible_BTS: Array,
    *,
    cap: float | None,
) -> Array:
    """softmax(mask(cap(q k^T))) v, with G = N/K query heads reading each kv head.

    Scores and softmax are float32, the weights are cast to v's type. `q` comes
    scaled. `visible_BTS` is boolean: query t sees key s. Returns [B, T, N, U]
    of values with U channels.
    """
    q_BKGTH, k_BKSH, v_BKSU = to_blocks(q_BTNH, k_BSKH, v_BSKU)
    out_BKGTU: Array = _attend(cap, q_BKGTH, k_BKSH, v_BKSU, visible_BTS)
    return from_blocks(out_BKGTU)


def to_blocks(
    q_BTNH: Array, k_BSKH: Array, v_BSKU: Array
) -> tuple[Array, Array, Array]:
    """Heads in front, each with its group of G = N/K queries: [B, K, G, T, H]."""
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BKGTH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    return q_BKGTH, k_BSKH.swapaxes(1, 2), v_BSKU.swapaxes(1, 2)


def from_blocks(x_BKGTU: Array) -> Array:
    """[B, K, G, T, U] -> [B, T, N, U]."""
    B, K, G, T, U = x_BKGTU.shape
    return x_BKGTU.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, U)


def named(out: Array, lse: Array) -> tuple[Array, Array]:
    """Attention's output and the softmax's normalisers, for `model.remat`.

    Together, and as the backward pass reads them: with one alone it would run the
    forward pass again, and a name further out would keep the output twice.
    """
    return checkpoint_name(out, "attention_out"), checkpoint_name(lse, "attention_out")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    cap: float | None, q_BKGTH: Array, k_BKSH: Array, v_BKSU: Array, visible_BTS: Array
) -> Array:
    return _attend_forward(cap, q_BKGTH, k_BKSH, v_BKSU, visible_BTS)[0]


def _attend_forward(cap, q, k, v, visible):
    q, k, v = _fence((q, k, v))
    out, lse = block_forward(cap, q, k, v, visible)
    out = _fence(out.astype(v.dtype))
    out, lse = named(out, lse)
    return out, (q, k, v, visible, out, lse)


def _attend_backward(cap, saved, dout):
    q, k, v, visible, out, lse = saved
    dq, dk, dv = block_backward(cap, q, k, v, visible, out, lse, _fence(dout))
    return *_fence((dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype))), None


_attend.defvjp(_attend_forward, _attend_backward)


def block_forward(
    cap: float | None,
    q: Float[Array, "B K G T H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S U"],
    visible_BTS: Bool[Array, "b T S"],
) -> tuple[Float[Array, "B K G T U"], Float[Array, "B K G T 1"]]:
    """The mean of v over these keys, float32, and the logarithm of its normaliser.

    Blocks of keys are merged by their normalisers. Of a query that sees none of the
    keys, the normaliser is about -1e30 and the mean means nothing.
    """
    scores_BKGTS = _masked(_scores(cap, q, k), visible_BTS)
    top_BKGT1 = jnp.max(scores_BKGTS, axis=-1, keepdims=True)
    weights_BKGTS = jnp.exp(scores_BKGTS - top_BKGT1)
    total_BKGT1 = jnp.sum(weights_BKGTS, axis=-1, keepdims=True)
    out = _einsum32("BKGTS,BKSU->BKGTU", weights_BKGTS.astype(v.dtype), v)
    return out / total_BKGT1, top_BKGT1 + jnp.log(total_BKGT1)


def block_backward(
    cap: float | None,
    q: Float[Array, "B K G T H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S U"],
    visible_BTS: Bool[Array, "b T S"],
    out: Float[Array, "B K G T U"],
    lse: Float[Array, "B K G T 1"],
    dout: Float[Array, "B K G T U"],
) -> tuple[Array, Array, Array]:
    """Float32 gradients of q, and of this block's k and v.

    `out` and `lse` are those of the whole row, all blocks of keys merged.
    """
    scores_BKGTS = _scores(cap, q, k)
    p_BKGTS = jnp.exp(_masked(scores_BKGTS, visible_BTS) - lse)
    dv = _einsum32("BKGTS,BKGTU->BKSU", p_BKGTS.astype(v.dtype), dout)
    dp_BKGTS = _einsum32("BKGTU,BKSU->BKGTS", dout, v)
    # sum_s p dp, from the output instead of the scores.
    mean_BKGT1 = jnp.sum((dout * out).astype(jnp.float32), axis=-1, keepdims=True)
    ds_BKGTS = p_BKGTS * (dp_BKGTS - mean_BKGT1)
    if cap is not None:  # d/dx cap tanh(x / cap) = 1 - tanh^2
        ds_BKGTS = ds_BKGTS * (1.0 - jnp.square(scores_BKGTS / cap))
    ds_BKGTS = ds_BKGTS.astype(q.dtype)
    dq = _einsum32("BKGTS,BKSH->BKGTH", ds_BKGTS, k)
    dk = _einsum32("BKGTS,BKGTH->BKSH", ds_BKGTS, q)
    return dq, dk, dv


def _scores(cap: float | None, q_BKGTH: Array, k_BKSH: Array) -> Array:
    return soft_cap(_einsum32("BKGTH,BKSH->BKGTS", q_BKGTH, k_BKSH), cap)


def _masked(scores_BKGTS: Array, visible_BTS: Array) -> Array:
    return jnp.where(visible_BTS[:, None, None], scores_BKGTS, MASKED)


def _einsum32(spec: str, a: Array, b: Array) -> Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _fence(x: Any) -> Any:
    # XLA:CPU would fuse the transposes into the dots, and these into slow loops.
    return jax.lax.optimization_barrier(x) if current_platform() == "cpu" else x


def attention_to_cache(
    q_BTNH: Array,
    k_BSKH: Array,
    v_BSKU: Array,
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
    return masked_softmax_attention(q_BTNH, k_BSKH, v_BSKU, visible_BTS, cap=cap)
