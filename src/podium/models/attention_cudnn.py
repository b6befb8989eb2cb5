# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention by cuDNN's fused flash kernels on NVIDIA GPUs, through jax.nn."""

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from podium.models.attention_shards import per_shard


def attention(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    segment_ids_BT: Array | None,
    *,
    window: int | None,
    cap: float | None,
) -> Array:
    """As `attention_dispatch.attend`; forward and backward are fused kernels.

    The API knows no segment ids, so they travel as an additive mask [B, 1, T, T]
    shared by all heads, beside the kernel's own causal mask. That is exact, and costs
    the mask's memory and its reads; rows of one document (None) pay nothing.
    """
    assert cap is None, "the dispatch keeps soft caps away"

    def local(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT):
        mask_B1TT = None
        if segment_ids_BT is not None:
            same_BTT = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
            mask_B1TT = same_BTT[:, None]
        return jax.nn.dot_product_attention(
            q_BTNH,
            k_BTKH,
            v_BTKH,
            mask=mask_B1TT,
            scale=1.0,
            is_causal=True,
            # jax counts the tokens left of the query, we count the query too.
            local_window_size=None if window is None else (window - 1, 0),
            implementation="cudnn",
        )

    out_BTNH = per_shard(local, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    # The kernel's own residuals cannot be named: the backward pass runs it again.
    return checkpoint_name(out_BTNH, "attention_out")
