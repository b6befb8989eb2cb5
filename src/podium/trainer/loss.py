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
    balance: Any  # [] how unevenly experts were chosen, weighted; 0 without experts

    def objective(self, z_loss: float, num_tokens: Array) -> Array:
        """What is minimised: the mean over `num_tokens` of cross-entropy, z-loss and
        balance."""
        total = self.cross_entropy + z_loss * self.z + self.balance
        return total / jnp.maximum(num_tokens, 1.0)


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
    cuts, num_chunks = _cuts_and_chunks(B, T, cfg.chunk_tokens)
    if num_chunks == 1:
        hidden_BTD = shard(hidden_BTD, "batch", "length", "act_embed")
        return _chunk_sums(logits_fn(hidden_BTD), targets_BT)
    chunk = -(-T // (cuts * num_chunks))
    pad = num_chunks * chunk - T // cuts

    def in_chunks(x: Array, fill: int) -> Array:
        # [B, T, ..] -> [chunks, B, cuts * chunk, ..]: every chunk takes its share from
        # every device's positions, so that no chunk moves and none waits for another.
        x = x.reshape(B, cuts, T // cuts, *x.shape[2:])
        rest = [(0, 0)] * (x.ndim - 3)
        x = jnp.pad(x, [(0, 0), (0, 0), (0, pad), *rest], constant_values=fill)
        x = jnp.moveaxis(x.reshape(B, cuts, num_chunks, chunk, *x.shape[3:]), 2, 0)
        return x.reshape(num_chunks, B, cuts * chunk, *x.shape[4:])

    hidden, targets = in_chunks(hidden_BTD, 0), in_chunks(targets_BT, -1)

    @jax.checkpoint
    def body(total: LossSums, xs: tuple[Array, Array]) -> tuple[LossSums, None]:
        hidden_BCD, targets_BC = xs
        hidden_BCD = shard(hidden_BCD, "batch", "length", "act_embed")
        sums = _chunk_sums(logits_fn(hidden_BCD), targets_BC)
        return jax.tree.map(jnp.add, total, sums), None

    zero = jnp.zeros((), jnp.float32)
    total, _ = jax.lax.scan(body, LossSums(zero, zero, zero, zero), (hidden, targets))
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
        balance=jnp.zeros((), jnp.float32),
    )


def _cuts_and_chunks(B: int, T: int, chunk_tokens: int) -> tuple[int, int]:
    """Into how many parts the mesh cuts a row, and chunks of the sequence."""
    rules = current_rules()
    if rules is None:
        return 1, min(T, -(-B * T // chunk_tokens))
    cuts = rules.num_shards("act_length")
    tokens = max(1, B // rules.num_shards("batch")) * T // rules.num_shards("length")
    return cuts, min(T // cuts, -(-tokens // chunk_tokens))
