# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The weights below adapters: read from where they lie, frozen, known by a fingerprint.

A run with `lora` saves its adapters alone, and of the weights below them which folder
and checkpoint they are and a fingerprint of their values, SHA-256 of every array's
digest, which neither the mesh nor the type they are kept in changes. Adapters may sit on
a run that was trained with adapters itself; its fingerprint covers both.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from podium import fingerprints
from podium.checkpoint import Checkpoints
from podium.config import CheckpointConfig, TrainConfig
from podium.config_dict import from_json_dict
from podium.config_lora import Lora
from podium.config_model import ModelConfig
from podium.errors import CheckpointError
from podium.models import adapters, bind
from podium.resume import SavedBase, changed_base, find_base
from podium.sharding.rules import ShardingRules
from podium.trainer.digest import digest
from podium.trainer.state import param_layout


class Weights(NamedTuple):
    """What a run's checkpoint computes with."""

    cfg: TrainConfig
    params: Any  # as `adapters.bound` makes them
    frozen: Any  # what is below the adapters
    fingerprint: str


def load_base(
    cfg: TrainConfig, rules: ShardingRules | None, saved: SavedBase | None
) -> tuple[Any, SavedBase]:
    """What `cfg.init_from` holds, frozen as `cfg.lora` says, and what it is.

    `saved` is what a checkpoint of the run says of it; None: the run begins. Raises
    CheckpointError where it is gone or has other values.
    """
    assert cfg.init_from is not None
    assert cfg.lora is not None
    path = str(Path(cfg.init_from).absolute())
    step = find_base(path, saved)
    frozen, fingerprint = _frozen(path, step, cfg.model, cfg.lora, rules)
    if saved is not None and saved.fingerprint != fingerprint:
        raise CheckpointError(changed_base(saved._replace(path=path), fingerprint))
    return frozen, SavedBase(path, step, fingerprint)


def load_adapted(
    checkpoints: Checkpoints, step: int, model: ModelConfig, rules: ShardingRules | None
) -> Weights:
    """The adapters of a checkpoint on their base."""
    run = checkpoints.run(step)
    cfg = from_json_dict(TrainConfig, run["config"])
    saved = SavedBase(**run["base"])
    cfg = dataclasses.replace(cfg, model=model, init_from=saved.path)
    assert cfg.lora is not None
    trained = adapters.trained(bind.abstract(model), cfg.lora)
    params = checkpoints.restore_params(step, trained.shapes, _layout(trained, rules))
    lines = [_line(path, w, jax.jit(digest)(w)) for path, w in _each(params)]
    fingerprint = fingerprints.of_adapters(cfg.lora, saved.fingerprint, lines)
    frozen, _ = load_base(cfg, rules, saved)
    return Weights(cfg, adapters.bound(cfg.lora, params, frozen), frozen, fingerprint)


def merged_params(
    checkpoints: Checkpoints, step: int, model: ModelConfig, rules: ShardingRules | None
) -> Any:
    """The same as plain float32 parameters."""
    of = bind.abstract(model)
    whole = load_adapted(checkpoints, step, model, rules).params
    merge = functools.partial(adapters.merge, of)
    return jax.jit(merge, out_shardings=_layout(of, rules))(whole)


def _frozen(
    path: str, step: int, model: ModelConfig, lora: Lora, rules: ShardingRules | None
) -> tuple[Any, str]:
    """The weights of a run, and their fingerprint. One array after the other, so that no
    more than one is there in float32 beside those that are frozen."""
    of = bind.abstract(model)
    layout = dict(_each(_layout(adapters.frozen(of, lora), rules)))
    kernels = {k.path: k for k in adapters.kernels(of)}
    frozen, lines, fingerprint = {}, [], None
    checkpoints = Checkpoints(path, CheckpointConfig())
    try:
        below = from_json_dict(TrainConfig, checkpoints.run(step)["config"])
        if below.lora is None:
            arrays = checkpoints.each_param(step, of.shapes, _layout(of, rules))
        else:
            weights = load_adapted(checkpoints, step, model, rules)
            fingerprint = weights.fingerprint
            merge = jax.jit(functools.partial(adapters.merge, of))
            arrays = _each(merge(weights.params))
        for names, w in arrays:

            def freeze(w: Any, names: tuple[str, ...] = names) -> tuple[Any, Any]:
                kernel = kernels.get(names)
                return adapters.freeze_leaf(lora, names, kernel, w), digest(w)

            leaf, number = jax.jit(freeze, out_shardings=(layout[names], None))(w)
            bind.insert(frozen, names, leaf)
            lines.append(_line(names, w, number))
    finally:
        checkpoints.close()
    return frozen, fingerprint or fingerprints.of_weights(lines)


def _layout(of: bind.Abstract, rules: ShardingRules | None) -> Any:
    if rules is not None:
        return param_layout(of, rules)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda _: one, of.shapes)


def _each(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple, Any]]:
    for name, node in tree.items():
        if isinstance(node, dict):
            yield from _each(node, (*path, name))
        else:
            yield (*path, name), node


def _line(path: tuple[str, ...], w: Any, number: Any) -> str:
    return fingerprints.line("/".join(path), w.shape, int(np.asarray(number)))
