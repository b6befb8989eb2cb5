# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""config.json of every family <-> ModelConfig, from one table of fields.

A field that is ours under another name stands in `fields`; one that we support at some
values only in `fixed`; whatever is said in another way is a `Part`. That nothing is
lost on the way out is checked by reading back what was written.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from podium.config_dict import from_json_dict, to_json_dict
from podium.config_model import (
    AttentionConfig,
    BiasConfig,
    LatentAttentionConfig,
    LayerNormConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RMSNormConfig,
)
from podium.config_positions import LearnedPositionConfig
from podium.errors import ConfigError
from podium.models.width import Ratios, ratios
from podium.pretrained import config_parts as parts
from podium.pretrained.config_parts import Part
from podium.pretrained.fields import Fields, Tree
from podium.resume import differences


class Family(NamedTuple):
    """What config.json of one `model_type` says, in our words."""

    architecture: str
    base: ModelConfig  # what all models of the family have in common
    fields: dict[str, str]  # theirs -> ours, dotted; several with spaces
    parts: tuple[Part, ...]
    defaults: Mapping[str, Any] = MappingProxyType({})  # of fields that may be left out
    # What we support; may be left out; the first is written.
    fixed: Mapping[str, tuple] = MappingProxyType({})


_COMMON = {
    "vocab_size": "vocab_size",
    "hidden_size": "embed_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "attention.num_heads",
    "tie_word_embeddings": "tie_embeddings",
}
_DENSE = {**_COMMON, "intermediate_size": "mlp.dim", "rms_norm_eps": "norm.eps"}
_QK_NORM = {"rms_norm_eps": "norm.eps attention.qk_norm.eps"}
_UNTIED, _TIED = {"tie_word_embeddings": False}, {"tie_word_embeddings": True}
_SILU = {"hidden_act": ("silu",)}
_LLAMA_PARTS = (parts.KV_HEADS, parts.HEAD_DIM, parts.ROPE)

_PLAIN = ModelConfig(tie_embeddings=False)
_BIASED = dataclasses.replace(_PLAIN, attention=AttentionConfig(use_qkv_bias=True))
_NORMED = dataclasses.replace(
    _PLAIN, attention=AttentionConfig(qk_norm=RMSNormConfig())
)
_GEMMA_NORM = RMSNormConfig(scale_offset=1.0)
_GEMMA_2 = ModelConfig(
    norm=_GEMMA_NORM,
    norm_placement="pre_and_post",
    mlp=MlpConfig(kind="geglu"),
    embed_scale="sqrt_dim",
)
_GEMMA_3 = dataclasses.replace(_GEMMA_2, attention=AttentionConfig(qk_norm=_GEMMA_NORM))
_GPT2 = ModelConfig(
    position=LearnedPositionConfig(),
    norm=LayerNormConfig(),
    attention=AttentionConfig(use_qkv_bias=True, use_out_bias=True),
    mlp=MlpConfig(kind="gelu", use_bias=True),
)
_DEEPSEEK_V2 = dataclasses.replace(
    _PLAIN,
    attention=LatentAttentionConfig(),
    mlp=MoeConfig(normalize=False, experts_per_token=1, num_experts=1),
)
_DEEPSEEK_V3 = dataclasses.replace(
    _DEEPSEEK_V2,
    mlp=MoeConfig(
        score="sigmoid",
        balance=BiasConfig(loss_weight=1e-4),
        experts_per_token=1,
        num_experts=1,
    ),
)
_GEMMA = {
    **_DENSE,
    "attn_logit_softcapping": "attention.soft_cap",
    "final_logit_softcapping": "final_soft_cap",
}
_GEMMA_FIXED = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "hidden_act": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
}
_MOE = {
    **_COMMON,
    "rms_norm_eps": "norm.eps",
    "num_experts_per_tok": "mlp.experts_per_token",
    "router_aux_loss_coef": "mlp.balance.weight",
}
_DEEPSEEK = {
    **_COMMON,
    "rms_norm_eps": "norm.eps",
    "q_lora_rank": "attention.q_lora_rank",
    "kv_lora_rank": "attention.kv_lora_rank",
    "qk_nope_head_dim": "attention.qk_nope_head_dim",
    "qk_rope_head_dim": "attention.qk_rope_head_dim",
    "v_head_dim": "attention.v_head_dim",
    "num_experts_per_tok": "mlp.experts_per_token",
    "n_routed_experts": "mlp.num_experts",
    "moe_intermediate_size": "mlp.dim",
    "routed_scaling_factor": "mlp.weight_scale",
}
_DEEPSEEK_FIXED = {
    **_SILU,
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "moe_layer_freq": (1,),
}

