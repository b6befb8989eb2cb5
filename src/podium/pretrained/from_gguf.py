# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A GGUF file -> a run folder: `podium.convert --from=gguf`.

Metadata become the config.json of the family, which `configs.read_config` reads; tensors
go by the family's own table under their names in GGUF. The run folder is the one that
the same model makes when it comes from transformers.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from podium.config_model import ModelConfig
from podium.errors import ConfigError, DataError
from podium.pretrained import side_files
from podium.pretrained.configs import read_config
from podium.pretrained.families import rows_of
from podium.pretrained.fields import Fields, Tree
from podium.pretrained.gguf_file import (
    GgufFile,
    GgufTensor,
    read_gguf_file,
    supported_types,
)
from podium.pretrained.gguf_tokenizer import token_ids, tokenizer_files
from podium.pretrained.new_run import (
    Source,
    check_output,
    check_tensors,
    under_way,
    write_run,
)
from podium.pretrained.rows import Row, Tensor, tensors
from podium.pretrained.safetensors_files import DTYPES, LONG_NAMES

_TABLE, _HEAD, _ROPE_FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
# llama.cpp's converter puts the channels of these in rotary pairs of neighbours.
_PAIRED = ("attn_q.", "attn_k.")


class Found(NamedTuple):
    """A checked file."""

    source: Source
    files: dict[str, Tree]  # of the model folder that transformers would write


def read_gguf(path: str | Path) -> Found:
    """Reads and checks all but the numbers. Raises ConfigError or DataError."""
    file = read_gguf_file(path)
    where = str(file.path)
    arch = file.metadata.get("general.architecture")
    if arch != "llama":
        raise DataError(
            f"{where}: general.architecture is {arch!r}, which is not supported; "
            "supported: 'llama'"
        )
    tree = _llama_config(file)
    try:
        family, cfg = read_config(tree)
    except ConfigError as error:
        text = str(error).removeprefix("config.json: ")
        raise DataError(f"{where}: its metadata make no model: {text}") from error
    stored = {n: t for n, t in file.tensors.items() if n != _ROPE_FACTORS}
    wanted = tensors(cfg, gguf_rows(family, cfg))
    check_tensors(stored, wanted, supported_types(), where)
    usual, others = _types_out(cfg, family, wanted, stored)
    cfg = dataclasses.replace(cfg, dtype="float32" if usual == "F32" else "bfloat16")
    long = {name: key for key, name in LONG_NAMES.items()}
    files = {
        **tokenizer_files(file),
        side_files.CONFIG: {**tree, **token_ids(file), "torch_dtype": long[usual]},
        side_files.TENSORS: {"dtype": usual, "others": others, "is_bare": False},
    }
    origin, max_tokens = str(file.path.absolute()), tree["max_position_embeddings"]
    return Found(Source(family, cfg, max_tokens, stored, wanted, origin), files)


def import_gguf(
    found: Found,
    output: str | Path,
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Makes the run folder `output` of a model that `read_gguf` found."""
    check_output(Path(output))
    with under_way(Path(output)) as part:
        folder = part / side_files.FOLDER
        folder.mkdir()
        for name, tree in found.files.items():
            side_files.write_json(folder / name, tree)
        write_run(part, Path(output), found.source, advance)


def gguf_rows(family: str, cfg: ModelConfig) -> tuple[Row, ...]:
    """A family's table, its tensors called as the package `gguf` calls them, and paired as
    llama.cpp's converter does."""
    import gguf

    names, rows = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1), []
    for row in rows_of(family, cfg):
        theirs, _, end = row.theirs.replace("{layer}", "0").rpartition(".")
        if (name := names.get_name(theirs)) is None:
            continue  # what only other architectures have, such as norms of q and k
        name = f"{name.replace('blk.0.', 'blk.{layer}.')}.{end}"
        pairs = "H" if any(part in name for part in _PAIRED) else ""
        rows.append(row._replace(theirs=name, neighbours=pairs))
    return tuple(rows)


