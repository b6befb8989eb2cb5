# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention: projections, QK norm, RoPE, training and decoding."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from podium.config_model import AttentionConfig, ModelConfig
from podium.models.attention_dispatch import attend
from podium.models.attention_xla import attention_to_cache
from podium.models.layers import (
    RMSNorm,
    add_bias,
    kernel_normal,
    make_bias,
    residual_normal,
)
from podium.models.linear import linear
from podium.models.quantized import dots
from podium.models.rope import Rotation, rotate
from podium.models.width import query_scale
from podium.sharding.constrain import param, shard

LayerKind = Literal["global", "local"]


class Rows(NamedTuple):
    """What attention knows about the tokens of a batch, the same for every layer."""

    positions_BT: Array
    segment_ids_BT: Array | None  # None: every row is one document
    rotations: dict[LayerKind, Rotation]  # empty without RoPE


class LayerCache(NamedTuple):
    """What one layer keeps of the tokens, and where the new ones go."""

    kept: tuple[Array, ...]  # [B, S, ..], one for each of the config's `cached`
    positions_BS: Array  # of every slot, the new tokens included; -1: empty
    start: Array  # slot of the first new token

    def with_new(self, new: tuple[Array, ...]) -> tuple[Array, ...]:
        """What is kept, with the new tokens' share [B, T, ..] in its slots."""
        pairs = zip(self.kept, new, strict=True)
        put = jax.lax.dynamic_update_slice_in_dim
        return tuple(put(old, new, self.start, axis=1) for old, new in pairs)


class Attention(nnx.Module):
    """out(attend(rope(norm(q)), rope(norm(k)), v)). arXiv:2305.13245."""

    def __init__(
        self,
        cfg: ModelConfig,
        a: AttentionConfig,
        kind: LayerKind,
        *,
        rngs: nnx.Rngs,
    ):
        D = cfg.embed_dim
        N, K, H = a.num_heads, a.num_kv_heads, a.head_dim
        q_axes, kv_axes = ("heads", "head_dim"), ("kv_heads", "head_dim")
        mup, init = cfg.width_transfer, kernel_normal(cfg)
        is_zero = mup is not None and "query" in mup.zero_init
        first = nnx.initializers.zeros_init() if is_zero else init
        self.query = param(rngs, (D, N, H), axes=("embed", *q_axes), init=first)
        self.key = param(rngs, (D, K, H), axes=("embed", *kv_axes), init=init)
        self.value = param(rngs, (D, K, H), axes=("embed", *kv_axes), init=init)
        self.out = param(
            rngs, (N, H, D), axes=(*q_axes, "embed"), init=residual_normal(cfg, "heads")
        )
        self.query_bias = make_bias(rngs, (N, H), q_axes, use=a.use_qkv_bias)
        self.key_bias = make_bias(rngs, (K, H), kv_axes, use=a.use_qkv_bias)
        self.value_bias = make_bias(rngs, (K, H), kv_axes, use=a.use_qkv_bias)
        self.out_bias = make_bias(rngs, (D,), ("embed",), use=a.use_out_bias)
        self.query_norm = self._make_qk_norm(a, rngs)
        self.key_norm = self._make_qk_norm(a, rngs)
        self.dots = dots(cfg.quantization, "attention")
        self.kind: LayerKind = kind
        self.window = a.window_tokens if kind == "local" else None
        self.query_scale = query_scale(cfg)
        self.soft_cap = a.soft_cap
        self.implementation = a.implementation
        self.context = a.context

    @staticmethod
    def _make_qk_norm(a: AttentionConfig, rngs: nnx.Rngs) -> RMSNorm | None:
        norm = a.qk_norm
        return norm and RMSNorm(norm, a.head_dim, axis="head_dim", rngs=rngs)

    def __call__(
        self, x_BTD: Float[Array, "B T D"], rows: Rows
    ) -> Float[Array, "B T D"]:
        """Every token reads its own segment up to itself."""
        return self._merge(self._attend(*self._project(x_BTD, rows), rows))

    def decode(
        self, x_BTD: Array, rows: Rows, cache: LayerCache
    ) -> tuple[Array, tuple[Array, ...]]:
        """New tokens read the cache and each other; also returns it with them in it."""
        q_BTNH, k_BTKH, v_BTKH = self._project(x_BTD, rows)
        kept = k_BSKH, v_BSKH = cache.with_new((k_BTKH, v_BTKH))
        if rows.segment_ids_BT is not None:  # the cache was empty
            return self._merge(self._attend(q_BTNH, k_BTKH, v_BTKH, rows)), kept
        out_BTNH = attention_to_cache(
            q_BTNH,
            k_BSKH,
            v_BSKH,
            rows.positions_BT,
            cache.positions_BS,
            window=self.window,
            cap=self.soft_cap,
        )
        return self._merge(out_BTNH), kept

    def _attend(self, q_BTNH: Array, k_BTKH: Array, v_BTKH: Array, rows: Rows) -> Array:
        return attend(
            q_BTNH,
            k_BTKH,
            v_BTKH,
            rows.segment_ids_BT,
            window=self.window,
            cap=self.soft_cap,
            implementation=self.implementation,
            context=self.context,
        )

    def _project(self, x_BTD: Array, rows: Rows) -> tuple[Array, Array, Array]:
        q_BTNH = add_bias(linear(x_BTD, self.query, dots=self.dots), self.query_bias)
        k_BTKH = add_bias(linear(x_BTD, self.key, dots=self.dots), self.key_bias)
        v_BTKH = add_bias(linear(x_BTD, self.value, dots=self.dots), self.value_bias)
        if self.query_norm is not None and self.key_norm is not None:
            q_BTNH, k_BTKH = self.query_norm(q_BTNH), self.key_norm(k_BTKH)
        if rows.rotations:
            by = rows.rotations[self.kind]
            q_BTNH, k_BTKH = rotate(q_BTNH, by), rotate(k_BTKH, by)
        q_BTNH = q_BTNH * jnp.asarray(self.query_scale, q_BTNH.dtype)
        q_BTNH = shard(q_BTNH, "batch", "length", "heads", "head_dim")
        k_BTKH = shard(k_BTKH, "batch", "length", "kv_heads", "head_dim")
        v_BTKH = shard(v_BTKH, "batch", "length", "kv_heads", "head_dim")
        return (
            checkpoint_name(q_BTNH, "query"),
            checkpoint_name(k_BTKH, "key"),
            checkpoint_name(v_BTKH, "value"),
        )

    def _merge(self, out_BTNH: Array) -> Array:
        out_BTNH = shard(out_BTNH, "batch", "length", "heads", "head_dim")
        return add_bias(linear(out_BTNH, self.out, 2, dots=self.dots), self.out_bias)
