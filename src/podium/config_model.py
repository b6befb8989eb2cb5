# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The settings of a model: its parts, each a class of its own, and their sizes."""

import dataclasses
from typing import Literal, NamedTuple

from podium.config_positions import LearnedPositionConfig, RopeConfig
from podium.config_quantization import Fp8Config, Int8Config
from podium.config_remat import check_remat
from podium.config_setting import setting
from podium.config_width import MupConfig
from podium.errors import ConfigError

Dtype = Literal["float32", "bfloat16"]
AttentionName = Literal["auto", "xla", "cudnn", "splash"]
ContextName = Literal["ring", "all_to_all"]

_CONTEXT = (
    "how devices share a row under mesh.context: keys go round, or heads change "
    "places (needs num_heads to divide by context * tensor)"
)
_IMPLEMENTATION = "auto: the fastest that supports this model on this platform"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSNormConfig:
    """x / rms(x) * (scale + scale_offset). arXiv:1910.07467; Gemma offsets by 1."""

    kind: Literal["rmsnorm"] = "rmsnorm"
    eps: float = setting(1e-6, "added to the mean square", low=0.0)
    scale_offset: float = setting(0.0, "added to the learned scale (Gemma: 1.0)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerNormConfig:
    """(x - mean) / std * scale + bias. arXiv:1607.06450."""

    kind: Literal["layernorm"] = "layernorm"
    eps: float = setting(1e-5, "added to the variance", low=0.0)
    use_bias: bool = setting(True, "learn the bias")


class Cached(NamedTuple):
    """An array that a token leaves in a layer's cache: its dims and their logical axes."""

    dims: tuple[int, ...]
    axes: tuple[str | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Grouped-query attention (arXiv:2305.13245)."""

    kind: Literal["grouped"] = "grouped"
    num_heads: int = setting(6, "query heads", low=1)
    num_kv_heads: int = setting(6, "key and value heads; divides num_heads", low=1)
    head_dim: int = setting(64, "channels per head; even under RoPE", low=1)
    use_qkv_bias: bool = setting(False, "bias on q, k, v (Qwen 2, GPT-2)")
    use_out_bias: bool = setting(False, "bias on the output projection (GPT-2)")
    qk_norm: RMSNormConfig | None = setting(
        None, "norm over each head of q and k, before RoPE (Qwen 3, Gemma 3)"
    )
    soft_cap: float | None = setting(
        None, "scores become cap * tanh(scores / cap) (Gemma 2)", above=0.0
    )
    query_scale: float | None = setting(
        None, "q is multiplied by this; None: head_dim ** -0.5", above=0.0
    )
    pattern: tuple[Literal["global", "local"], ...] = setting(
        ("global",), "repeats over the layers; local layers see window_tokens back"
    )
    window_tokens: int | None = setting(
        None, "tokens a local layer sees, itself included", unit="tokens", low=1
    )
    context: ContextName = setting("ring", _CONTEXT)
    implementation: AttentionName = setting("auto", _IMPLEMENTATION)

    @property
    def value_dim(self) -> int:
        """Channels of a value."""
        return self.head_dim

    @property
    def rope_dim(self) -> int:
        """Channels of a head that RoPE turns."""
        return self.head_dim

    @property
    def cached(self) -> tuple[Cached, ...]:
        """What a token leaves in the cache of a layer: its keys and its values."""
        dims = (self.num_kv_heads, self.head_dim)
        return (Cached(dims, ("kv_heads", "head_dim")),) * 2

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"model.attention.num_kv_heads ({self.num_kv_heads}) must divide "
                f"num_heads ({self.num_heads})"
            )
        if not self.pattern:
            raise ConfigError("model.attention.pattern is empty; use ('global',)")
        if ("local" in self.pattern) != (self.window_tokens is not None):
            raise ConfigError(
                f"model.attention.window_tokens is {self.window_tokens} but pattern is "
                f"{self.pattern}: local layers need a window, global ones take none"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentAttentionConfig:
    """Multi-head latent attention, MLA (arXiv:2405.04434, section 2.1).

    Sizes are named as in DeepSeek's config.json. Every layer is global.
    """

    kind: Literal["latent"] = "latent"
    num_heads: int = setting(6, "heads, of queries, keys and values alike", low=1)
    q_lora_rank: int | None = setting(
        None, "channels that a token's queries are compressed to; None: not", low=1
    )
    kv_lora_rank: int = setting(
        128, "channels that a token's keys and values are compressed to", low=1
    )
    qk_nope_head_dim: int = setting(64, "a query's channels without RoPE", low=1)
    qk_rope_head_dim: int = setting(
        32, "a query's channels under RoPE, which read one key for all heads", low=2
    )
    v_head_dim: int = setting(64, "channels of a value", low=1)
    norm: RMSNormConfig = setting(RMSNormConfig(), "norm over each compressed vector")
    context: ContextName = setting("ring", _CONTEXT)
    implementation: AttentionName = setting("auto", _IMPLEMENTATION)

    @property
    def head_dim(self) -> int:
        """Channels of a query and key, with and without RoPE."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def rope_dim(self) -> int:
        """Channels of a head that RoPE turns."""
        return self.qk_rope_head_dim

    @property
    def cached(self) -> tuple[Cached, ...]:
        """What a token leaves in the cache of a layer: the compressed vector of its
        keys and values, and the key under RoPE, which all heads read."""
        return (Cached((self.kv_lora_rank + self.qk_rope_head_dim,), (None,)),)

    @property
    def pattern(self) -> tuple[Literal["global", "local"], ...]:
        """As of grouped attention, where it repeats over the layers."""
        return ("global",)

    @property
    def window_tokens(self) -> None:
        """As of grouped attention: there are no local layers."""

    @property
    def soft_cap(self) -> None:
        """As of grouped attention: scores are not capped."""

    @property
    def num_kv_heads(self) -> int:
        """As of grouped attention, once keys and values are expanded."""
        return self.num_heads

    @property
    def value_dim(self) -> int:
        """Channels of a value."""
        return self.v_head_dim

    def __post_init__(self):
        if self.qk_rope_head_dim % 2:
            raise ConfigError(
                f"model.attention.qk_rope_head_dim ({self.qk_rope_head_dim}) must be even"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlpConfig:
    """swiglu, geglu: gated (arXiv:2002.05202); gelu: tanh form, not gated."""

    kind: Literal["swiglu", "geglu", "gelu"] = setting("swiglu", "the activation")
    dim: int = setting(1024, "hidden width F", low=1)
    use_bias: bool = setting(False, "bias on every projection (GPT-2)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DroplessConfig:
    """Every expert takes whatever it is sent: a grouped matmul (arXiv:2211.15841)."""

    kind: Literal["dropless"] = "dropless"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CapacityConfig:
    """An expert takes a fixed number of a row's tokens, the best scored (GShard,
    arXiv:2006.16668; priority arXiv:2106.05974); the rest pass it by."""

    kind: Literal["capacity"] = "capacity"
    factor: float = setting(1.25, "room over an even share", above=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxLossConfig:
    """num_experts * sum(load * probability) of each row is added to the loss
    (Switch, arXiv:2101.03961, eq. 4; by row, arXiv:2412.19437, eq. 17)."""

    kind: Literal["aux_loss"] = "aux_loss"
    weight: float = setting(1e-2, "of the added loss", low=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiasConfig:
    """A bias on the choice of experts, not on their weights, moves towards even load
    after every step (arXiv:2408.15664)."""

    kind: Literal["bias"] = "bias"
    update_rate: float = setting(1e-3, "change of the bias per step", low=0.0)
    loss_weight: float = setting(
        0.0, "of a loss beside, as aux_loss adds it (DeepSeek-V3: 1e-4)", low=0.0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoeConfig:
    """Experts of which a router chooses a few for every token (arXiv:1701.06538)."""

    kind: Literal["moe"] = "moe"
    num_experts: int = setting(8, "experts E in a layer", low=1)
    experts_per_token: int = setting(2, "experts that a token is sent to", low=1)
    dim: int = setting(1024, "hidden width F of an expert", low=1)
    activation: Literal["swiglu", "geglu"] = setting("swiglu", "of every expert")
    num_shared_experts: int = setting(
        0,
        "experts that every token visits, joined into one of that many times dim",
        low=0,
    )
    score: Literal["softmax", "sigmoid"] = setting("softmax", "of the router's logits")
    normalize: bool = setting(True, "the chosen experts' weights sum to 1")
    weight_scale: float = setting(1.0, "factor on the weights (DeepSeek-V3)", above=0.0)
    num_groups: int = setting(1, "groups of experts (DeepSeek-V3)", low=1)
    groups_per_token: int = setting(1, "groups a token may choose from", low=1)
    dispatch: DroplessConfig | CapacityConfig = setting(
        DroplessConfig(), "what happens when an expert is popular"
    )
    balance: AuxLossConfig | BiasConfig | None = setting(
        AuxLossConfig(), "what keeps the load even"
    )

    def __post_init__(self):
        per_group = self.num_experts // self.num_groups
        if self.num_experts % self.num_groups:
            raise ConfigError(
                f"model.mlp.num_groups ({self.num_groups}) must divide num_experts "
                f"({self.num_experts})"
            )
        if not self.groups_per_token <= self.num_groups:
            raise ConfigError(
                f"model.mlp.groups_per_token ({self.groups_per_token}) must be at most "
                f"num_groups ({self.num_groups})"
            )
        if self.experts_per_token > self.groups_per_token * per_group:
            raise ConfigError(
                f"model.mlp.experts_per_token ({self.experts_per_token}) is more than "
                f"the {self.groups_per_token * per_group} experts a token can choose from"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensePrefixConfig:
    """First layers with an MLP of their own, before the experts (DeepSeek)."""

    num_layers: int = setting(1, "how many; the model's num_layers counts them", low=1)
    mlp: MlpConfig = setting(MlpConfig(), "their MLP part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """How the layers' stack is shared under mesh.stage; see models/pipeline.py."""

    repeats: int = setting(
        1,
        "runs of layers that a stage holds: less idle time, more traffic. Weights are "
        "stored as [repeats, layers / repeats, ..] where above 1",
        low=1,
    )
    microbatches: int | None = setting(
        None,
        "parts of a batch that follow each other, a multiple of mesh.stage; None: 4 a "
        "stage, or as many as divide the batch",
        low=1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer, dense or with experts, made of the parts above."""

    vocab_size: int = setting(8192, "different tokens", unit="tokens", low=1)
    vocab_multiple: int = setting(
        1, "the embedding's rows are padded to a multiple, to split evenly", low=1
    )
    num_layers: int = setting(6, "blocks", low=1)
    embed_dim: int = setting(384, "model width D", low=1)
    position: RopeConfig | LearnedPositionConfig = setting(
        RopeConfig(), "how a token knows where it stands"
    )
    norm: RMSNormConfig | LayerNormConfig = setting(RMSNormConfig(), "every norm")
    norm_placement: Literal["pre", "pre_and_post"] = setting(
        "pre", "pre_and_post also normalises each branch's output (Gemma 2, 3)"
    )
    attention: AttentionConfig | LatentAttentionConfig = setting(
        AttentionConfig(), "the attention part"
    )
    mlp: MlpConfig | MoeConfig = setting(MlpConfig(), "the MLP part")
    dense_prefix: DensePrefixConfig | None = setting(
        None, "first layers with another MLP part"
    )
    pipeline: PipelineConfig = setting(PipelineConfig(), "the layers under mesh.stage")
    tie_embeddings: bool = setting(True, "the output head is the embedding transposed")
    embed_scale: Literal["none", "sqrt_dim"] = setting(
        "none", "sqrt_dim: embeddings times sqrt(embed_dim) (Gemma)"
    )
    final_soft_cap: float | None = setting(
        None, "logits become cap * tanh(logits / cap) (Gemma 2)", above=0.0
    )
    init_std: float = setting(0.02, "standard deviation of initial kernels", above=0.0)
    width_transfer: MupConfig | None = setting(
        None, "settings found on a narrow model hold at this width; None: they do not"
    )
    dtype: Dtype = setting("bfloat16", "compute type; parameters are float32")
    quantization: Int8Config | Fp8Config | None = setting(
        None, "projections that multiply eight-bit numbers; weights stay float32"
    )
    remat: str = setting(
        "none",
        "what the backward pass finds kept, the rest it computes again: none (all), full "
        "(block inputs), dots, qkv, or tensors; ':host' behind one keeps it there",
    )
    layer_loop: Literal["scan", "unroll"] = setting(
        "scan",
        "scan compiles one block however deep the model; unroll compiles them all",
    )

    @property
    def vocab_rows(self) -> int:
        """Rows of the embedding; those past vocab_size are never read or predicted."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    def __post_init__(self):
        is_rope, is_latent = (
            isinstance(self.position, RopeConfig),
            isinstance(self.attention, LatentAttentionConfig),
        )
        if is_rope and self.attention.rope_dim % 2:
            raise ConfigError(
                f"model.attention.head_dim ({self.attention.head_dim}) must be even "
                "under RoPE"
            )
        if is_latent and not is_rope:
            raise ConfigError(
                "model.attention.kind='latent' has channels for RoPE; it needs "
                f"model.position.kind='rope', not {self.position.kind!r}"
            )
        check_remat(self)
        self._check_quantization()
        self._check_width_transfer()
        repeats, (stacked, _) = self.pipeline.repeats, divmod(*self._depth())
        if stacked % repeats:
            raise ConfigError(
                f"model.pipeline.repeats ({repeats}) must divide the {stacked} repeating "
                "units of model.num_layers"
            )
        if self.dense_prefix is not None:
            self._check_prefix(self.dense_prefix.num_layers, self.attention.pattern)

    def _check_quantization(self) -> None:
        q, mlp = self.quantization, self.mlp
        if q is None or q.parts != ("mlp",) or not isinstance(mlp, MoeConfig):
            return
        if not mlp.num_shared_experts and self.dense_prefix is None:
            raise ConfigError(
                "model.quantization.parts is ('mlp',), but every MLP is experts, which "
                "are not quantised; add 'attention', or quantization=None"
            )

    def _check_width_transfer(self) -> None:
        mup, where = self.width_transfer, "model.width_transfer"
        if mup is None:
            return
        if isinstance(self.attention, LatentAttentionConfig):
            raise ConfigError(
                f"{where} has no rule for model.attention.kind='latent'; use 'grouped', "
                f"or {where}=None"
            )
        if "head" in mup.zero_init and self.tie_embeddings:
            raise ConfigError(
                f"{where}.zero_init has 'head', which under model.tie_embeddings is the "
                "embedding; leave it out, or tie_embeddings=False"
            )
        if "query" in mup.zero_init and self.attention.qk_norm is not None:
            raise ConfigError(
                f"{where}.zero_init has 'query', and model.attention.qk_norm cannot "
                "normalise zeros; leave it out"
            )

    def _depth(self) -> tuple[int, int]:
        """Layers behind the dense prefix, and how many of them repeat."""
        first = 0 if self.dense_prefix is None else self.dense_prefix.num_layers
        return self.num_layers - first, len(self.attention.pattern)

    def _check_prefix(self, num_layers: int, pattern: tuple[str, ...]) -> None:
        if num_layers >= self.num_layers:
            raise ConfigError(
                f"model.dense_prefix.num_layers ({num_layers}) must be below "
                f"model.num_layers ({self.num_layers}), which counts them"
            )
        if num_layers % len(pattern):
            raise ConfigError(
                f"model.dense_prefix.num_layers ({num_layers}) must be a multiple of the "
                f"{len(pattern)} layers of model.attention.pattern"
            )
