# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Between a Transformer and its parameters as a plain nested dict.

Trainers, optimizers and checkpoints hold the dict: names -> float32 arrays. The module
exists only inside a traced function, where `bind` puts the two together again.
"""

import functools
from typing import Any, NamedTuple

from flax import nnx
from jax import Array

from podium.config_model import ModelConfig
from podium.models.transformer import Transformer

Params = dict[str, Any]  # nested, strings -> Array


class Abstract(NamedTuple):
    """A model without values: what there will be, before any memory is taken."""

    graphdef: Any
    shapes: Params  # jax.ShapeDtypeStruct leaves
    axes: dict[str, Any]  # tuples of logical axis names, one per dim


@functools.cache
def abstract(cfg: ModelConfig) -> Abstract:
    """Shapes and logical axes of every parameter; allocates nothing."""
    model = nnx.eval_shape(lambda: Transformer(cfg, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    shapes, axes = {}, {}
    for path, variable in nnx.to_flat_state(state):
        insert(shapes, path, variable.get_value())
        insert(axes, path, variable.get_metadata("axes"))
    return Abstract(graphdef, shapes, axes)


def init_params(cfg: ModelConfig, key: Array) -> Params:
    """Fresh parameters. Call it under jit with shardings, and it creates them sharded;
    the values depend on `key` alone."""
    return nnx.to_pure_dict(nnx.state(Transformer(cfg, rngs=nnx.Rngs(key))))


def bind(graphdef: Any, params: Params) -> Transformer:
    """The module over these parameters: no copy, for use inside a traced function."""
    return nnx.merge(graphdef, params)


def insert(tree: dict[str, Any], path: tuple, leaf: Any) -> None:
    """Puts a leaf into a nested dict, making what is above it."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf
