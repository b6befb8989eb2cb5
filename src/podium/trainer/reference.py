# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The reference of a run on preferences: the weights of `init_from`, which stay.

They lie as the weights that are trained do, and are in no checkpoint: a run that is
continued reads them again, from the checkpoint that D/reference.json names. With
adapters there is no such copy: the weights below them are the same (`state.reference`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from podium.checkpoint import restore_params
from podium.config import TrainConfig
from podium.sharding.rules import ShardingRules
from podium.trainer.state import StateLayout, TrainState


def with_reference(layout: StateLayout, cfg: TrainConfig) -> StateLayout:
    """The layout of a state that has a reference."""
    dtype = _dtype(cfg)
    shapes = jax.tree.map_with_path(
        lambda path, s: jax.ShapeDtypeStruct(s.shape, _kept(path, dtype)),
        layout.shapes.params,
    )
    return dataclasses.replace(
        layout,
        shapes=dataclasses.replace(layout.shapes, reference=shapes),
        shardings=dataclasses.replace(
            layout.shardings, reference=layout.shardings.params
        ),
    )


def as_reference(params: Any, cfg: TrainConfig) -> Any:
    """A copy of weights in the type of the reference. Under jit."""
    dtype = _dtype(cfg)

    def copy(path: tuple[Any, ...], leaf: Any) -> Any:
        return jnp.array(leaf, _kept(path, dtype), copy=True)

    return jax.tree.map_with_path(copy, params)


def reference_of(
    cfg: TrainConfig, shardings: Any, step: int, rules: ShardingRules
) -> Any:
    """The weights of checkpoint `step` of `init_from`."""
    _, params = restore_params(cfg.init_from or "", step, rules=rules, model=cfg.model)
    cast = jax.jit(lambda params: as_reference(params, cfg), out_shardings=shardings)
    return cast(params)


def with_itself(state: TrainState, cfg: TrainConfig, layout: StateLayout) -> TrainState:
    """The state with its own weights as the reference, as at the beginning of a run."""
    if not cfg.has_reference:
        return state
    copy = jax.jit(
        lambda params: as_reference(params, cfg),
        out_shardings=layout.shardings.reference,
    )
    return dataclasses.replace(state, reference=copy(state.params))


def _dtype(cfg: TrainConfig) -> str:
    assert cfg.dpo is not None
    return cfg.dpo.reference_dtype or cfg.model.dtype


def _kept(path: tuple[Any, ...], dtype: str) -> Any:
    # Norms compute in float32, so their scales stay as they are.
    return jnp.float32 if path[-1].key == "scale" else jnp.dtype(dtype)
