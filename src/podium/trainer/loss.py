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
from podium.sharding.constrain import current_platform, current_rules, shard


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

    def mean(self) -> Array:
        """Nats per token; no number where there is none."""
        return self.cross_entropy / self.tokens

    def metrics(self, z_loss: float) -> dict[str, Array]:
        """What a step reports of them."""
        return {"z_loss": z_loss * self.z / jnp.maximum(self.tokens, 1.0)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GroupSums:
    """Sums over the scored tokens of each of G groups, as data sets are or sources."""

    cross_entropy_G: Any  # float32, nats
    tokens_G: Any  # int32, scored tokens


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
    zero = jnp.zeros((), jnp.float32)

    def chunk_sums(hidden_BCD: Array, targets_BC: Array) -> LossSums:
        return _chunk_sums(logits_fn(hidden_BCD), targets_BC)

    total = LossSums(zero, zero, zero, zero)
    return over_chunks(chunk_sums, total, hidden_BTD, (targets_BT,), cfg)


def group_sums(
    logits_fn: Callable[[Array], Array],
    hidden_BTD: Float[Array, "B T D"],
    targets_BT: Int[Array, "B T"],
    groups_BT: Int[Array, "B T"],
    num_groups: int,
    cfg: LossConfig,
) -> GroupSums:
    """As `loss_sums`, but the cross-entropy alone, for the groups of the targets."""

    def chunk_sums(hidden_BCD: Array, targets_BC: Array, groups_BC: Array) -> GroupSums:
        logits_BCV = shard(logits_fn(hidden_BCD), "batch", "length", "vocab")
        lse_BC, label_BC = lse_and_label(logits_BCV, targets_BC)
        scored_BC = targets_BC >= 0
        groups = jnp.where(scored_BC, groups_BC, num_groups).reshape(-1)  # or none
        nats = jnp.where(scored_BC, lse_BC - label_BC, 0.0).reshape(-1)
        sums = jax.ops.segment_sum(nats, groups, num_groups)
        counts = jax.ops.segment_sum(jnp.ones_like(groups), groups, num_groups)
        return GroupSums(sums, counts)

    zero = GroupSums(
        jnp.zeros(num_groups, jnp.float32), jnp.zeros(num_groups, jnp.int32)
    )
    return over_chunks(chunk_sums, zero, hidden_BTD, (targets_BT, groups_BT), cfg)


def over_chunks(
    chunk_sums: Callable[..., Any],
    zero: Any,
    hidden_BTD: Array,
    labels: tuple[Array, ...],
    cfg: LossConfig,
) -> Any:
    """The sum of `chunk_sums(hidden, *labels)` over chunks of the sequence; labels, int32
    [B, T], are filled up with -1."""
    B, T = labels[0].shape
    cuts, num_chunks = _cuts_and_chunks(B, T, cfg.chunk_tokens)
    if num_chunks == 1:
        hidden_BTD = shard(hidden_BTD, "batch", "length", "act_embed")
        return chunk_sums(hidden_BTD, *labels)
    parts = (
        _in_chunks(hidden_BTD, 0, cuts, num_chunks),
        tuple(_in_chunks(each, -1, cuts, num_chunks) for each in labels),
    )

    @jax.checkpoint
    def body(total: Any, xs: tuple[Array, tuple[Array, ...]]) -> tuple[Any, None]:
        hidden_BCD, labels_BC = xs
        hidden_BCD = shard(hidden_BCD, "batch", "length", "act_embed")
        sums = chunk_sums(hidden_BCD, *labels_BC)
        return jax.tree.map(jnp.add, total, sums), None

    total, _ = jax.lax.scan(body, zero, parts)
    return total


def token_logprobs(
    logits_fn: Callable[[Array], Array],
    hidden_BTD: Float[Array, "B T D"],
    targets_BT: Int[Array, "B T"],
    cfg: LossConfig,
) -> Float[Array, "B T"]:
    """The log-probability of every target, float32; 0 where it is -1.

    Chunk by chunk, as `loss_sums`.
    """
    B, T = targets_BT.shape
    cuts, num_chunks = _cuts_and_chunks(B, T, cfg.chunk_tokens)

    @jax.checkpoint
    def chunk(hidden_BCD: Array, targets_BC: Array) -> Array:
        hidden_BCD = shard(hidden_BCD, "batch", "length", "act_embed")
        logits_BCV = shard(logits_fn(hidden_BCD), "batch", "length", "vocab")
        lse_BC, label_BC = lse_and_label(logits_BCV, targets_BC)
        return jnp.where(targets_BC >= 0, label_BC - lse_BC, 0.0)

    if num_chunks == 1:
        return chunk(hidden_BTD, targets_BT)
    hidden = _in_chunks(hidden_BTD, 0, cuts, num_chunks)
    targets = _in_chunks(targets_BT, -1, cuts, num_chunks)
    _, found = jax.lax.scan(lambda _, xs: (None, chunk(*xs)), None, (hidden, targets))
    found = found.reshape(num_chunks, B, cuts, -1)
    return (
        jnp.moveaxis(found, 0, 2).reshape(B, cuts, -1)[:, :, : T // cuts].reshape(B, T)
    )


def _in_chunks(x: Array, fill: int, cuts: int, num_chunks: int) -> Array:
    # [B, T, ..] -> [chunks, B, cuts * chunk, ..]: every chunk takes its share from
    # every device's positions, so that no chunk moves and none waits for another.
    B, T = x.shape[:2]
    chunk = -(-T // (cuts * num_chunks))
    pad = num_chunks * chunk - T // cuts
    x = x.reshape(B, cuts, T // cuts, *x.shape[2:])
    rest = [(0, 0)] * (x.ndim - 3)
    x = jnp.pad(x, [(0, 0), (0, 0), (0, pad), *rest], constant_values=fill)
    x = jnp.moveaxis(x.reshape(B, cuts, num_chunks, chunk, *x.shape[3:]), 2, 0)
    return x.reshape(num_chunks, B, cuts * chunk, *x.shape[4:])


def _chunk_sums(logits_BCV: Array, targets_BC: Array) -> LossSums:
    logits_BCV = shard(logits_BCV, "batch", "length", "vocab")
    lse_BC, label_BC = lse_and_label(logits_BCV, targets_BC)
    scored_BC = (targets_BC >= 0).astype(jnp.float32)
    return LossSums(
        cross_entropy=jnp.sum((lse_BC - label_BC) * scored_BC),
        z=jnp.sum(jnp.square(lse_BC) * scored_BC),
        tokens=jnp.sum(scored_BC),
        balance=jnp.zeros((), jnp.float32),
    )


def lse_and_label(logits_BCV: Array, targets_BC: Array) -> tuple[Array, Array]:
    """The logarithm of the softmax's normaliser, and the target's logit."""
    rules = current_rules()
    is_whole = rules is None or rules.num_shards("vocab") == 1
    if current_platform() == "gpu" and is_whole:
        return _in_one_pass(logits_BCV, targets_BC)
    lse_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
    label_BC = jnp.sum(jnp.where(_hit(logits_BCV, targets_BC), logits_BCV, 0.0), -1)
    return lse_BC, label_BC


def _hit(logits_BCV: Array, targets_BC: Array) -> Array:
    # A select and a sum instead of a gather: it fuses, and a sharded vocabulary
    # needs one small all-reduce instead of the logits on every device.
    vocab = jax.lax.broadcasted_iota(jnp.int32, logits_BCV.shape, 2)
    return vocab == targets_BC[..., None]


@jax.custom_vjp
def _in_one_pass(logits_BCV: Array, targets_BC: Array) -> tuple[Array, Array]:
    """`lse_and_label`, its reductions joined: XLA:GPU would read the logits, the
    largest array of the step, once for each.

    The sum is rescaled where the maximum grows, arXiv:1805.02867.
    """

    def join(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
        (top_a, sum_a, label_a), (top_b, sum_b, label_b) = a, b
        top = jnp.maximum(top_a, top_b)
        less = jnp.exp(-jnp.abs(top_a - top_b))  # one, as exponentials take the time
        total = jnp.where(top_a < top_b, sum_a * less + sum_b, sum_a + sum_b * less)
        return top, total, label_a + label_b

    dtype = logits_BCV.dtype
    zero, lowest = jnp.zeros((), dtype), jnp.asarray(jnp.finfo(dtype).min, dtype)
    # Tied to the chunk: XLA:GPU takes what is the same for all of them, [B, C, V], out
    # of the loop, and then reads it from memory.
    vocab_V, none, one, targets_BC = jax.lax.optimization_barrier(
        (jnp.arange(logits_BCV.shape[2]), zero, jnp.ones((), dtype), targets_BC)
    )
    hit_BCV = vocab_V[None, None] == targets_BC[..., None]
    top_BC, total_BC, label_BC = jax.lax.reduce(
        (
            logits_BCV,
            jnp.broadcast_to(one, logits_BCV.shape),
            jnp.where(hit_BCV, logits_BCV, none),
        ),
        (lowest, zero, zero),  # not -inf, whose difference to itself is no number
        join,
        (2,),
    )
    return top_BC + jnp.log(total_BC), label_BC


def _in_one_pass_forward(logits_BCV: Array, targets_BC: Array):
    lse_BC, label_BC = _in_one_pass(logits_BCV, targets_BC)
    return (lse_BC, label_BC), (logits_BCV, targets_BC, lse_BC)


def _in_one_pass_backward(saved: tuple[Array, ...], g: tuple[Array, Array]):
    logits_BCV, targets_BC, lse_BC = saved
    of_lse, of_label = (x[..., None] for x in g)
    softmax_BCV = jnp.exp(logits_BCV - lse_BC[..., None])
    hit_BCV = _hit(logits_BCV, targets_BC)
    return softmax_BCV * of_lse + jnp.where(hit_BCV, of_label, 0.0), None


_in_one_pass.defvjp(_in_one_pass_forward, _in_one_pass_backward)


def _cuts_and_chunks(B: int, T: int, chunk_tokens: int) -> tuple[int, int]:
    """Into how many parts the mesh cuts a row, and chunks of the sequence."""
    rules = current_rules()
    if rules is None:
        return 1, min(T, -(-B * T // chunk_tokens))
    cuts = rules.num_shards("act_length")
    tokens = max(1, B // rules.num_shards("batch")) * T // rules.num_shards("length")
    return cuts, min(T // cuts, -(-tokens // chunk_tokens))
