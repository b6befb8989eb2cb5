# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention: keys and values of all heads from one small vector.

DeepSeek-V2, arXiv:2405.04434, section 2.1. A token is compressed to a latent c of
`kv_lora_rank` channels, from which every head makes its own key and value; queries are
compressed likewise, if at all. Compressed keys cannot carry RoPE, so a few channels of
query and key do beside: every head has such a query, all heads share one key.

Letters of this file: C latent of keys and values, Q of queries, P channels of a head
without RoPE, R with it, H = P + R, U of a value. RoPE pairs halves, as everywhere here;
DeepSeek's weights pair neighbours, so that importing them takes the last R columns of
`query` and of `kv_down` in the order 0, 2, .., 1, 3, ..: every score stays the same.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from podium.config_model import LatentAttentionConfig, ModelConfig
from podium.models.attention import LayerCache, LayerKind, Rows
from podium.models.attention_dispatch import attend
from podium.models.attention_xla import attention_to_cache
from podium.models.layers import RMSNorm, kernel_normal, residual_normal
from podium.models.linear import accumulate_in, linear
from podium.models.quantized import dots
from podium.models.rope import rotate, score_factor
from podium.sharding.constrain import param, shard


class LatentAttention(nnx.Module):
    """out(attend([q, rope(q_r)], [key(c), rope(k_r)], value(c))), eq. 9 to 19, where
    [c, k_r] = kv_down(x) and [q, q_r] = query(query_down(x)); c and the latent of the
    queries are normalised."""

    def __init__(
        self,
        cfg: ModelConfig,
        a: LatentAttentionConfig,
        kind: LayerKind,
        *,
        rngs: nnx.Rngs,
    ):
        D, N, U = cfg.embed_dim, a.num_heads, a.v_head_dim
        C, Q = a.kv_lora_rank, a.q_lora_rank
        self.P, self.R = a.qk_nope_head_dim, a.qk_rope_head_dim
        init, heads = kernel_normal(cfg), ("heads", "head_dim")
        source, axis = (D, "embed") if Q is None else (Q, "latent")
        self.query_down = (
            None if Q is None else param(rngs, (D, Q), axes=("embed", None), init=init)
        )
        self.query_norm = (
            None if Q is None else RMSNorm(a.norm, Q, axis="latent", rngs=rngs)
        )
        self.query = param(
            rngs, (source, N, self.P + self.R), axes=(axis, *heads), init=init
        )
        self.kv_down = param(rngs, (D, C + self.R), axes=("embed", None), init=init)
        self.kv_norm = RMSNorm(a.norm, C, axis="latent", rngs=rngs)
        self.key = param(rngs, (C, N, self.P), axes=("latent", *heads), init=init)
        self.value = param(rngs, (C, N, U), axes=("latent", *heads), init=init)
        self.out = param(
            rngs, (N, U, D), axes=(*heads, "embed"), init=residual_normal(cfg, "heads")
        )
        self.dots = dots(cfg.quantization, "attention")
        self.kind: LayerKind = kind
        self.query_scale = (self.P + self.R) ** -0.5 * score_factor(cfg.position)
        self.implementation, self.context = a.implementation, a.context

    def __call__(
        self, x_BTD: Float[Array, "B T D"], rows: Rows
    ) -> Float[Array, "B T D"]:
        """Every token reads its own segment up to itself."""
        q_BTNH = self._queries(x_BTD, rows)
        c_BTC, k_BT1R = self._latent(x_BTD, rows)
        k_BTNP, v_BTNU = (
            linear(c_BTC, self.key, dots=self.dots),
            linear(c_BTC, self.value, dots=self.dots),
        )
        shared_BTNR = jnp.broadcast_to(k_BT1R, (*k_BTNP.shape[:3], self.R))
        k_BTNH = jnp.concatenate([k_BTNP, shared_BTNR], axis=-1)
        heads = ("batch", "length", "heads", "head_dim")
        out_BTNU = attend(
            checkpoint_name(shard(q_BTNH, *heads), "query_heads"),
            checkpoint_name(shard(k_BTNH, *heads), "key_heads"),
            checkpoint_name(shard(v_BTNU, *heads), "value_heads"),
            rows.segment_ids_BT,
            implementation=self.implementation,
            context=self.context,
        )
        return self._merge(out_BTNU)

    def decode(
        self, x_BTD: Array, rows: Rows, cache: LayerCache
    ) -> tuple[Array, tuple[Array, ...]]:
        """New tokens read the cache and each other; also returns it with their
        [c, k_r] in it.

        Keys and values are never made: q (W c) = (W^T q) c, so queries go to the
        latents instead, which are key and value of all heads at once (section 2.1.2).
        """
        q_BTNH = self._queries(x_BTD, rows)
        c_BTC, k_BT1R = self._latent(x_BTD, rows)
        q_BTNP, q_BTNR = jnp.split(q_BTNH, [self.P], axis=-1)
        q_BTNC = _einsum("BTNP,CNP->BTNC", q_BTNP, self.key)
        new = (jnp.concatenate([c_BTC, k_BT1R[:, :, 0]], axis=-1),)
        kept = (kept_BSX,) = cache.with_new(new)  # X = C + R
        out_BTNC = attention_to_cache(
            jnp.concatenate([q_BTNC, q_BTNR], axis=-1),
            kept_BSX[:, :, None],
            kept_BSX[:, :, None, : c_BTC.shape[-1]],
            rows.positions_BT,
            cache.positions_BS,
            window=None,
            cap=None,
        )
        return self._merge(_einsum("BTNC,CNU->BTNU", out_BTNC, self.value)), kept

    def _queries(self, x_BTD: Array, rows: Rows) -> Array:
        """[B, T, N, P + R], scaled."""
        from_BTX = x_BTD
        if self.query_down is not None and self.query_norm is not None:
            from_BTX = self.query_norm(linear(x_BTD, self.query_down, dots=self.dots))
            from_BTX = shard(from_BTX, "batch", "length", None)
            from_BTX = checkpoint_name(from_BTX, "query")
        q_BTNP, q_BTNR = jnp.split(
            linear(from_BTX, self.query, dots=self.dots), [self.P], axis=-1
        )
        q_BTNR = rotate(q_BTNR, rows.rotations[self.kind])
        q_BTNH = jnp.concatenate([q_BTNP, q_BTNR], axis=-1)
        return q_BTNH * jnp.asarray(self.query_scale, q_BTNH.dtype)

    def _latent(self, x_BTD: Array, rows: Rows) -> tuple[Array, Array]:
        """The latent of every token, [B, T, C], and its key under RoPE, [B, T, 1, R]."""
        both_BTX = shard(
            linear(x_BTD, self.kv_down, dots=self.dots), "batch", "length", None
        )
        c_BTC, k_BTR = jnp.split(both_BTX, [both_BTX.shape[-1] - self.R], axis=-1)
        c_BTC = checkpoint_name(self.kv_norm(c_BTC), "value")
        k_BT1R = rotate(k_BTR[:, :, None], rows.rotations[self.kind])
        return c_BTC, checkpoint_name(k_BT1R, "key")

    def _merge(self, out_BTNU: Array) -> Array:
        out_BTNU = shard(out_BTNU, "batch", "length", "heads", "head_dim")
        return linear(out_BTNU, self.out, 2, dots=self.dots)


def _einsum(spec: str, x: Array, weight: nnx.Param) -> Array:
    w = weight[...].astype(x.dtype)
    out = jnp.einsum(spec, x, w, preferred_element_type=accumulate_in(x.dtype))
    return out.astype(x.dtype)
