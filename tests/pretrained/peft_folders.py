# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of tiny models with adapters drawn by name, for golden/peft.json."""

import dataclasses
import pathlib
import zlib

import numpy as np

from podium.config_dict import to_json_dict
from podium.config_lora import DoraConfig, Lora, LoraConfig
from podium.models import adapters, bind
from podium.pretrained.adapted_params import fingerprint, leaf_shapes
from podium.pretrained.new_run import model_of
from podium.pretrained.stored_params import Pieces, write_checkpoint
from podium.resume import SavedBase
from podium.starts import take_along
from tests.pretrained.folders import imported

KINDS = {"lora": LoraConfig, "dora": DoraConfig}
# Of GPT-2 one matmul of the three that c_attn holds; the others keep what they do.
_BOTH = {
    "llama_3_8b": ("attention/*", "mlp/*", "head"),
    "gpt2_124m": ("attention/query", "attention/out", "mlp/up"),
    "gemma_2_2b": ("attention/*", "mlp/gate"),
    "deepseek_v2_lite": ("attention/*",),
}
TARGETS = {f"{name}.{kind}": t for name, t in _BOTH.items() for kind in KINDS}
# Experts; of Qwen half of a parameter, of DeepSeek shared and dense MLPs as well.
TARGETS |= {
    "mixtral_8x7b.lora": ("attention/query", "mlp/*"),
    "qwen_3_30b_a3b.lora": ("mlp/up",),
    "deepseek_v3.lora": ("attention/out", "mlp/*"),
}


def adapted(name: str, kind: str, home: pathlib.Path, **changes) -> pathlib.Path:
    """A run folder with adapters on an imported golden folder, home/"hf"."""
    base = imported(name, home)
    targets = changes.pop("targets", None) or TARGETS[f"{name}.{kind}"]
    lora = KINDS[kind](rank=3, alpha=4.0, targets=targets, **changes)
    run = home / kind
    write_adapters(run, base, lora, name)
    take_along(base, run)
    return run


def write_adapters(
    run: pathlib.Path, base: pathlib.Path, lora: Lora, name: str
) -> None:
    """Checkpoint 0 of a run, with adapters that are not those of a beginning."""
    cfg = dataclasses.replace(model_of(base, 0), init_from=str(base), lora=lora)
    trained, params = adapters.trained(bind.abstract(cfg.model), lora), {}
    for path, shape in leaf_shapes(trained.shapes).items():
        rng = np.random.default_rng(zlib.crc32(f"{name}/{path}".encode()))
        array = 0.2 * rng.standard_normal(shape).astype(np.float32)
        if path.endswith("magnitude"):
            array = 1.0 + np.abs(array)
        piece = Pieces(shape, 0, lambda array=array: iter([((), array)]))
        bind.insert(params, tuple(path.split("/")), piece)
    saved = SavedBase(str(base), 0, fingerprint(base, 0))
    write_checkpoint(
        run,
        params,
        {
            "step": 0,
            "seed": 0,
            "config": to_json_dict(cfg),
            "fingerprints": [],
            "skipped_batches": [],
            "base": saved._asdict(),
        },
    )
