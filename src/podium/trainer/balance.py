# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a step makes of the experts' load: a loss, a metric, a change of bias."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from podium.config_model import BiasConfig, ModelConfig, MoeConfig
from podium.models.bind import Params
from podium.models.moe import Routing, balance_weight

Loads = dict[str, dict[str, Any]]  # stack -> block -> tokens per expert [.., E]


def summed(cfg: ModelConfig, routings: Any) -> tuple[Array, Loads]:
    """The balance loss, summed over layers and weighted; and every layer's load."""
    balance, loads = jnp.zeros((), jnp.float32), {}
    for stack, blocks in routings.items():
        for block, routing in blocks.items():
            if isinstance(routing, Routing):
                balance += balance_weight(cfg) * jnp.sum(routing.balance)
                loads.setdefault(stack, {})[block] = routing.load_E
    return balance, loads


def max_load(loads: Loads) -> Array:
    """The busiest expert's load over an even share, of any layer; 1 is perfect."""
    worst = [
        jnp.max(load_LE / jnp.maximum(jnp.mean(load_LE, axis=-1, keepdims=True), 1e-9))
        for load_LE in jax.tree.leaves(loads)
    ]
    return jnp.max(jnp.stack(worst))


def balanced(cfg: ModelConfig, params: Params, loads: Loads) -> Params:
    """Params whose choice biases moved against the load: by a fixed rate up for an
    expert below the mean and down above it. arXiv:2408.15664, algorithm 1."""
    moe = cfg.mlp
    if not (isinstance(moe, MoeConfig) and isinstance(moe.balance, BiasConfig)):
        return params
    rate = moe.balance.update_rate
    for stack, blocks in loads.items():
        for block, load_LE in blocks.items():
            mean_L1 = jnp.mean(load_LE, axis=-1, keepdims=True)
            path = (stack, block, "mlp", "router", "choice_bias")
            change_LE = rate * jnp.sign(mean_L1 - load_LE)
            params = _added(params, path, change_LE)
    return params


def _added(tree: Any, path: tuple[str, ...], change: Array) -> Any:
    name, *rest = path
    new = _added(tree[name], tuple(rest), change) if rest else tree[name] + change
    return {**tree, name: new}
