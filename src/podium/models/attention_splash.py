# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention by splash, JAX's Pallas kernel for TPUs; blocks outside the mask are free."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

from podium.models.attention_shards import per_shard

LANES = 128  # the kernel's blocks are multiples of this many tokens
MAX_BLOCK = 512  # tokens; larger ones leave too little vector memory beside H = 256


def attention(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKU: Array,
    segment_ids_BT: Array | None,
    *,
    window: int | None,
    cap: float | None,
    interpret: bool = False,
) -> Array:
    """As `attention_dispatch.attend`. `interpret` runs the kernel anywhere, slowly.

    Rows are padded behind to a multiple of 128 tokens: nothing before sees them.
    """
    T = q_BTNH.shape[1]
    pad = -T % LANES
    if pad:
        widths = ((0, 0), (0, pad), (0, 0), (0, 0))
        q_BTNH, k_BTKH, v_BTKU = (jnp.pad(x, widths) for x in (q_BTNH, k_BTKH, v_BTKU))
        if segment_ids_BT is not None:
            segment_ids_BT = jnp.pad(segment_ids_BT, widths[:2])

    def local(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT):
        shape = (T + pad, T + pad)
        kernel = make_kernel(
            masks.CausalMask(shape)
            if window is None
            else masks.LocalMask(shape, window_size=(window - 1, 0), offset=0),
            num_heads=q_BTNH.shape[2],
            cap=cap,
            # With its softmax sums, see `attention_xla.named`.
            residual_checkpoint_name="attention_out",
            interpret=interpret,
        )
        q_BNTH, k_BKTH, v_BKTU = (
            jnp.swapaxes(x, 1, 2) for x in (q_BTNH, k_BTKH, v_BTKU)
        )
        ids = segment_ids_BT
        if ids is not None:
            ids = splash.SegmentIds(q=segment_ids_BT, kv=segment_ids_BT)
        out_BNTU: Any = jax.vmap(kernel)(q_BNTH, k_BKTH, v_BKTU, ids)
        return jnp.swapaxes(out_BNTU, 1, 2)

    return per_shard(local, q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)[:, :T]


def make_kernel(
    mask: masks.Mask, *, num_heads: int, cap: float | None, **options: Any
) -> splash.SplashAttentionKernel:
    """The kernel for one device's heads: (q [N, T, H], k [K, S, H], v [K, S, U],
    ids) -> out [N, T, U], under a mask [T, S]; `options` are the kernel's own."""
    block = block_tokens(math.gcd(*mask.shape))
    # The mask's tables are constants of the program, also inside a scan.
    with jax.ensure_compile_time_eval():
        return splash.make_splash_mha(
            masks.MultiHeadMask([mask] * num_heads),
            head_shards=1,
            q_seq_shards=1,
            block_sizes=splash.BlockSizes(
                block_q=block,
                block_kv=block,
                block_kv_compute=block,
                block_q_dkv=block,
                block_kv_dkv=block,
                block_kv_dkv_compute=block,
                block_q_dq=block,
                block_kv_dq=block,
            ),
            attn_logits_soft_cap=cap,
            **options,
        )


def block_tokens(num_tokens: int) -> int:
    """The largest block up to MAX_BLOCK that divides a multiple of LANES."""
    return max(
        block for block in range(LANES, MAX_BLOCK + 1, LANES) if num_tokens % block == 0
    )
