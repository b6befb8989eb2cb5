# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: a router, the experts, and what keeps their load even.

The router runs over the global batch under the compiler's own partitioning, so which
experts a token visits never depends on the mesh. Only the experts' matmuls are split by
hand: `moe_dropless.py` and `moe_capacity.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from podium.config_model import (
    AuxLossConfig,
    BiasConfig,
    CapacityConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
)
from podium.models import moe_capacity, moe_dropless
from podium.models.layers import GatedMlp, gelu, kernel_normal, residual_normal, silu
from podium.models.linear import linear_to_float32, value_of
from podium.models.moe_kernel import expert_kernel
from podium.models.width import kernel_std
from podium.sharding.constrain import param, shard


class Routing(NamedTuple):
    """What routing did to a batch: sums, so that batches and devices add up exactly."""

    balance: Array  # [] sum over real tokens of the balance loss of their row
    load_E: Array  # [E] real tokens sent to each expert, float32


class Choice(NamedTuple):
    """The experts of every token."""

    experts_BTk: Array  # int32
    weights_BTk: Array  # float32


class Router(nnx.Module):
    """Scores every expert for every token and chooses the best `experts_per_token`.

    Softmax or sigmoid of float32 logits. Groups, the sigmoid and the bias are those of
    DeepSeek-V3, arXiv:2412.19437, section 2.1.2.
    """

    def __init__(self, cfg: ModelConfig, moe: MoeConfig, *, rngs: nnx.Rngs):
        shape = (cfg.embed_dim, moe.num_experts)
        init = nnx.initializers.normal(kernel_std(cfg, "embed", is_output=True))
        self.kernel = param(rngs, shape, axes=("embed", None), init=init)
        # Moved after every step by the load, never by a gradient: see `balanced`.
        self.choice_bias = (
            param(rngs, shape[1:], axes=(None,), init=nnx.initializers.zeros_init())
            if isinstance(moe.balance, BiasConfig)
            else None
        )
        self.moe = moe

    def __call__(
        self, x_BTD: Float[Array, "B T D"], is_real_BT: Array
    ) -> tuple[Choice, Routing]:
        """The choice for every token, and its sums over the tokens that are real."""
        moe = self.moe
        logits_BTE = linear_to_float32(x_BTD, self.kernel, 0)
        if moe.score == "softmax":
            scores_BTE = jax.nn.softmax(logits_BTE, axis=-1)
        else:
            scores_BTE = jax.nn.sigmoid(logits_BTE)
        ranked_BTE = jax.lax.stop_gradient(scores_BTE)
        if self.choice_bias is not None:
            bias_E = jax.lax.stop_gradient(self.choice_bias[...])
            ranked_BTE = ranked_BTE + bias_E[None, None]
        if moe.num_groups > 1:
            ranked_BTE = self._within_groups(ranked_BTE)
        _, experts_BTk = jax.lax.top_k(ranked_BTE, moe.experts_per_token)
        weights_BTk = jnp.take_along_axis(scores_BTE, experts_BTk, axis=-1)
        if moe.normalize:
            total_BT1 = jnp.sum(weights_BTk, axis=-1, keepdims=True)
            weights_BTk = weights_BTk / (total_BT1 + 1e-20)
        choice = Choice(experts_BTk, weights_BTk * moe.weight_scale)
        return choice, self._routing(scores_BTE, experts_BTk, is_real_BT)

    def _within_groups(self, ranked_BTE: Array) -> Array:
        """Scores outside the best groups become -inf; a group's is its best two's sum."""
        moe, shape = self.moe, ranked_BTE.shape
        groups = ranked_BTE.reshape(*shape[:2], moe.num_groups, -1)
        best, _ = jax.lax.top_k(groups, min(2, groups.shape[-1]))
        _, chosen = jax.lax.top_k(jnp.sum(best, axis=-1), moe.groups_per_token)
        is_in = jnp.any(jax.nn.one_hot(chosen, moe.num_groups, dtype=bool), axis=-2)
        return jnp.where(is_in[..., None], groups, -jnp.inf).reshape(shape)

    def _routing(
        self, scores_BTE: Array, experts_BTk: Array, is_real_BT: Array
    ) -> Routing:
        E, k = self.moe.num_experts, self.moe.experts_per_token
        real_BT1 = is_real_BT[..., None].astype(jnp.float32)
        sent_BTE = jnp.sum(jax.nn.one_hot(experts_BTk, E), axis=2) * real_BT1
        sent_BE = jnp.sum(sent_BTE, axis=1)
        tokens_B1 = jnp.maximum(jnp.sum(real_BT1, axis=1), 1.0)
        share_BTE = scores_BTE / jnp.sum(scores_BTE, axis=-1, keepdims=True)
        share_BE = jnp.sum(share_BTE * real_BT1, axis=1) / tokens_B1
        # Row by row, weighted by tokens: linear in the rows, so that accumulated
        # gradients equal the big batch's. 1 where the load is even.
        uneven_B = E * jnp.sum(sent_BE / (k * tokens_B1) * share_BE, axis=-1)
        return Routing(
            balance=jnp.sum(uneven_B * jnp.sum(real_BT1, axis=(1, 2))),
            load_E=jnp.sum(sent_BE, axis=0),
        )


class MoeMlp(nnx.Module):
    """sum over the chosen experts of weight * expert(x), plus the shared expert."""

    def __init__(self, cfg: ModelConfig, moe: MoeConfig, *, rngs: nnx.Rngs):
        E, D, F = moe.num_experts, cfg.embed_dim, moe.dim
        self.router = Router(cfg, moe, rngs=rngs)
        into, out = (
            ("experts", "expert_embed", "mlp"),
            ("experts", "mlp", "expert_embed"),
        )
        self.gate = param(rngs, (E, D, F), axes=into, init=kernel_normal(cfg))
        self.up = param(rngs, (E, D, F), axes=into, init=kernel_normal(cfg))
        self.down = param(rngs, (E, F, D), axes=out, init=residual_normal(cfg, "mlp"))
        shared = MlpConfig(
            kind=moe.activation, dim=moe.num_shared_experts * moe.dim or 1
        )
        self.shared = (
            GatedMlp(cfg, shared, rngs=rngs) if moe.num_shared_experts else None
        )
        self.act = silu if moe.activation == "swiglu" else gelu
        self.dispatch = moe.dispatch

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        segment_ids_BT: Int[Array, "B T"] | None,
        *,
        is_decode: bool = False,
    ) -> tuple[Float[Array, "B T D"], Routing]:
        """Segment 0 is padding: it is routed, but counts in no sum.

        While decoding every token is served: a capacity would be shared with padding,
        and a token that comes alone has no row to share it with.
        """
        is_real_BT = (
            jnp.ones(x_BTD.shape[:2], bool)
            if segment_ids_BT is None
            else segment_ids_BT > 0
        )
        choice, routing = self.router(x_BTD, is_real_BT)
        kernels = tuple(
            expert_kernel(value_of(w), x_BTD.dtype)
            for w in (self.gate, self.up, self.down)
        )
        if isinstance(self.dispatch, CapacityConfig) and not is_decode:
            y_BTD = moe_capacity.experts(
                x_BTD, *choice, *kernels, act=self.act, factor=self.dispatch.factor
            )
        else:
            y_BTD = moe_dropless.experts(x_BTD, *choice, *kernels, act=self.act)
        if self.shared is not None:
            shared_BTD = self.shared(x_BTD)
            y_BTD = shard(y_BTD, "batch", "act_length", "act_embed") + shard(
                shared_BTD, "batch", "act_length", "act_embed"
            )
        return y_BTD, routing


def balance_weight(cfg: ModelConfig) -> float:
    """What `Routing.balance` counts in the loss."""
    balance = cfg.mlp.balance if isinstance(cfg.mlp, MoeConfig) else None
    if isinstance(balance, AuxLossConfig):
        return balance.weight
    return balance.loss_weight if isinstance(balance, BiasConfig) else 0.0
