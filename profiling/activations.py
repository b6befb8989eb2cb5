# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What the parts of a model put out: embeddings, branches, residual stream, logits."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from podium.input.batch import Batch
from podium.models import bind
from podium.models.layer_stack import flat, layer_stacks, stack_axes
from podium.models.transformer import INSIDE, Block
from podium.sharding.constrain import shard, use_rules
from podium.trainer.setup import Setup


def activations(parts: Setup, params: Any, batch: Batch) -> dict[str, jax.Array]:
    """Of a forward pass: embed [1, B, T, D]; attention, mlp (what a branch adds to the
    residual stream) and residual (behind a block) [L, B, T, D]; logits [1, B, T, V]."""
    cfg = parts.cfg.model
    with use_rules(parts.rules):
        net = bind.bind(parts.model.graphdef, params)
        x_BTD = net._embed(batch.tokens, batch.positions)
        rows = net._rows(batch.positions, batch.segment_ids)
        found: dict[str, list[jax.Array]] = {"embed": [x_BTD[None]]}
        found |= {"attention": [], "mlp": [], "residual": []}
        for name in layer_stacks(cfg):
            graphdef, stacked = nnx.split(getattr(net, name))
            layers = flat(nnx.to_pure_dict(stacked), stack_axes(cfg, name))

            def step(x_BTD: jax.Array, layer: Any, graphdef: Any = graphdef):
                group, out = nnx.merge(graphdef, layer), []
                for block_name in group.names:
                    x_BTD, of_block = _block(getattr(group, block_name), x_BTD, rows)
                    out.append(of_block)
                return x_BTD, jax.tree.map(lambda *xs: jnp.stack(xs), *out)

            x_BTD, of_stack = jax.lax.scan(step, x_BTD, layers)
            for kind, value in of_stack.items():
                found[kind].append(value.reshape(-1, *x_BTD.shape))
        logits_BTV = net.logits(net.final_norm(x_BTD))[..., : cfg.vocab_size]
        found["logits"] = [logits_BTV[None]]
    return {kind: jnp.concatenate(values) for kind, values in found.items()}


def _block(block: Block, x_BTD: jax.Array, rows: Any) -> tuple[jax.Array, dict]:
    inside_BTD = shard(block.attention_norm(x_BTD), *INSIDE)
    y_BTD = block._add_attention(x_BTD, block.attention(inside_BTD, rows))
    z_BTD, _ = block._add_mlp(y_BTD, rows)
    return z_BTD, {"attention": y_BTD - x_BTD, "mlp": z_BTD - y_BTD, "residual": z_BTD}
