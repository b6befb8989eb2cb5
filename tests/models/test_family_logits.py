# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every family against logits that Hugging Face transformers computed.

The golden file is written by tests/golden/make_family_logits.py; its weights are drawn
by name, here again, and brought into our layout by `from_hugging_face`.
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config_model import LatentAttentionConfig, MoeConfig
from podium.models.bind import abstract, bind
from podium.models.layer_stack import layer_stacks
from tests.golden import hf_weights as w
from tests.models.families_tiny import tiny

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "family_logits.json"


def tiny_like_golden(name):
    cfg = tiny(name)
    if isinstance(cfg.attention, LatentAttentionConfig):
        return cfg
    attention = dataclasses.replace(
        cfg.attention,
        head_dim=w.GPT2_H if name == "gpt2_124m" else w.H,
        num_kv_heads=w.KV_HEADS.get(name, 2),
        query_scale=(
            w.QUERY_PRE_ATTN_SCALAR**-0.5 if cfg.attention.query_scale else None
        ),
    )
    return dataclasses.replace(cfg, attention=attention)


def from_hugging_face(name, cfg):
    """Our nested dict, from tensors in Hugging Face's names and layouts."""
    a, D, F = cfg.attention, cfg.embed_dim, cfg.mlp.dim
    N, H = a.num_heads, a.head_dim
    K = getattr(a, "num_kv_heads", N)

    def get(key, *shape):
        return w.weight(name, key, shape)

    def heads_in(key, heads):  # nn.Linear keeps [out, in]
        return get(key, heads * H, D).T.reshape(D, heads, H)

    def gpt2_block(i):
        at = f"transformer.h.{i}."

        def norm(key):
            return {
                "scale": get(f"{at}{key}.weight", D),
                "bias": get(f"{at}{key}.bias", D),
            }

        qkv = get(f"{at}attn.c_attn.weight", D, 3 * D)  # Conv1D keeps [in, out]
        q, k, v = (x.reshape(D, N, H) for x in np.split(qkv, 3, axis=1))
        bias = np.split(get(f"{at}attn.c_attn.bias", 3 * D), 3)
        q_bias, k_bias, v_bias = (x.reshape(N, H) for x in bias)
        return {
            "attention_norm": norm("ln_1"),
            "attention": {
                "query": q,
                "key": k,
                "value": v,
                "query_bias": q_bias,
                "key_bias": k_bias,
                "value_bias": v_bias,
                "out": get(f"{at}attn.c_proj.weight", D, D).reshape(N, H, D),
                "out_bias": get(f"{at}attn.c_proj.bias", D),
            },
            "mlp_norm": norm("ln_2"),
            "mlp": {
                "up": get(f"{at}mlp.c_fc.weight", D, F),
                "up_bias": get(f"{at}mlp.c_fc.bias", F),
                "down": get(f"{at}mlp.c_proj.weight", F, D),
                "down_bias": get(f"{at}mlp.c_proj.bias", D),
            },
        }

    def mixture(at, E):
        gate_up_E2FD = get(f"{at}mlp.experts.gate_up_proj", E, 2 * F, D)
        gate, up = np.split(gate_up_E2FD.swapaxes(1, 2), 2, axis=2)
        down = get(f"{at}mlp.experts.down_proj", E, D, F).swapaxes(1, 2)
        router = {"kernel": get(f"{at}mlp.gate.weight", E, D).T}
        return {"router": router, "gate": gate, "up": up, "down": down}

    def dense(at, F):
        return {
            "gate": get(f"{at}.gate_proj.weight", F, D).T,
            "up": get(f"{at}.up_proj.weight", F, D).T,
            "down": get(f"{at}.down_proj.weight", D, F).T,
        }

    def deepseek_block(i):
        at = f"model.layers.{i}."
        C, R = w.KV_RANK, w.ROPE_H
        halves = np.r_[: w.NOPE_H, w.NOPE_H + np.r_[0:R:2, 1:R:2]]

        def norm(key, dim=D):
            return {"scale": get(f"{at}{key}.weight", dim)}

        kv_down = get(f"{at}self_attn.kv_a_proj_with_mqa.weight", C + R, D).T
        up = get(f"{at}self_attn.kv_b_proj.weight", N * (w.NOPE_H + w.V_H), C)
        up = up.T.reshape(C, N, w.NOPE_H + w.V_H)
        out = get(f"{at}self_attn.o_proj.weight", D, N * w.V_H)
        attention = {
            "kv_down": kv_down[:, np.r_[:C, C + np.r_[0:R:2, 1:R:2]]],
            "kv_norm": norm("self_attn.kv_a_layernorm", C),
            "key": up[..., : w.NOPE_H],
            "value": up[..., w.NOPE_H :],
            "out": out.T.reshape(N, w.V_H, D),
        }
        if a.q_lora_rank is None:
            query = heads_in(f"{at}self_attn.q_proj.weight", N)
        else:
            Q = w.Q_RANK
            query = get(f"{at}self_attn.q_b_proj.weight", N * H, Q).T.reshape(Q, N, H)
            attention["query_down"] = get(f"{at}self_attn.q_a_proj.weight", Q, D).T
            attention["query_norm"] = norm("self_attn.q_a_layernorm", Q)
        attention["query"] = query[..., halves]
        mlp = dense(f"{at}mlp", w.PREFIX_F)
        if i > 0:
            mlp = mixture(at, cfg.mlp.num_experts)
            shared = F * cfg.mlp.num_shared_experts
            mlp["shared"] = dense(f"{at}mlp.shared_experts", shared)
            if name == "deepseek_v3":
                E, key = cfg.mlp.num_experts, f"{at}mlp.gate.e_score_correction_bias"
                mlp["router"]["choice_bias"] = get(key, E)
        return {
            "attention_norm": norm("input_layernorm"),
            "attention": attention,
            "mlp_norm": norm("post_attention_layernorm"),
            "mlp": mlp,
        }

    def llama_block(i):
        at = f"model.layers.{i}."

        def norm(key):
            return {"scale": get(f"{at}{key}.weight", D)}

        attention = {
            "query": heads_in(f"{at}self_attn.q_proj.weight", N),
            "key": heads_in(f"{at}self_attn.k_proj.weight", K),
            "value": heads_in(f"{at}self_attn.v_proj.weight", K),
            "out": get(f"{at}self_attn.o_proj.weight", D, N * H).T.reshape(N, H, D),
        }
        if a.use_qkv_bias:
            for ours, theirs, heads in (
                ("query", "q", N),
                ("key", "k", K),
                ("value", "v", K),
            ):
                bias = get(f"{at}self_attn.{theirs}_proj.bias", heads * H)
                attention[f"{ours}_bias"] = bias.reshape(heads, H)
        if a.qk_norm:
            for ours, theirs in (("query", "q"), ("key", "k")):
                scale = get(f"{at}self_attn.{theirs}_norm.weight", H)
                attention[f"{ours}_norm"] = {"scale": scale}
        block = {
            "attention_norm": norm("input_layernorm"),
            "attention": attention,
            "mlp": mixture(at, w.NUM_EXPERTS)
            if isinstance(cfg.mlp, MoeConfig)
            else dense(f"{at}mlp", F),
        }
        if cfg.norm_placement == "pre_and_post":
            block["attention_post_norm"] = norm("post_attention_layernorm")
            block["mlp_norm"] = norm("pre_feedforward_layernorm")
            block["mlp_post_norm"] = norm("post_feedforward_layernorm")
        else:
            block["mlp_norm"] = norm("post_attention_layernorm")
        return block

    if name == "gpt2_124m":
        make_block = gpt2_block
        params = {
            "embed": {
                "table": get("transformer.wte.weight", w.VOCAB, D),
                "positions": get("transformer.wpe.weight", 1024, D),
            },
            "final_norm": {
                "scale": get("transformer.ln_f.weight", D),
                "bias": get("transformer.ln_f.bias", D),
            },
        }
    else:
        is_latent = isinstance(a, LatentAttentionConfig)
        make_block = deepseek_block if is_latent else llama_block
        params = {
            "embed": {"table": get("model.embed_tokens.weight", w.VOCAB, D)},
            "final_norm": {"scale": get("model.norm.weight", D)},
        }
        if not cfg.tie_embeddings:
            params["head"] = get("lm_head.weight", w.VOCAB, D).T
    first = 0
    for stack, (pattern, repeats) in layer_stacks(cfg).items():
        params[stack] = {}
        for i in range(len(pattern)):
            layers = [first + repeat * len(pattern) + i for repeat in range(repeats)]
            params[stack][f"block_{i}"] = jax.tree.map(
                lambda *leaves: np.stack(leaves), *(make_block(n) for n in layers)
            )
        first += repeats * len(pattern)
    return params


@pytest.mark.parametrize("name", w.NAMES)
def test_logits_equal_hugging_face(name):
    cfg = tiny_like_golden(name)
    params = from_hugging_face(name, cfg)
    assert jax.tree.map(np.shape, params) == jax.tree.map(
        lambda s: s.shape, abstract(cfg).shapes
    )

    @jax.jit
    def forward(params, tokens):
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        model = bind(abstract(cfg).graphdef, params)
        return model.logits(model(tokens, positions, None))

    got = forward(params, w.TOKENS.astype(np.int32))[0]
    want = np.array(json.loads(GOLDEN.read_text())["logits"][name])
    assert np.std(want) > 0.3  # the model says something
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