def _llama_config(file: GgufFile) -> Tree:
    """config.json. Raises DataError where the metadata say what we do not support."""
    where, meta = str(file.path), file.metadata
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    inner = {
        k.removeprefix("llama."): v for k, v in meta.items() if k.startswith("llama.")
    }
    f = Fields(inner, "llama", f"{where}: llama.*")
    width, heads = f.number("embedding_length"), f.number("attention.head_count")
    head_dim = f.number("attention.key_length", width // max(1, heads))
    f.only("attention.value_length", head_dim, default=head_dim)
    f.only("rope.dimension_count", head_dim, default=head_dim)
    if _TABLE not in shapes:
        raise DataError(f"{where}: tensor {_TABLE} is missing")
    num_tokens = len(meta.get("tokenizer.ggml.tokens", ()))
    if num_tokens != shapes[_TABLE][0]:
        raise DataError(
            f"{where}: {num_tokens:,} tokens in tokenizer.ggml.tokens, but {_TABLE} is of "
            f"{shapes[_TABLE][0]:,}"
        )
    f.only("vocab_size", num_tokens, default=num_tokens)
    theta = f.number("rope.freq_base", 10_000.0)
    tree = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": num_tokens,
        "hidden_size": width,
        "intermediate_size": f.number("feed_forward_length"),
        "num_hidden_layers": f.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": f.number("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": f.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": f.number("context_length"),
        "rope_theta": theta,
        "rope_scaling": _rope_scaling(file, f, theta, head_dim),
        "tie_word_embeddings": _HEAD not in shapes,
        "attention_bias": "blk.0.attn_q.bias" in shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
    }
    f.done()
    return tree


def _rope_scaling(
    file: GgufFile, f: Fields, theta: float, head_dim: int
) -> Tree | None:
    kind = f.only("rope.scaling.type", "none", "linear", "yarn", default="none")
    f.take("rope.scaling.finetuned", None)
    factor = f.number("rope.scaling.factor", f.number("rope.scale_linear", 1.0))
    original = f.number("rope.scaling.original_context_length", None)
    if _ROPE_FACTORS in file.tensors:
        if kind != "none":
            raise DataError(
                f"{file.path}: {_ROPE_FACTORS} and rope.scaling, which differ"
            )
        return _llama_3_scaling(file.tensors[_ROPE_FACTORS], theta, head_dim)
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    return None if factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _llama_3_scaling(stored: GgufTensor, theta: float, head_dim: int) -> Tree | None:
    """Llama 3.1's scaling (meta-llama's apply_scaling), of which a GGUF has the result.

    Its constants but the factor are the same in all models that were published.
    """
    low, high, original = 1.0, 4.0, 8192
    found = np.asarray(stored.read(), np.float32)
    factor = float(found.max(initial=1.0))
    turns = original * theta ** (-np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    want = 1.0 / ((1.0 - smooth) / factor + smooth)
    if found.shape != want.shape or not np.allclose(found, want, rtol=1e-4):
        raise DataError(
            f"{stored.path}: {_ROPE_FACTORS} is a scaling of RoPE that is not supported; "
            "supported: Llama 3.1's, 'linear', 'yarn'"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _types_out(
    cfg: ModelConfig, family: str, wanted: list[Tensor], stored: dict[str, GgufTensor]
) -> tuple[str, dict[str, str]]:
    """The type that most weights have as they go out, and tensors of another.

    Quantised weights are float32 from here on.
    """

    def out(tensor: Tensor) -> str:
        name = stored[tensor.name].dtype
        return name if name in DTYPES else "F32"

    sizes = dict.fromkeys(DTYPES, 0)
    for tensor in wanted:
        sizes[out(tensor)] += math.prod(tensor.shape)
    usual = max(sizes, key=lambda name: sizes[name])
    types = {tensor.leaves: out(tensor) for tensor in wanted}
    theirs = tensors(cfg, rows_of(family, cfg))
    others = {t.name: types[t.leaves] for t in theirs if types[t.leaves] != usual}
    return usual, others
