# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny GGUF files of the golden llamas, as llama.cpp's converter makes them."""

import pathlib

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from tests.golden import hf_weights
from tests.pretrained.folders import GOLDEN

NAME = "llama_3_8b"
END = "<|endoftext|>"
TURN = "<|im_end|>"
_PARTS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Tokens: two special ones, bytes as far as they go, then merges of them; merges."""
    letters = [*"0123456789abcdefghijklmnopqrstuvwxyz", "Ġ", ".", ","]
    rest = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(letters))
    pairs = [("1", "2"), ("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("a", "n"), ("an", "d")]
    tokens = [END, TURN, *letters, *rest][: size - len(pairs)]
    tokens += ["".join(pair) for pair in pairs]
    return tokens, [" ".join(pair) for pair in pairs]


def interleaved(array: np.ndarray, num_heads: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    shape = (num_heads, 2, array.shape[0] // num_heads // 2, *array.shape[1:])
    return array.reshape(shape).swapaxes(1, 2).reshape(array.shape)


def write_gguf(
    path: pathlib.Path,
    *,
    name: str = NAME,
    vocab: int = hf_weights.VOCAB,
    metadata: dict | None = None,
    extra: dict[str, np.ndarray] | None = None,
    without: tuple[str, ...] = (),
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    arch: str = "llama",
) -> pathlib.Path:
    """A file of a golden llama; its fields and tensors changed as asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    config, writer = GOLDEN[name]["config"], gguf.GGUFWriter(path, arch)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    tokens, merges = vocabulary(vocab)
    kinds = [3 if token in (END, TURN) else 1 for token in tokens]
    fields = {
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.key_length": config["head_dim"],
        "llama.attention.value_length": config["head_dim"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.freq_base": config["rope_parameters"]["rope_theta"],
        "llama.rope.dimension_count": config["head_dim"],
        "llama.vocab_size": vocab,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.eot_token_id": 1,
        "tokenizer.chat_template": "{{ messages }}",
    } | (metadata or {})
    for key, value in fields.items():
        _add(writer, key, value)
    for key, shape in GOLDEN[name]["tensors"].items():
        if key in ("lm_head.weight", "model.embed_tokens.weight"):
            shape = [vocab, shape[1]]
        array = hf_weights.weight(name, key, tuple(shape)).astype(np.float32)
        if "q_proj" in key or "k_proj" in key:
            array = interleaved(array, heads if "q_proj" in key else kv_heads)
        theirs = key
        for part, short in _PARTS.items():
            theirs = theirs.replace(part, short)
        if theirs in without:
            continue
        fits = array.ndim == 2 and array.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0
        as_kind = kind if fits else gguf.GGMLQuantizationType.F32
        raw = gguf.quants.quantize(array, as_kind)
        writer.add_tensor(theirs, raw, raw_dtype=as_kind)
    for key, array in (extra or {}).items():
        writer.add_tensor(key, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value) -> None:
    match value:
        case None:
            return
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
