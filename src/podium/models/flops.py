# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters and floating-point operations of a model, in closed form, without jax.

Convention, as for the MFU in PaLM (arXiv:2204.02311, appendix B), with attention
counted for the pairs that causality and windows leave:

- a multiply-add is 2 operations; only matmuls count, not norms, softmax, RoPE,
  activations, or the embedding lookup (which reads a row and multiplies nothing);
- a forward pass takes 2 per matmul parameter and token (the output head included,
  also when it is the embedding transposed), plus 4 * H * N per visible (query, key)
  pair: scores and weighted values. In a row of T tokens a global layer sees
  T * (T + 1) / 2 pairs, so about half of the full square;
- a training step takes 3 forward passes. Recomputation under remat does not count:
  this is the work the model needs, not the work a policy adds.

Packing several documents into a row leaves fewer pairs still; that is not counted, so
that the figure depends on the configuration alone.
"""

import dataclasses

from podium.config_model import (
    BiasConfig,
    LayerNormConfig,
    LearnedPositionConfig,
    ModelConfig,
    MoeConfig,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParamCounts:
    """Parameters of each part, all layers together."""

    embedding: int  # token table and learned positions
    attention: int  # projections, biases, QK norms
    mlp: int
    norms: int  # over the residual stream
    head: int  # 0 when tied to the embedding

    @property
    def total(self) -> int:
        """Every parameter, each once."""
        return sum(dataclasses.asdict(self).values())


def count_params(cfg: ModelConfig) -> ParamCounts:
    """Parameters by part; the total is exactly what `init_params` makes."""
    a, D, L = cfg.attention, cfg.embed_dim, cfg.num_layers
    N, K, H = a.num_heads, a.num_kv_heads, a.head_dim
    position = cfg.position
    positions = (
        position.max_tokens * D if isinstance(position, LearnedPositionConfig) else 0
    )
    attention = D * H * (2 * N + 2 * K)
    attention += H * (N + 2 * K) if a.use_qkv_bias else 0
    attention += D if a.use_out_bias else 0
    attention += 2 * H if a.qk_norm is not None else 0
    has_norm_bias = isinstance(cfg.norm, LayerNormConfig) and cfg.norm.use_bias
    norms_per_block = 4 if cfg.norm_placement == "pre_and_post" else 2
    return ParamCounts(
        embedding=cfg.vocab_rows * D + positions,
        attention=L * attention,
        mlp=L * _mlp_params(cfg),
        norms=(L * norms_per_block + 1) * D * (2 if has_norm_bias else 1),
        head=0 if cfg.tie_embeddings else cfg.vocab_rows * D,
    )


def _mlp_params(cfg: ModelConfig) -> int:
    D = cfg.embed_dim
    if isinstance(cfg.mlp, MoeConfig):
        moe = cfg.mlp
        router = moe.num_experts * (D + isinstance(moe.balance, BiasConfig))
        return 3 * D * moe.dim * (moe.num_experts + moe.num_shared_experts) + router
    F, kernels = cfg.mlp.dim, 2 if cfg.mlp.kind == "gelu" else 3
    return kernels * D * F + ((kernels - 1) * F + D if cfg.mlp.use_bias else 0)


def param_count(cfg: ModelConfig) -> int:
    """Number of parameters."""
    return count_params(cfg).total


def matmul_params(cfg: ModelConfig) -> int:
    """Parameters that every token is multiplied with, the output head included.

    Of experts those that a token visits, and the router.
    """
    a, D, H = cfg.attention, cfg.embed_dim, cfg.attention.head_dim
    block = D * H * (2 * a.num_heads + 2 * a.num_kv_heads)
    if isinstance(cfg.mlp, MoeConfig):
        visited = cfg.mlp.experts_per_token + cfg.mlp.num_shared_experts
        block += 3 * D * cfg.mlp.dim * visited + D * cfg.mlp.num_experts
    else:
        block += (2 if cfg.mlp.kind == "gelu" else 3) * D * cfg.mlp.dim
    return cfg.num_layers * block + cfg.vocab_size * D


def visible_pairs(seq_len: int, window: int | None) -> int:
    """(query, key) pairs of a causal row; a query sees `window` keys, itself included."""
    if window is None or window >= seq_len:
        return seq_len * (seq_len + 1) // 2
    return window * (window + 1) // 2 + (seq_len - window) * window


def attention_flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Forward operations of scores and weighted values, all layers, mean over a row."""
    a = cfg.attention
    pairs = 0
    for layer in range(cfg.num_layers):
        is_local = a.pattern[layer % len(a.pattern)] == "local"
        pairs += visible_pairs(seq_len, a.window_tokens if is_local else None)
    return 4.0 * a.head_dim * a.num_heads * pairs / seq_len


def forward_flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Operations of a forward pass, mean over the tokens of a row of `seq_len`."""
    return 2.0 * matmul_params(cfg) + attention_flops_per_token(cfg, seq_len)


def train_flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Operations of a training step per token: forward, and twice that backward."""
    return 3.0 * forward_flops_per_token(cfg, seq_len)


def decode_flops_per_token(cfg: ModelConfig, context_tokens: int) -> float:
    """Operations to generate one token that sees `context_tokens`, itself included."""
    a = cfg.attention
    pairs = 0
    for layer in range(cfg.num_layers):
        is_local = a.pattern[layer % len(a.pattern)] == "local"
        window = a.window_tokens if is_local else None
        pairs += context_tokens if window is None else min(window, context_tokens)
    return 2.0 * matmul_params(cfg) + 4.0 * a.head_dim * a.num_heads * pairs
