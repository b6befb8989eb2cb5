# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Next-token cross-entropy in float32, over chunks of the sequence.

A 128k vocabulary makes the logits the largest array of the step: at 4 rows of 8192
tokens they take 16 GiB in float32. So the sequence is cut into chunks, the logits of
one chunk exist at a time, and the backward pass computes them again.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from podium.config import LossConfig
from podium.sharding.constrain import current_rules, shard


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossSums:
    """Sums over scored tokens, so that batches and devices add up exactly."""

    cross_entropy: Any  # [] nats
    z: Any  # [] squared log-normaliser, PaLM arXiv:2204.02311 section 5
    tokens: Any  # [] scored tokens

    def objective(self, z_loss: float, num_tokens: Array) -> Array:
        """What is minimised: the mean over `num_tokens` of cross-entropy + z-loss."""
        return (self.cross_entropy + z_loss * self.z) / jnp.maximum(num_tokens, 1.0)


def scored_tokens(targets_BT: Int[Array, "B T"]) -> Array:
    """How many positions have a target, as float32."""
    return jnp.sum(targets_BT >= 0, dtype=jnp.int32).astype(jnp.float32)


def loss_sums(
    logits_fn: Callable[[Array], Array],
    hidden_BTD: Float[Array, "B T D"],
    targets_BT: Int[Array, "B T"],
    cfg: LossConfig,
) -> LossSums:
    """Sums of the loss over positions whose target is not -1.

    `logits_fn` maps hidden [B, C, D] to float32 logits [B, C, V].
    """
    B, T = targets_BT.shape
    num_chunks = _num_chunks(B, T, cfg.chunk_tokens)
    if num_chunks == 1:
        return _chunk_sums(logits_fn(hidden_BTD), targets_BT)
    chunk = -(-T // num_chunks)
    pad = num_chunks * chunk - T
    hidden_BTD = jnp.pad(hidden_BTD, ((0, 0), (0, pad), (0, 0)))
    targets_BT = jnp.pad(targets_BT, ((0, 0), (0, pad)), constant_values=-1)
    # The chunk axis goes first, the batch axis stays whole: its sharding is kept.
    hidden = hidden_BTD.reshape(B, num_chunks, chunk, -1).swapaxes(0, 1)
    targets = targets_BT.reshape(B, num_chunks, chunk).swapaxes(0, 1)

    @jax.checkpoint
    def body(total: LossSums, xs: tuple[Array, Array]) -> tuple[LossSums, None]:
        hidden_BCD, targets_BC = xs
        hidden_BCD = shard(hidden_BCD, "batch", "length", "act_embed")
        sums = _chunk_sums(logits_fn(hidden_BCD), targets_BC)
        return jax.tree.map(jnp.add, total, sums), None

    zero = jnp.zeros((), jnp.float32)
    total, _ = jax.lax.scan(body, LossSums(zero, zero, zero), (hidden, targets))
    return total


def _chunk_sums(logits_BCV: Array, targets_BC: Array) -> LossSums:
    logits_BCV = shard(logits_BCV, "batch", "length", "vocab")
    lse_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
    # A select and a sum instead of a gather: it fuses, and a sharded vocabulary
    # needs one small all-reduce instead of the logits on every device.
    vocab = jax.lax.broadcasted_iota(jnp.int32, logits_BCV.shape, 2)
    hit_BCV = vocab == targets_BC[..., None]
    label_BC = jnp.sum(jnp.where(hit_BCV, logits_BCV, 0.0), axis=-1)
    scored_BC = (targets_BC >= 0).astype(jnp.float32)
    return LossSums(
        cross_entropy=jnp.sum((lse_BC - label_BC) * scored_BC),
        z=jnp.sum(jnp.square(lse_BC) * scored_BC),
        tokens=jnp.sum(scored_BC),
    )


def _num_chunks(B: int, T: int, chunk_tokens: int) -> int:
    rules = current_rules()
    batch_shards = 1
    if rules is not None:
        for axis in rules.mesh_axes("batch"):
            batch_shards *= rules.mesh.shape[axis]
    rows = max(1, B // batch_shards)
    return min(T, -(-rows * T // chunk_tokens))
