# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes family_logits.json: what Hugging Face transformers computes for tiny models.

Torch is no dependency of ours; run this from the repository root with a Python 3.11 of
its own that has torch 2.13.0 (CPU) and transformers 5:

    python -m tests.golden.make_family_logits

It prints how far the new values are from the committed ones. The test that reads the
file is tests/models/test_family_logits.py.
"""

import json
import pathlib

import numpy as np
import torch
import transformers as hf

from tests.golden import hf_weights as w

PATH = pathlib.Path(__file__).parent / "family_logits.json"


def common(name, *, theta, eps, tie):
    return {
        "vocab_size": w.VOCAB,
        "hidden_size": w.D,
        "intermediate_size": w.F,
        "num_hidden_layers": w.NUM_LAYERS.get(name, 3),
        "num_attention_heads": w.N,
        "num_key_value_heads": w.KV_HEADS.get(name, 2),
        "head_dim": w.H,
        "rms_norm_eps": eps,
        "tie_word_embeddings": tie,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def make_model(name):
    """The family's model class with tiny dimensions, everything else as released."""
    if name == "gpt2_124m":
        return hf.GPT2LMHeadModel(
            hf.GPT2Config(
                vocab_size=w.VOCAB,
                n_embd=w.D,
                n_head=w.N,
                n_layer=3,
                n_inner=w.F,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    if name in ("llama_2_7b", "llama_3_8b", "llama_3_1_8b"):
        theta = 1e4 if name == "llama_2_7b" else 5e5
        cfg = common(name, theta=theta, eps=1e-5, tie=False)
        if name == "llama_3_1_8b":
            cfg["rope_parameters"] = {
                "rope_type": "llama3",
                "rope_theta": theta,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": w.ORIGINAL_TOKENS,
            }
        return hf.LlamaForCausalLM(hf.LlamaConfig(**cfg))
    if name == "mistral_7b":
        cfg = common(name, theta=1e4, eps=1e-5, tie=False)
        return hf.MistralForCausalLM(hf.MistralConfig(**cfg, sliding_window=w.WINDOW))
    if name in ("qwen_2_0_5b", "qwen_2_7b"):
        cfg = common(name, theta=1e6, eps=1e-6, tie=name == "qwen_2_0_5b")
        return hf.Qwen2ForCausalLM(hf.Qwen2Config(**cfg))
    if name in ("qwen_3_0_6b", "qwen_3_8b"):
        cfg = common(name, theta=1e6, eps=1e-6, tie=name == "qwen_3_0_6b")
        return hf.Qwen3ForCausalLM(hf.Qwen3Config(**cfg))
    experts = {
        "num_local_experts": w.NUM_EXPERTS,
        "num_experts_per_tok": w.EXPERTS_PER_TOKEN,
    }
    if name == "mixtral_8x7b":
        cfg = common(name, theta=1e6, eps=1e-5, tie=False) | experts
        return hf.MixtralForCausalLM(hf.MixtralConfig(**cfg))
    if name == "qwen_3_30b_a3b":
        cfg = common(name, theta=1e6, eps=1e-6, tie=False) | experts
        cfg |= {
            "num_experts": w.NUM_EXPERTS,
            "moe_intermediate_size": w.F,
            "norm_topk_prob": True,
        }
        del cfg["num_local_experts"]
        return hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**cfg))
    if name.startswith("deepseek"):
        return make_deepseek(name)
    cfg = common(name, theta=1e4, eps=1e-6, tie=True)
    cfg |= {
        "sliding_window": w.WINDOW,
        "query_pre_attn_scalar": w.QUERY_PRE_ATTN_SCALAR,
    }
    if name == "gemma_2_2b":
        cfg |= {
            "attn_logit_softcapping": w.SOFT_CAP,
            "final_logit_softcapping": w.FINAL_SOFT_CAP,
        }
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(**cfg))
    cfg["rope_parameters"] = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**cfg))


def make_deepseek(name):
    is_v3, mscale = name == "deepseek_v3", 1.0 if name == "deepseek_v3" else 0.707
    cfg = common(name, theta=1e4, eps=1e-6, tie=False)
    del cfg["head_dim"]
    cfg |= {
        "num_key_value_heads": w.N,
        "q_lora_rank": w.Q_RANK if is_v3 else None,
        "kv_lora_rank": w.KV_RANK,
        "qk_nope_head_dim": w.NOPE_H,
        "qk_rope_head_dim": w.ROPE_H,
        "v_head_dim": w.V_H,
        "intermediate_size": w.PREFIX_F,
        "moe_intermediate_size": w.F,
        "first_k_dense_replace": 1,
        "n_shared_experts": 1 if is_v3 else 2,
        "n_routed_experts": w.DEEPSEEK["experts"] if is_v3 else w.NUM_EXPERTS,
        "num_experts_per_tok": (
            w.DEEPSEEK["per_token"] if is_v3 else w.EXPERTS_PER_TOKEN
        ),
        "norm_topk_prob": is_v3,
        "routed_scaling_factor": 2.5 if is_v3 else 1.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 40.0,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": mscale,
            "mscale_all_dim": mscale,
            "original_max_position_embeddings": w.ORIGINAL_TOKENS,
        },
    }
    if not is_v3:
        return hf.DeepseekV2ForCausalLM(hf.DeepseekV2Config(**cfg))
    cfg |= {
        "n_group": w.DEEPSEEK["groups"],
        "topk_group": w.DEEPSEEK["groups_per_token"],
        "num_mtp_layers": 0,
    }
    return hf.DeepseekV3ForCausalLM(hf.DeepseekV3Config(**cfg))


def logits(name):
    model = make_model(name).to(torch.float32).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        biases = [
            (key, buffer)
            for key, buffer in model.named_buffers()
            if key.endswith("e_score_correction_bias")
        ]
        for key, tensor in [*model.named_parameters(), *biases]:
            value = w.weight(name, key, tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(value))
        return model(torch.from_numpy(w.TOKENS)).logits[0].numpy()


def main():
    old = json.loads(PATH.read_text())["logits"] if PATH.exists() else {}
    new = {}
    for name in w.NAMES:
        values = logits(name)
        new[name] = [[round(float(x), 6) for x in row] for row in values]
        change = np.abs(values - np.array(old[name])).max() if name in old else "new"
        print(f"{name:16} std {values.std():.3f} change {change}")
    made_by = {"torch": torch.__version__, "transformers": hf.__version__}
    rows = ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in new.items())
    PATH.write_text(
        f'{{"made_by": {json.dumps(made_by)},\n"logits": {{\n{rows}\n}}}}\n'
    )


if __name__ == "__main__":
    main()
