# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The families: whose tensors are called what, and lie how. See `rows.Row`.

Names and layouts are those of the files that `transformers` writes, nn.Linear as
[out, in]; config.json's side of a family is in `config_fields.py`.
"""

from podium.config_model import LatentAttentionConfig, ModelConfig
from podium.pretrained.rows import Row

_EMBEDDING = (
    Row("model.embed_tokens.weight", "embed/table", "V D -> V D"),
    Row("model.norm.weight", "final_norm/scale", "D -> D"),
    Row("lm_head.weight", "head", "V D -> D V"),
)
_ATTENTION = (
    Row("{at}.q_proj.weight", "attention/query", "(N H) D -> D N H"),
    Row("{at}.k_proj.weight", "attention/key", "(K H) D -> D K H"),
    Row("{at}.v_proj.weight", "attention/value", "(K H) D -> D K H"),
    Row("{at}.o_proj.weight", "attention/out", "D (N H) -> N H D"),
    Row("{at}.q_proj.bias", "attention/query_bias", "(N H) -> N H"),
    Row("{at}.k_proj.bias", "attention/key_bias", "(K H) -> K H"),
    Row("{at}.v_proj.bias", "attention/value_bias", "(K H) -> K H"),
    Row("{at}.o_proj.bias", "attention/out_bias", "D -> D"),
    Row("{at}.q_norm.weight", "attention/query_norm/scale", "H -> H"),
    Row("{at}.k_norm.weight", "attention/key_norm/scale", "H -> H"),
)
_LATENT = (
    Row("{at}.q_a_proj.weight", "attention/query_down", "Q D -> D Q"),
    Row("{at}.q_a_layernorm.weight", "attention/query_norm/scale", "Q -> Q"),
    Row(
        "{at}.kv_a_proj_with_mqa.weight",
        "attention/kv_down",
        "X D -> D X",
        neighbours="X",
    ),
    Row("{at}.kv_a_layernorm.weight", "attention/kv_norm/scale", "C -> C"),
    Row(
        "{at}.kv_b_proj.weight",
        "attention/key attention/value",
        "(N P) C -> C N P",
        joined="P",
    ),
    Row("{at}.o_proj.weight", "attention/out", "D (N U) -> N U D"),
)
_DIRECT_QUERY = Row(
    "{at}.q_proj.weight", "attention/query", "(N H) D -> D N H", neighbours="H"
)
_LATENT_QUERY = Row(
    "{at}.q_b_proj.weight", "attention/query", "(N H) Q -> Q N H", neighbours="H"
)
_NORMS = (
    Row("{l}.input_layernorm.weight", "attention_norm/scale", "D -> D"),
    Row("{l}.post_attention_layernorm.weight", "mlp_norm/scale", "D -> D"),
)
_FOUR_NORMS = (
    Row("{l}.input_layernorm.weight", "attention_norm/scale", "D -> D"),
    Row("{l}.post_attention_layernorm.weight", "attention_post_norm/scale", "D -> D"),
    Row("{l}.pre_feedforward_layernorm.weight", "mlp_norm/scale", "D -> D"),
    Row("{l}.post_feedforward_layernorm.weight", "mlp_post_norm/scale", "D -> D"),
)


def _gated(theirs: str, ours: str) -> tuple[Row, ...]:
    """A gated MLP, with biases where the model has them."""
    return (
        Row(f"{theirs}.gate_proj.weight", f"{ours}/gate", "F D -> D F"),
        Row(f"{theirs}.up_proj.weight", f"{ours}/up", "F D -> D F"),
        Row(f"{theirs}.down_proj.weight", f"{ours}/down", "D F -> F D"),
        Row(f"{theirs}.gate_proj.bias", f"{ours}/gate_bias", "F -> F"),
        Row(f"{theirs}.up_proj.bias", f"{ours}/up_bias", "F -> F"),
        Row(f"{theirs}.down_proj.bias", f"{ours}/down_bias", "D -> D"),
    )


def _experts(router: str, at: str, gate: str, up: str, down: str) -> tuple[Row, ...]:
    return (
        Row(f"{router}.weight", "mlp/router/kernel", "E D -> D E"),
        Row(f"{at}.{{expert}}.{gate}.weight", "mlp/gate", "F D -> D F"),
        Row(f"{at}.{{expert}}.{up}.weight", "mlp/up", "F D -> D F"),
        Row(f"{at}.{{expert}}.{down}.weight", "mlp/down", "D F -> F D"),
    )


def _named(*rows: Row, at: str = "model.layers.{layer}") -> tuple[Row, ...]:
    """Rows with their short cuts {l} and {at} written out."""
    short = {"{l}": at, "{at}": f"{at}.self_attn"}
    named = []
    for row in rows:
        theirs = row.theirs
        for key, value in short.items():
            theirs = theirs.replace(key, value)
        named.append(row._replace(theirs=theirs))
    return tuple(named)


_MLP = _gated("{l}.mlp", "mlp")
_LLAMA = _named(*_EMBEDDING, *_ATTENTION, *_NORMS, *_MLP)
_GEMMA = _named(*_EMBEDDING, *_ATTENTION, *_FOUR_NORMS, *_MLP)
_MIXTRAL = _named(
    *_EMBEDDING,
    *_ATTENTION,
    *_NORMS,
    *_experts(
        "{l}.block_sparse_moe.gate", "{l}.block_sparse_moe.experts", "w1", "w3", "w2"
    ),
)
_ROUTED = _experts(
    "{l}.mlp.gate", "{l}.mlp.experts", "gate_proj", "up_proj", "down_proj"
)
_QWEN_MOE = _named(*_EMBEDDING, *_ATTENTION, *_NORMS, *_ROUTED)
_DEEPSEEK = _named(
    *_EMBEDDING,
    *_NORMS,
    *_LATENT,
    *_MLP,
    *_ROUTED,
    Row("{l}.mlp.gate.e_score_correction_bias", "mlp/router/choice_bias", "E -> E"),
    *_gated("{l}.mlp.shared_experts", "mlp/shared"),
)
_QKV = "attention/query attention/key attention/value"
_QKV_BIAS = "attention/query_bias attention/key_bias attention/value_bias"
_GPT2 = _named(
    Row("transformer.wte.weight", "embed/table", "V D -> V D"),
    Row("transformer.wpe.weight", "embed/positions", "P D -> P D"),
    Row("transformer.ln_f.weight", "final_norm/scale", "D -> D"),
    Row("transformer.ln_f.bias", "final_norm/bias", "D -> D"),
    Row("lm_head.weight", "head", "V D -> D V"),
    Row("{l}.ln_1.weight", "attention_norm/scale", "D -> D"),
    Row("{l}.ln_1.bias", "attention_norm/bias", "D -> D"),
    Row("{l}.ln_2.weight", "mlp_norm/scale", "D -> D"),
    Row("{l}.ln_2.bias", "mlp_norm/bias", "D -> D"),
    # Conv1D keeps [in, out]; queries, keys and values lie side by side.
    Row("{l}.attn.c_attn.weight", _QKV, "D (N H) -> D N H", joined="N"),
    Row("{l}.attn.c_attn.bias", _QKV_BIAS, "(N H) -> N H", joined="N"),
    Row("{l}.attn.c_proj.weight", "attention/out", "(N H) D -> N H D"),
    Row("{l}.attn.c_proj.bias", "attention/out_bias", "D -> D"),
    Row("{l}.mlp.c_fc.weight", "mlp/up", "D F -> D F"),
    Row("{l}.mlp.c_fc.bias", "mlp/up_bias", "F -> F"),
    Row("{l}.mlp.c_proj.weight", "mlp/down", "F D -> F D"),
    Row("{l}.mlp.c_proj.bias", "mlp/down_bias", "D -> D"),
    at="transformer.h.{layer}",
)


def rows_of(model_type: str, cfg: ModelConfig) -> tuple[Row, ...]:
    """The table of a family, by the name that config.json gives it."""
    rows, a = _ROWS[model_type], cfg.attention
    if isinstance(a, LatentAttentionConfig):
        query = _DIRECT_QUERY if a.q_lora_rank is None else _LATENT_QUERY
        return rows + _named(query)
    return rows


def prefix_of(model_type: str) -> str:
    """What the names of a model begin with when it has its head."""
    return "transformer." if model_type == "gpt2" else "model."


_ROWS = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "mixtral": _MIXTRAL,
    "qwen3_moe": _QWEN_MOE,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
}
# Buffers that old files hold beside the weights, made anew by whoever loads them.
BUFFERS = (r".*\.rotary_emb\.inv_freq", r".*\.attn\.(masked_)?bias")
