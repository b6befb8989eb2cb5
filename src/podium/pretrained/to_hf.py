# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A run folder -> a model folder of transformers: `podium.convert --to=hf`."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from podium.config import TrainConfig
from podium.errors import ConfigError
from podium.input.manifest import TokenizerInfo
from podium.pretrained import side_files
from podium.pretrained.adapted_params import AdaptedParams, open_params
from podium.pretrained.configs import (
    comparable,
    fields_of,
    read_config,
    write_config,
)
from podium.pretrained.families import prefix_of, rows_of
from podium.pretrained.fields import Tree
from podium.pretrained.new_run import check_output, model_of, under_way
from podium.pretrained.origin import ORIGIN_FILE, origin_of
from podium.pretrained.rows import Tensor, tensors
from podium.pretrained.safetensors_files import LONG_NAMES, Planned, write_folder
from podium.pretrained.stored_params import Params
from podium.resume import saved_data


class Plan(NamedTuple):
    """What an export writes."""

    workdir: Path
    step: int
    family: str
    config: Tree
    tensors: dict[str, Tensor]
    planned: list[Planned]
    params: Params | AdaptedParams  # whence the weights are read
    origin: Tree  # where it comes from

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.num_bytes for tensor in self.planned)


def plan_export(workdir: str | Path, step: int, dtype: str | None = None) -> Plan:
    """The family, config.json and tensors of a checkpoint.

    Args:
        workdir: a run folder.
        step: of a checkpoint in it.
        dtype: "float32", "bfloat16" or "float16"; None: as the model was imported,
            float32 where it was not.

    Raises ConfigError where no family of transformers has the model's parts,
    CheckpointError where the weights below adapters are gone or changed.
    """
    workdir = Path(workdir)
    cfg = model_of(workdir, step)
    kept = side_files.read_json(workdir / side_files.FOLDER / side_files.TENSORS)
    family, config = _config(workdir, cfg)
    wanted = tensors(cfg.model, rows_of(family, cfg.model))
    wanted.sort(key=lambda tensor: tensor.leaves[0].path)  # an array after the other
    usual = LONG_NAMES[dtype] if dtype else kept.get("dtype", "F32")
    others = {} if dtype else kept.get("others", {})
    prefix = prefix_of(family) if kept.get("is_bare") else ""
    planned, by_name = [], {}
    for tensor in wanted:
        name = tensor.name.removeprefix(prefix)
        planned.append(Planned(name, others.get(tensor.name, usual), tensor.shape))
        by_name[name] = tensor
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = {v: k for k, v in LONG_NAMES.items()}[usual]
    origin = origin_of(workdir, step)
    params = open_params(workdir, step)
    return Plan(workdir, step, family, config, by_name, planned, params, origin)


def export_hf(
    plan: Plan,
    output: str | Path,
    *,
    max_shard_bytes: int,
    has_tokenizer: bool = True,
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Writes the model folder `output`, a tensor at a time."""
    output = Path(output)
    check_output(output)

    def read(planned: Planned) -> np.ndarray:
        tensor = plan.tensors[planned.name]
        return tensor.to_theirs(plan.params.read(tensor.leaves))

    with under_way(output) as part:
        if has_tokenizer:
            side_files.write_tokenizer(plan.workdir, tokenizer_info(plan.workdir), part)
        side_files.write_json(part / side_files.CONFIG, plan.config)
        side_files.write_json(part / ORIGIN_FILE, plan.origin)
        for tensor in write_folder(
            part, plan.planned, read, max_shard_bytes=max_shard_bytes
        ):
            advance(tensor.num_bytes)


def tokenizer_info(workdir: Path) -> TokenizerInfo | None:
    """The tokenizer that a run was trained with, if it is known."""
    saved = saved_data(workdir).get("tokenizer")
    return TokenizerInfo(**saved) if saved else None


def _config(workdir: Path, cfg: TrainConfig) -> tuple[str, Tree]:
    """As it was imported where the model is still the same, else written anew."""
    came = side_files.read_json(workdir / side_files.FOLDER / side_files.CONFIG)
    if came:
        family, before = read_config(came)
        if "num_nextn_predict_layers" in came:
            came["num_nextn_predict_layers"] = 0  # they were left out
        if comparable(before) == comparable(cfg.model):
            return family, came
        try:
            new = write_config(cfg.model, cfg.data.seq_len, like=family)
        except ConfigError:
            new = write_config(cfg.model, cfg.data.seq_len)
        dropped = fields_of(family)
        max_tokens = came.get("max_position_embeddings")
        kept = {key: value for key, value in came.items() if key not in dropped}
        tree = {**kept, **new}
        if max_tokens and "max_position_embeddings" in new:
            tree["max_position_embeddings"] = max(max_tokens, cfg.data.seq_len)
        return tree["model_type"], tree
    tree = write_config(cfg.model, cfg.data.seq_len)
    info = tokenizer_info(workdir)
    ends = side_files.ends(info) if info else {}
    return tree["model_type"], {**tree, **ends, "torch_dtype": "float32"}
