# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The adapters of a run -> a folder that `peft` loads: `podium.convert --to=peft`.

Their matrices are named by the modules of transformers that they change. Where such a
module holds several of our matmuls side by side (c_attn of GPT-2, kv_b_proj of
DeepSeek) so do its adapters: the A one below the other, the B as blocks on a diagonal,
the rank their sum, and the scale alpha / rank the same.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from podium.config_lora import DoraConfig, Lora
from podium.errors import ConfigError
from podium.models.adapted import column_norm
from podium.pretrained import side_files
from podium.pretrained.adapted_params import AdaptedParams
from podium.pretrained.new_run import check_output, under_way
from podium.pretrained.origin import ORIGIN_FILE
from podium.pretrained.rows import Leaf, Tensor
from podium.pretrained.safetensors_files import DTYPES
from podium.pretrained.to_hf import Plan
from podium.starts import IMPORTED

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


class Peft(NamedTuple):
    """What an export writes."""

    plan: Plan
    params: AdaptedParams
    modules: dict[str, Tensor]  # name of a module -> its tensor
    config: dict[str, Any]


def plan_peft(plan: Plan) -> Peft:
    """The adapters of a planned export. Raises ConfigError where there are none, or such
    as peft would not load."""
    params = plan.params
    if not isinstance(params, AdaptedParams):
        raise ConfigError(
            f"{plan.workdir} trained all weights (lora is None), so there are no "
            "adapters; export it with --to=hf"
        )
    modules: dict[str, Tensor] = {}
    everything = list(plan.tensors.values())
    for tensor in everything:
        if not any(leaf.path in params.targets for leaf in tensor.leaves):
            continue
        modules[tensor.name.removesuffix(".weight")] = tensor
    names = [tensor.name.removesuffix(".weight") for tensor in everything]
    _check_experts(plan.workdir, modules, names)
    return Peft(plan, params, modules, _config(params, plan.family, modules, names))


def _check_experts(workdir: Any, modules: dict[str, Tensor], names: list[str]) -> None:
    """peft 0.21 takes gate_proj and the like for the experts', by their ends: adapters of
    LoRA are lost with a warning, those of DoRA refused."""
    mine = next((name for name in modules if ".mlp." in name), None)
    if mine and any(".experts." in name for name in names):
        raise ConfigError(
            f"{workdir} has adapters on {mine}, which peft mistakes for the experts' own; "
            "export the merged model with --to=hf, or train adapters of attention/* alone"
        )


def export_peft(peft: Peft, output: str | Path, dtype: str) -> int:
    """Writes the folder `output`; `dtype` as safetensors names it. Returns how many
    parameters there are."""
    output = Path(output)
    check_output(output)
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in peft.modules.items():
        for suffix, array in _matrices(peft.params, tensor).items():
            arrays[f"{_PREFIX}{name}.{suffix}"] = np.ascontiguousarray(
                array, DTYPES[dtype]
            )
    with under_way(output) as part:
        safetensors.numpy.save_file(arrays, part / WEIGHTS, metadata={"format": "pt"})
        side_files.write_json(part / CONFIG, peft.config)
        side_files.write_json(part / ORIGIN_FILE, peft.plan.origin)
    return sum(array.size for array in arrays.values())


def _config(
    params: AdaptedParams, family: str, modules: dict[str, Tensor], names: list[str]
) -> dict[str, Any]:
    lora: Lora = params.lora
    counts = {name: _count(params, tensor) for name, tensor in modules.items()}
    joined = {_suffix(name): n for name, n in counts.items() if n > 1}
    # By the end of a name, as is usual, where that says no other modules too.
    ends = {_suffix(name) for name in modules}
    is_plain = all(name in modules for name in names if _suffix(name) in ends)
    origin = side_files.read_json(Path(params.saved.path) / IMPORTED)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.get("from"),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_dora": isinstance(lora, DoraConfig),
        "use_rslora": False,
        "fan_in_fan_out": family == "gpt2",
        "target_modules": sorted(ends if is_plain else modules),
        "rank_pattern": {name: lora.rank * n for name, n in joined.items()},
        "alpha_pattern": {name: lora.alpha * n for name, n in joined.items()},
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _count(params: AdaptedParams, tensor: Tensor) -> int:
    return sum(leaf.path in params.targets for leaf in tensor.leaves)


def _matrices(params: AdaptedParams, tensor: Tensor) -> dict[str, np.ndarray]:
    """A [r, in], B [out, r] and, of DoRA, the magnitude [out] of one of their modules."""
    r, rank = params.lora.rank, params.lora.rank * _count(params, tensor)
    num_in = params.kernels[tensor.leaves[0].path].num_in
    outs = [leaf.shape[num_in:] for leaf in tensor.leaves]
    all_a: list[np.ndarray] = []
    parts_b = [np.zeros((rank, *out), np.float32) for out in outs]
    magnitudes: list[np.ndarray] = []
    for leaf, b in zip(tensor.leaves, parts_b, strict=True):
        if leaf.path in params.targets:
            w = params.adapted(leaf)
            b[r * len(all_a) : r * (len(all_a) + 1)] = w.b
            all_a.append(w.a)
            m = w.magnitude
        else:
            m = column_norm(jnp.asarray(params.read([leaf])[0]), num_in)
        magnitudes.append(np.asarray(m) if m is not None else np.zeros(0))
    ins = tensor.leaves[0].shape[:num_in]
    a = np.concatenate(all_a, axis=-1)
    plain = tensor._replace(row=tensor.row._replace(joined="", neighbours=""))
    ones = (1,) * (len(outs[0]) - 1)
    found = {
        "lora_A.weight": _as_theirs(plain, [a.reshape(*ins, rank, *ones)]),
        "lora_B.weight": _as_theirs(
            tensor,
            [b.reshape(rank, *(1,) * (num_in - 1), *b.shape[1:]) for b in parts_b],
        ),
    }
    if isinstance(params.lora, DoraConfig):
        shaped = [m.reshape(*(1,) * num_in, *m.shape) for m in magnitudes]
        found["lora_magnitude_vector"] = _as_theirs(tensor, shaped).ravel()
    return found


def _as_theirs(tensor: Tensor, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Parts of our layout, in which the rank stands for the inputs or the outputs, as
    one matrix of theirs; nn.Linear's is [out, in], Conv1D's is turned round here."""
    leaves = tuple(
        Leaf(leaf.path, leaf.index, part.shape)
        for leaf, part in zip(tensor.leaves, parts, strict=False)
    )
    theirs = tensor._replace(leaves=leaves).to_theirs(list(parts))
    return theirs.T if _is_turned(tensor) else theirs


def _is_turned(tensor: Tensor) -> bool:
    """Whether their tensor has the inputs in front, as Conv1D."""
    first = re.match(r"\([^)]*\)|\w+", tensor.row.pattern)
    return first is not None and tensor.row.letters[0] in first[0]
