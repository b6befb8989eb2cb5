# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Model folders of tiny models, as transformers writes them. See golden/pretrained.json."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from podium.checkpoint import restore_params
from podium.config_model import ModelConfig
from podium.generate import generate
from podium.models.bind import Params, abstract, bind
from podium.pretrained.from_hf import import_hf, read_hf
from podium.pretrained.safetensors_files import Planned, read_folder, write_folder
from podium.pretrained.to_hf import export_hf, plan_export
from podium.sampling import Sampling
from tests.golden import hf_weights

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / "golden" / "pretrained.json").read_text()
)["families"]


def make_folder(
    name: str,
    folder: pathlib.Path,
    *,
    dtype: str = "F32",
    others: dict[str, str] | None = None,
    max_shard_bytes: int = 1 << 40,
    config: dict | None = None,
    tensors: dict | None = None,
    extra: dict[str, np.ndarray] | None = None,
    rename=lambda key: key,
) -> pathlib.Path:
    """A family's golden folder, its weights drawn by name; changed as asked."""
    folder.mkdir(parents=True)
    shapes = GOLDEN[name]["tensors"] | (tensors or {})
    shapes = {key: shape for key, shape in shapes.items() if shape is not None}
    plan = [
        Planned(rename(key), (others or {}).get(key, dtype), tuple(shape))
        for key, shape in shapes.items()
    ]
    extra = extra or {}
    plan += [Planned(key, dtype, value.shape) for key, value in extra.items()]
    original = {rename(key): key for key in shapes}

    def read(tensor: Planned) -> np.ndarray:
        if tensor.name in extra:
            return extra[tensor.name]
        return hf_weights.weight(name, original[tensor.name], tensor.shape)

    list(write_folder(folder, plan, read, max_shard_bytes=max_shard_bytes))
    tree = GOLDEN[name]["config"] | (config or {})
    (folder / "config.json").write_text(json.dumps(tree, indent=2))
    return folder


def imported(name: str, tmp_path: pathlib.Path, **changes) -> pathlib.Path:
    """The run folder that comes of a golden folder."""
    folder = make_folder(name, tmp_path / "hf", **changes)
    import_hf(read_hf(folder), tmp_path / "run")
    return tmp_path / "run"


def exported(run: pathlib.Path, folder: pathlib.Path, **how) -> pathlib.Path:
    """The model folder that comes of a run folder's checkpoint 0."""
    how = {"max_shard_bytes": 1 << 40, "dtype": None} | how
    plan = plan_export(run, 0, how["dtype"])
    export_hf(plan, folder, max_shard_bytes=how["max_shard_bytes"])
    return folder


def answers(run: pathlib.Path, num_tokens: int) -> tuple[np.ndarray, list[int]]:
    """Logits [T, V] of the golden tokens, and the greedy ones that follow them."""
    cfg, params = restore_params(run)
    (greedy,) = generate(
        cfg.model,
        params,
        hf_weights.TOKENS.tolist(),
        num_tokens=num_tokens,
        sampling=Sampling(temperature=0, top_k=None, top_p=1.0),
    )
    return _logits(cfg.model, params), greedy


def logits_of(run: pathlib.Path) -> np.ndarray:
    """Logits [T, V] of the golden tokens."""
    cfg, params = restore_params(run)
    return _logits(cfg.model, params)


def _logits(model: ModelConfig, params: Params) -> np.ndarray:
    @jax.jit
    def forward(params, tokens):
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        bound = bind(abstract(model).graphdef, params)
        return bound.logits(bound(tokens, positions, None))

    return np.asarray(forward(params, hf_weights.TOKENS.astype(np.int32))[0])


def check_equal(a: pathlib.Path, b: pathlib.Path) -> None:
    """Two model folders hold the same tensors, to the bit."""
    ours, theirs = read_folder(a), read_folder(b)
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (theirs[key].dtype, theirs[key].shape)
        assert tensor.read().tobytes() == theirs[key].read().tobytes(), key
