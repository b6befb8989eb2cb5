# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How large the activations behind every layer are, for who looks for an overflow."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from podium.input.batch import Batch
from podium.models import bind
from podium.models.layer_stack import flat, layer_stacks, stack_axes
from podium.models.transformer import in_order
from podium.sharding.constrain import use_rules
from podium.trainer.setup import Setup


@dataclasses.dataclass(frozen=True)
class LayerStats:
    """Of the residual stream behind one part of the model."""

    name: str  # "embed", "stack/3" (its fourth layer or group of them), "final_norm"
    largest: float  # absolute value; NaN or infinite where one element is

    @property
    def is_finite(self) -> bool:
        """Whether every element is a number."""
        return math.isfinite(self.largest)


def layer_stats(parts: Setup, params: Any, batch: Batch) -> list[LayerStats]:
    """The forward pass over a batch, layer by layer, in the config's compute type."""
    cfg = parts.cfg.model

    @jax.jit
    def run(params: Any, batch: Batch) -> dict[str, Any]:
        with use_rules(parts.rules):
            net = bind.bind(parts.model.graphdef, params)
            order = net.order(batch.tokens.shape[1])
            batch = Batch(*(in_order(x, order) for x in batch))
            x_BTD = net._embed(batch.tokens, batch.positions)
            rows = net._rows(batch.positions, batch.segment_ids)
            found = {"embed": _largest(x_BTD)[None]}
            for name in layer_stacks(cfg):
                graphdef, stacked = nnx.split(getattr(net, name))
                layers = flat(nnx.to_pure_dict(stacked), stack_axes(cfg, name))

                def step(x_BTD, layer, graphdef=graphdef):
                    x_BTD, _ = nnx.merge(graphdef, layer)(x_BTD, rows)
                    return x_BTD, _largest(x_BTD)

                x_BTD, found[name] = jax.lax.scan(step, x_BTD, layers)
            found["final_norm"] = _largest(net.final_norm(x_BTD))[None]
            return found

    found = jax.device_get(run(params, batch))
    names = ["embed", *layer_stacks(cfg), "final_norm"]  # a dict comes back sorted
    return [
        LayerStats(name if len(found[name]) == 1 else f"{name}/{i}", float(value))
        for name in names
        for i, value in enumerate(found[name])
    ]


def _largest(x: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(x.astype(jnp.float32)))
