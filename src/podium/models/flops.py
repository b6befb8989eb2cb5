# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters and floating-point operations of a model, in closed form, without jax.

Convention, as for the MFU in PaLM (arXiv:2204.02311, appendix B), with attention
counted for the pairs that causality and windows leave:

- a multiply-add is 2 operations; only matmuls count, not norms, softmax, RoPE,
  activations, or the embedding lookup (which reads a row and multiplies nothing);
- a forward pass takes 2 per matmul parameter and token (the output head included,
  also when it is the embedding transposed), plus 2 * (H + U) * N per visible (query,
  key) pair: scores over a head's H channels, values of U (as many, but in latent
  attention). In a row of T tokens a global layer sees
  T * (T + 1) / 2 pairs, so about half of the full square;
- a training step takes 3 forward passes. Recomputation under remat does not count:
  this is the work the model needs, not the work a policy adds.

Packing several documents into a row leaves fewer pairs still; that is not counted, so
that the figure depends on the configuration alone.
"""

import dataclasses

from podium.config_model import (
    AttentionConfig,
    BiasConfig,
    LatentAttentionConfig,
    LayerNormConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
)
from podium.config_positions import LearnedPositionConfig


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
    D, L = cfg.embed_dim, cfg.num_layers
    position = cfg.position
    positions = (
        position.max_tokens * D if isinstance(position, LearnedPositionConfig) else 0
    )
    has_norm_bias = isinstance(cfg.norm, LayerNormConfig) and cfg.norm.use_bias
    norms_per_block = 4 if cfg.norm_placement == "pre_and_post" else 2
    return ParamCounts(
        embedding=cfg.vocab_rows * D + positions,
        attention=L * (_attention_matmuls(cfg) + _attention_vectors(cfg)),
        mlp=sum(layers * _mlp_params(mlp, D) for mlp, layers in _mlps(cfg)),
        norms=(L * norms_per_block + 1) * D * (2 if has_norm_bias else 1),
        head=0 if cfg.tie_embeddings else cfg.vocab_rows * D,
    )


def _attention_matmuls(cfg: ModelConfig) -> int:
    """Parameters of one layer's projections."""
    a, D, N, H = cfg.attention, cfg.embed_dim, cfg.attention.num_heads, _H(cfg)
    if isinstance(a, AttentionConfig):
        return D * H * (2 * N + 2 * a.num_kv_heads)
    C, Q = a.kv_lora_rank, a.q_lora_rank
    queries = D * N * H if Q is None else Q * (D + N * H)
    kv_down = D * (C + a.qk_rope_head_dim)
    return queries + kv_down + N * C * (a.qk_nope_head_dim + _U(cfg)) + N * _U(cfg) * D


def _attention_vectors(cfg: ModelConfig) -> int:
    """Parameters of one layer's biases and norms inside attention."""
    a = cfg.attention
    if isinstance(a, LatentAttentionConfig):
        return a.kv_lora_rank + (a.q_lora_rank or 0)
    biases = a.head_dim * (a.num_heads + 2 * a.num_kv_heads) if a.use_qkv_bias else 0
    biases += cfg.embed_dim if a.use_out_bias else 0
    return biases + (2 * a.head_dim if a.qk_norm is not None else 0)


def _H(cfg: ModelConfig) -> int:
    return cfg.attention.head_dim


def _U(cfg: ModelConfig) -> int:
    a = cfg.attention
    return a.v_head_dim if isinstance(a, LatentAttentionConfig) else a.head_dim


def _mlps(cfg: ModelConfig) -> list[tuple[MlpConfig | MoeConfig, int]]:
    """Every MLP part and the number of its layers."""
    prefix = cfg.dense_prefix
    if prefix is None:
        return [(cfg.mlp, cfg.num_layers)]
    rest = cfg.num_layers - prefix.num_layers
    return [(prefix.mlp, prefix.num_layers), (cfg.mlp, rest)]


