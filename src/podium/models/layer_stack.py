# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Blocks of one shape as a stack: which there are, made, rematerialised, run.

Their parameters carry leading axes, and `jax.lax.scan` runs them, so that compile time
does not grow with depth.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from podium.config_model import ModelConfig
from podium.config_remat import kept
from podium.models import attention_cudnn
from podium.models.attention import LayerKind, Rows
from podium.models.moe import Routing


def with_remat(fn: Callable, remat: str, *, prevent_cse: bool) -> Callable:
    """`fn` whose backward pass computes again what `model.remat` does not keep."""
    saved = remat_policy(remat)
    if saved is None:
        return fn
    return jax.checkpoint(fn, policy=saved, prevent_cse=prevent_cse)


def remat_policy(remat: str, *also: str) -> Callable | None:
    """What the backward pass finds: the tensors that `model.remat` names, and `also`
    on the device unless it has them on the host. None: everything."""
    names = kept(remat)
    if names is None:
        return None
    named = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=names.device | (set(also) - names.host),
        names_which_can_be_offloaded=names.host,
        offload_src="device",
        offload_dst="pinned_host",
    )
    return attention_cudnn.keeping_output(names, named)


def layer_stacks(cfg: ModelConfig) -> dict[str, tuple[tuple[LayerKind, ...], int]]:
    """Name -> (pattern, repeats) of each stack of the model, in order."""
    pattern = cfg.attention.pattern
    first = 0 if cfg.dense_prefix is None else cfg.dense_prefix.num_layers
    repeats, rest = divmod(cfg.num_layers - first, len(pattern))
    stacks = {
        "prefix": (pattern, first // len(pattern)),
        "stack": (pattern, repeats),
        "tail": (pattern[:rest], 1),
    }
    return {name: s for name, s in stacks.items() if s[0] and s[1]}


def stack_config(cfg: ModelConfig, name: str) -> ModelConfig:
    """The model's config as the blocks of one stack see it; `remat` is said of all."""
    if name == "prefix" and cfg.dense_prefix is not None:
        return dataclasses.replace(cfg, mlp=cfg.dense_prefix.mlp, remat="none")
    return cfg


def stack_axes(cfg: ModelConfig, name: str) -> dict[str, int]:
    """Logical axis -> size of the leading axes of a stack's parameters.

    Only "layers" is split over the stages of a pipeline.
    """
    _, num = layer_stacks(cfg)[name]
    if name != "stack":
        return {"repeats": num}
    repeats = cfg.pipeline.repeats
    runs = {"repeats": repeats} if repeats > 1 else {}
    return {**runs, "layers": num // repeats}


def stacked(
    make: Callable[[nnx.Rngs], nnx.Module], axes: dict[str, int], rngs: nnx.Rngs
) -> nnx.Module:
    """Modules of one shape as one, parameters stacked on leading axes, see
    `stack_axes`; their values depend on the number of modules alone."""
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    keys = jax.random.split(rngs.params(), math.prod(axes.values()))
    state = jax.vmap(lambda key: nnx.state(make(nnx.Rngs(key))))(keys)
    for _, variable in nnx.to_flat_state(state):
        value = variable.get_value()
        variable.set_value(value.reshape(*axes.values(), *value.shape[1:]))
        variable.set_metadata("axes", (*axes, *variable.get_metadata("axes")))
    return nnx.merge(graphdef, state)


def run_layers(
    graphdef: Any, layers: Any, num: int, x_BTD: Array, rows: Rows, *, is_scanned: bool
) -> tuple[Array, dict[str, Routing | None]]:
    """`num` groups of blocks one after the other; leaves of `layers` are [num, ..]."""

    def step(x_BTD: Array, layer: Any) -> tuple[Array, dict[str, Routing | None]]:
        return nnx.merge(graphdef, layer)(x_BTD, rows)

    if is_scanned:
        return jax.lax.scan(step, x_BTD, layers)
    routings = []
    for i, layer in enumerate(unstack(layers, num)):
        with jax.named_scope(str(i)):
            x_BTD, routing = step(x_BTD, layer)
        routings.append(routing)
        # Without it XLA sums the later residuals anew in every layer's fusions.
        x_BTD = jax.lax.optimization_barrier(x_BTD)
    return x_BTD, jax.tree.map(lambda *xs: jnp.stack(xs), *routings)


def flat(layers: Any, axes: dict[str, int]) -> Any:
    """All leading axes of a stack as one."""
    return jax.tree.map(lambda w: w.reshape(-1, *w.shape[len(axes) :]), layers)


def apart(layers: Any, axes: dict[str, int]) -> list[Any]:
    """The layers of a stack one by one, their parameters without leading axes.

    In place of an array a parameter may have been given as a tuple of them, one a layer.
    """
    num = math.prod(axes.values())
    if isinstance(jax.tree.leaves(layers, is_leaf=_is_apart)[0], tuple):
        return [
            jax.tree.map(lambda each, i=i: each[i], layers, is_leaf=_is_apart)
            for i in range(num)
        ]
    return unstack(flat(layers, axes), num)


def _is_apart(x: Any) -> bool:
    return isinstance(x, tuple)


def unstack(stack: Any, num: int) -> list[Any]:
    """The `num` layers of a stacked tree. By a split, whose gradient is one
    concatenation; that of an index would be a sum of `num` arrays of the full size.
    """
    leaves, tree = jax.tree.flatten(stack)
    split = [jax.lax.split(leaf, (1,) * num) for leaf in leaves]
    layers = zip(*split, strict=True)
    return [tree.unflatten([jnp.squeeze(x, 0) for x in layer]) for layer in layers]