FAMILIES = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        _GPT2,
        {
            "vocab_size": "vocab_size",
            "n_embd": "embed_dim",
            "n_layer": "num_layers",
            "n_head": "attention.num_heads",
            "n_positions": "position.max_tokens",
            "layer_norm_epsilon": "norm.eps",
            "tie_word_embeddings": "tie_embeddings",
        },
        (parts.GPT2_SIZES,),
        {**_TIED, "layer_norm_epsilon": 1e-5},
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
    ),
    "llama": Family(
        "LlamaForCausalLM",
        _PLAIN,
        {
            **_DENSE,
            "attention_bias": "attention.use_qkv_bias attention.use_out_bias",
            "mlp_bias": "mlp.use_bias",
        },
        _LLAMA_PARTS,
        {**_UNTIED, "attention_bias": False, "mlp_bias": False},
        _SILU,
    ),
    "mistral": Family(
        "MistralForCausalLM",
        _PLAIN,
        _DENSE,
        (*_LLAMA_PARTS, parts.ONE_WINDOW),
        _UNTIED,
        _SILU,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _BIASED,
        _DENSE,
        (*_LLAMA_PARTS, parts.QWEN_WINDOWS),
        _UNTIED,
        _SILU,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _NORMED,
        {**_DENSE, **_QK_NORM},
        (*_LLAMA_PARTS, parts.QWEN_WINDOWS),
        _UNTIED,
        {**_SILU, "attention_bias": (False,)},
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        _GEMMA_2,
        _GEMMA,
        (*_LLAMA_PARTS, parts.QUERY_SCALE, parts.GEMMA_2_WINDOWS),
        _TIED,
        _GEMMA_FIXED,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        _GEMMA_3,
        {**_GEMMA, **_QK_NORM},
        (
            parts.KV_HEADS,
            parts.HEAD_DIM,
            parts.ROPE_AND_LOCAL,
            parts.QUERY_SCALE,
            parts.GEMMA_3_WINDOWS,
        ),
        {**_TIED, "attn_logit_softcapping": None, "final_logit_softcapping": None},
        {**_GEMMA_FIXED, "use_bidirectional_attention": (False,)},
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        dataclasses.replace(_PLAIN, mlp=MoeConfig()),
        {**_MOE, "intermediate_size": "mlp.dim"},
        (*_LLAMA_PARTS, parts.ONE_WINDOW, parts.MIXTRAL_EXPERTS),
        {**_UNTIED, "router_aux_loss_coef": 0.001},
        _SILU,
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        dataclasses.replace(_NORMED, mlp=MoeConfig()),
        {
            **_MOE,
            **_QK_NORM,
            "moe_intermediate_size": "mlp.dim",
            "norm_topk_prob": "mlp.normalize",
        },
        (*_LLAMA_PARTS, parts.QWEN_MOE, parts.QWEN_EXPERTS),
        {**_UNTIED, "router_aux_loss_coef": 0.001},
        {
            **_SILU,
            "attention_bias": (False,),
            "decoder_sparse_step": (1,),
            "mlp_only_layers": ([],),
            "use_sliding_window": (False,),
        },
    ),
    "deepseek_v3": Family(
        "DeepseekV3ForCausalLM",
        _DEEPSEEK_V3,
        {
            **_DEEPSEEK,
            "norm_topk_prob": "mlp.normalize",
            "n_group": "mlp.num_groups",
            "topk_group": "mlp.groups_per_token",
        },
        (parts.ROPE, parts.DEEPSEEK),
        _UNTIED,
        {
            **_DEEPSEEK_FIXED,
            "scoring_func": ("sigmoid",),
            "topk_method": ("noaux_tc",),
            "rope_interleave": (True,),
        },
    ),
    "deepseek_v2": Family(
        "DeepseekV2ForCausalLM",
        _DEEPSEEK_V2,
        {**_DEEPSEEK, "aux_loss_alpha": "mlp.balance.weight"},
        (parts.ROPE, parts.DEEPSEEK, parts.GREEDY),
        {**_UNTIED, "aux_loss_alpha": 0.001},
        {
            **_DEEPSEEK_FIXED,
            "scoring_func": ("softmax",),
            "topk_method": ("greedy",),
            "norm_topk_prob": (False,),
        },
    ),
}
# Settings that no forward pass in float32 depends on.
_OURS_ALONE = ("dtype", "quantization", "remat", "layer_loop", "pipeline", "init_std")


def read_config(tree: Tree) -> tuple[str, ModelConfig]:
    """The family's name and the model that a config.json describes.

    Raises ConfigError for a family, a field or a value that we do not support.
    """
    name = tree.get("model_type")
    if name not in FAMILIES:
        raise ConfigError(
            f"config.json: 'model_type' is {name!r}, which is not supported; supported: "
            f"{', '.join(FAMILIES)}"
        )
    family, f = FAMILIES[name], Fields(tree, name)
    if method := (tree.get("quantization_config") or {}).get("quant_method", ""):
        raise ConfigError(
            f"config.json: 'quantization_config' says that the weights are {method}; "
            "they are imported from float32, bfloat16 or float16 only"
        )
    out = to_json_dict(family.base)
    for theirs, ours in family.fields.items():
        given = (family.defaults[theirs],) if theirs in family.defaults else ()
        value = f.take(theirs, *given)
        for path in ours.split():
            _put(out, path, value)
    for theirs, allowed in family.fixed.items():
        f.only(theirs, *allowed, default=None)
    for part in family.parts:
        part.read(f, out)
    f.done()
    try:
        return name, from_json_dict(ModelConfig, out)
    except ConfigError as error:
        raise ConfigError(f"config.json: {error}") from error


def write_config(cfg: ModelConfig, max_tokens: int, like: str | None = None) -> Tree:
    """The config.json of a model, of family `like` or the first that has all its parts.

    Args:
        cfg: the model.
        max_tokens: of a row, for `max_position_embeddings` where nothing else says it.
        like: "llama", say. None: any.

    Raises ConfigError, naming the part, where no family has them.
    """
    wrong: dict[str, list[str]] = {}
    for name in FAMILIES if like is None else (like,):
        tree, missed = _written(cfg, name)
        if not missed:
            if "rope_theta" in tree:
                tree["max_position_embeddings"] = max_tokens
            return tree
        wrong[name] = list(dict.fromkeys(missed))  # of several layers, once
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    raise ConfigError(
        f"no family of transformers has all parts of this model; {nearest} is nearest, "
        f"but for {'; '.join(wrong[nearest][:4])}"
    )


def _written(cfg: ModelConfig, name: str) -> tuple[Tree, list[str]]:
    """A config.json, and what of the model it does not say."""
    family, ours = FAMILIES[name], to_json_dict(cfg)
    kinds = [
        f"model.{part}.kind is {kind!r}"
        for part in ("position", "norm", "attention", "mlp")
        if (kind := ours[part]["kind"]) != to_json_dict(family.base)[part]["kind"]
    ]
    if kinds:
        return {}, kinds * 5  # farther than any number of other settings
    tree: Tree = {}
    for theirs, path in family.fields.items():
        with contextlib.suppress(TypeError):  # inside a part that is None
            tree[theirs] = _get(ours, path)
    for part in family.parts:
        tree |= part.write(ours)
    tree |= {theirs: allowed[0] for theirs, allowed in family.fixed.items()}
    tree = {"architectures": [family.architecture], "model_type": name, **tree}
    try:
        _, again = read_config(tree)
    except ConfigError as error:
        return {}, [str(error)]
    found = differences(comparable(again), comparable(cfg))
    return tree, [
        f"model.{key} is {there!r}, not {here!r}" for key, here, there in found
    ]


def fields_of(name: str) -> set[str]:
    """Every field of config.json that `write_config` decides on."""
    family = FAMILIES[name]
    names = {*family.fields, *family.fixed, "architectures", "model_type"}
    return names.union(*(part.names for part in family.parts))


def comparable(cfg: ModelConfig) -> Tree:
    """The settings on which logits in float32 depend, written in one way only."""
    tree = {k: v for k, v in to_json_dict(cfg).items() if k not in _OURS_ALONE}
    del tree["vocab_multiple"]
    if ratios(cfg) == Ratios():  # at the base it changes nothing
        tree["width_transfer"] = None
    attention, mlp = tree["attention"], tree["mlp"]
    for key in ("implementation", "context"):
        del attention[key]
    if "pattern" in attention:
        attention["pattern"] = parts.layer_kinds(tree)
        attention["query_scale"] = attention["query_scale"] or (
            attention["head_dim"] ** -0.5
        )
    if mlp["kind"] == "moe":
        del mlp["dispatch"]
        mlp["balance"] = bool(mlp["balance"] and mlp["balance"]["kind"] == "bias")
    if (rope := tree["position"])["kind"] == "rope" and rope["local_theta"] is None:
        rope["local_theta"] = rope["theta"]
    return tree


def _put(tree: Tree, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    functools.reduce(dict.__getitem__, parents, tree)[last] = value


def _get(tree: Tree, paths: str) -> Any:
    return functools.reduce(lambda at, key: at[key], paths.split()[0].split("."), tree)
