# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention by cuDNN's fused flash kernels on NVIDIA GPUs, through jax.nn."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.ad_checkpoint import Offloadable, Saveable

from podium.config_remat import Kept
from podium.models.attention_shards import per_shard

# What jax calls the kernel under differentiation; its results are the output and the
# softmax's normalisers, which the backward kernel reads.
_FORWARD = "dot_product_attention_fwd_wrapper"


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

    return per_shard(local, q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)


def keeping_output(names: Kept, policy: Callable[..., Any]) -> Callable[..., Any]:
    """A policy of rematerialisation that knows "attention_out" of this kernel too.

    Inside jax.nn nothing can be named. Without the normalisers the backward pass would
    run the kernel again, however much was kept of its output.
    """
    if "attention_out" not in names:
        return policy
    on_device = "attention_out" in names.device
    where = Saveable if on_device else Offloadable("device", "pinned_host")

    def of_kernel(primitive: Any, *avals: Any, **params: Any) -> Any:
        if primitive.name == _FORWARD:
            return where
        return policy(primitive, *avals, **params)

    return of_kernel
