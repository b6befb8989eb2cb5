# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The adapters of a run -> a folder that `peft` loads: `podium.convert --to=peft`.

Their matrices are named by the modules of transformers that they change. Where such a
module holds several of our matmuls side by side (c_attn of GPT-2, kv_b_proj of
DeepSeek) so do its adapters: the A one below the other, the B as blocks on a diagonal,
the rank their sum, and the scale alpha / rank the same. Experts: `peft_experts.py`.
"""

import re
from collections.abc import Callable, Sequence, Set
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
from podium.pretrained.peft_experts import Experts, experts_of, inner_modules
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
    experts: list[Experts]
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
    everything = list(plan.tensors.values())
    all_experts = experts_of(everything, params.targets)
    experts = [each for each in all_experts if each.count]
    plain = [t for t in everything if "{expert}" not in t.row.theirs]
    modules = {
        tensor.name.removesuffix(".weight"): tensor
        for tensor in plain
        if any(leaf.path in params.targets for leaf in tensor.leaves)
    }
    names = {tensor.name.removesuffix(".weight") for tensor in plain}
    names |= {each.name for each in all_experts}
    beside = _beside_experts(modules) if len(plain) < len(everything) else set()
    if isinstance(params.lora, DoraConfig) and (experts or beside):
        name = min(beside) if beside else experts[0].name
        raise ConfigError(
            f"{plan.workdir} has adapters on {name}, which peft takes as a parameter, and "
            "lora.kind is 'dora', which it has for modules alone; export the merged model "
            "with --to=hf, or train with --config.lora.kind=lora"
        )
    config = _config(params, plan.family, modules, names, experts, beside)
    return Peft(plan, params, modules, experts, config)


def _beside_experts(modules: dict[str, Tensor]) -> set[str]:
    """The MLPs, shared or of a dense prefix, in a model with experts.

    By its end peft 0.21 takes the name of such a module for the experts' own, and loses
    the adapter. Their weights are named as parameters, which it leaves as they are.
    """
    return {name for name in modules if ".mlp." in name}


def export_peft(peft: Peft, output: str | Path, dtype: str) -> int:
    """Writes the folder `output`; `dtype` as safetensors names it. Returns how many
    parameters there are."""
    output = Path(output)
    check_output(output)
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in peft.modules.items():
        for suffix, array in _matrices(peft.params, tensor).items():
            arrays[f"{name}.{suffix}"] = array
    places = inner_modules(peft.experts)
    for each in peft.experts:
        for suffix, array in each.matrices(peft.params).items():
            arrays[f"{places[each.name]}.{suffix}"] = array
    stored = {
        f"{_PREFIX}{name}": np.ascontiguousarray(array, DTYPES[dtype])
        for name, array in arrays.items()
    }
    with under_way(output) as part:
        # Not save_file, whose files nobody else may read.
        content = safetensors.numpy.save(stored, metadata={"format": "pt"})
        (part / WEIGHTS).write_bytes(content)
        side_files.write_json(part / CONFIG, peft.config)
        side_files.write_json(part / ORIGIN_FILE, peft.plan.origin)
    return sum(array.size for array in arrays.values())


def _config(
    params: AdaptedParams,
    family: str,
    modules: dict[str, Tensor],
    names: Set[str],
    experts: list[Experts],
    beside: set[str],
) -> dict[str, Any]:
    lora: Lora = params.lora
    counts = {name: _count(params, tensor) for name, tensor in modules.items()}
    counts |= {each.name: each.count for each in experts}
    joined = {_suffix(name): n for name, n in counts.items() if n > 1}
    targets = _by_ends(modules.keys() - beside, names, _suffix)
    of_experts = _by_ends({each.name for each in experts}, names, _behind_layer)
    of_mlps = _by_ends(beside, names, _behind_layer)
    parameters = sorted([*of_experts, *(f"{name}.weight" for name in of_mlps)])
    origin = side_files.read_json(Path(params.saved.path) / IMPORTED).get("from")
    is_theirs = origin is not None and not origin.endswith(
        ".gguf"
    )  # a folder, or a name
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin if is_theirs else None,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_dora": isinstance(lora, DoraConfig),
        "use_rslora": False,
        "fan_in_fan_out": family == "gpt2",
        "target_modules": targets,
        **({"target_parameters": parameters} if parameters else {}),
        "rank_pattern": {name: lora.rank * n for name, n in joined.items()},
        "alpha_pattern": {name: lora.alpha * n for name, n in joined.items()},
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _by_ends(chosen: Set[str], names: Set[str], end: Callable[[str], str]) -> list[str]:
    """By the ends of names, as is usual, where they say no others of `names` too."""
    ends = {end(name) for name in chosen}
    is_plain = all(name in chosen for name in names if end(name) in ends)
    return sorted(ends if is_plain else chosen)


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _behind_layer(name: str) -> str:
    return re.sub(r"^.*\.layers\.\d+\.", "", name)


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