def _mlp_params(mlp: MlpConfig | MoeConfig, D: int) -> int:
    if isinstance(mlp, MoeConfig):
        router = mlp.num_experts * (D + isinstance(mlp.balance, BiasConfig))
        return 3 * D * mlp.dim * (mlp.num_experts + mlp.num_shared_experts) + router
    F, kernels = mlp.dim, 2 if mlp.kind == "gelu" else 3
    return kernels * D * F + ((kernels - 1) * F + D if mlp.use_bias else 0)


def _mlp_matmuls(mlp: MlpConfig | MoeConfig, D: int) -> int:
    """Of experts those that a token visits, and the router."""
    if isinstance(mlp, MoeConfig):
        visited = mlp.experts_per_token + mlp.num_shared_experts
        return 3 * D * mlp.dim * visited + D * mlp.num_experts
    return (2 if mlp.kind == "gelu" else 3) * D * mlp.dim


def param_count(cfg: ModelConfig) -> int:
    """Number of parameters."""
    return count_params(cfg).total


def active_param_count(cfg: ModelConfig) -> int:
    """Parameters that serve one token: all but the experts that it does not visit."""
    idle = sum(
        layers * 3 * cfg.embed_dim * mlp.dim * (mlp.num_experts - mlp.experts_per_token)
        for mlp, layers in _mlps(cfg)
        if isinstance(mlp, MoeConfig)
    )
    return param_count(cfg) - idle


def matmul_params(cfg: ModelConfig) -> int:
    """Parameters that every token is multiplied with, the output head included.

    Of experts those that a token visits, and the router.
    """
    D = cfg.embed_dim
    mlps = sum(layers * _mlp_matmuls(mlp, D) for mlp, layers in _mlps(cfg))
    return cfg.num_layers * _attention_matmuls(cfg) + mlps + cfg.vocab_size * D


def visible_pairs(seq_len: int, window: int | None) -> int:
    """(query, key) pairs of a causal row; a query sees `window` keys, itself included."""
    if window is None or window >= seq_len:
        return seq_len * (seq_len + 1) // 2
    return window * (window + 1) // 2 + (seq_len - window) * window


def attention_flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Forward operations of scores and weighted values, all layers, mean over a row."""
    a = cfg.attention
    pairs = 0
    for first, kind in enumerate(a.pattern):
        layers = len(range(first, cfg.num_layers, len(a.pattern)))
        window = a.window_tokens if kind == "local" else None
        pairs += layers * visible_pairs(seq_len, window)
    return 2.0 * (_H(cfg) + _U(cfg)) * a.num_heads * pairs / seq_len


def forward_flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Operations of a forward pass, mean over the tokens of a row of `seq_len`."""
    return 2.0 * matmul_params(cfg) + attention_flops_per_token(cfg, seq_len)


def train_flops_per_token(
    cfg: ModelConfig, seq_len: int, *, is_frozen: bool = False
) -> float:
    """Operations of a training step per token: forward, and twice that backward.

    Frozen weights, below adapters, have no gradient: one forward pass of theirs less. The
    adapters' own operations, a few in a thousand, do not count.
    """
    whole = 3.0 * forward_flops_per_token(cfg, seq_len)
    return whole - 2.0 * matmul_params(cfg) if is_frozen else whole


def decode_flops_per_token(cfg: ModelConfig, context_tokens: int) -> float:
    """Operations to generate one token that sees `context_tokens`, itself included.

    Latent attention reads its cache as it is: scores over latent and RoPE channels,
    values of the latent's; the projections are as many as in a forward pass.
    """
    a = cfg.attention
    pairs = 0
    for layer in range(cfg.num_layers):
        is_local = a.pattern[layer % len(a.pattern)] == "local"
        window = a.window_tokens if is_local else None
        pairs += context_tokens if window is None else min(window, context_tokens)
    channels = 2 * _H(cfg)
    if isinstance(a, LatentAttentionConfig):
        channels = 2 * a.kv_lora_rank + a.qk_rope_head_dim
    return 2.0 * matmul_params(cfg) + 2.0 * channels * a.num_heads * pairs
