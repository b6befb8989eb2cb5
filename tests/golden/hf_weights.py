# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of tiny Hugging Face models, drawn by name: the golden files need no weights.

Imported by the script that runs `transformers` and by the test that runs Podium; needs
NumPy only. All dimensions of the tiny models are here.
"""

import zlib

import numpy as np

VOCAB, D, N, H, F, WINDOW = 61, 24, 4, 16, 40, 5
NUM_EXPERTS, EXPERTS_PER_TOKEN = 4, 2
DEEPSEEK = {"experts": 12, "per_token": 3, "groups": 4, "groups_per_token": 2}
Q_RANK, KV_RANK, NOPE_H, ROPE_H, V_H = 20, 12, 10, 8, 6  # of latent attention
PREFIX_F = 48  # hidden width of the dense layer before the experts
GPT2_H = D // N  # GPT-2 has no head_dim of its own
KV_HEADS = {"gpt2_124m": 4, "llama_2_7b": 4, "gemma_3_1b": 1}  # the others 2
NUM_LAYERS = {"gemma_2_2b": 5, "gemma_3_1b": 8}  # the others 3
QUERY_PRE_ATTN_SCALAR, SOFT_CAP, FINAL_SOFT_CAP = 11, 2.0, 3.0
ORIGINAL_TOKENS = 64  # context before Llama 3.1 and DeepSeek stretched it
TOKENS = np.random.default_rng(7).integers(0, VOCAB, (1, 14))
NAMES = (
    "gpt2_124m",
    "llama_2_7b",
    "llama_3_8b",
    "llama_3_1_8b",
    "mistral_7b",
    "qwen_2_0_5b",
    "qwen_2_7b",
    "qwen_3_0_6b",
    "qwen_3_8b",
    "mixtral_8x7b",
    "qwen_3_30b_a3b",
    "deepseek_v2_lite",
    "deepseek_v3",
    "gemma_2_2b",
    "gemma_3_1b",
)


def weight(family: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 tensor that Hugging Face calls `name`."""
    rng = np.random.default_rng(zlib.crc32(f"{family}/{name}".encode()))
    values = 0.25 * rng.standard_normal(shape)
    is_norm = name.endswith(
        ("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")
    )
    if is_norm and not family.startswith("gemma"):  # Gemma stores norms minus 1
        values += 1.0
    return values.astype(np.float32)
