# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out loss: every scored token of the eval split counts the same."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from podium.errors import DataError
from podium.input.batch import Batch
from podium.trainer.loss import GroupSums
from podium.trainer.preference import PreferenceSums

_EMPTY = (
    "the eval split holds no scored token; raise data.eval_fraction, or set "
    "--config.eval=None"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Sums of cross-entropy over scored tokens, in nats, of one group or of all."""

    nats: float
    tokens: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """e to the loss, at most e to the 700."""
        return math.exp(min(self.loss, 700.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found: the whole, and its groups where there are several.

    The whole is the sum of the groups, to the bit: sums of a batch come from the
    devices in float32, and are added up in float64.
    """

    total: HeldOut
    groups: dict[str, HeldOut]  # those of which a token was scored

    def to_metrics(self) -> dict[str, float]:
        """As a row of metrics.jsonl has it."""
        return {
            "eval_loss": self.total.loss,
            "eval_perplexity": self.total.perplexity,
            "eval_tokens": self.total.tokens,
            **{f"eval_loss/{name}": group.loss for name, group in self.groups.items()},
        }


def evaluate(
    eval_step: Callable[[Any, Batch, Any], GroupSums],
    params: Any,
    batches: Iterable[tuple[Batch, Any]],
    names: Sequence[str],
) -> Evaluation:
    """Mean cross-entropy in nats per token, over all of the batches and by group.

    `batches` come with the group of every target, [B, T], a number into `names`. The
    sums of a batch are read when the next one is under way, so that nothing waits.
    """
    nats, tokens = np.zeros(len(names)), np.zeros(len(names), np.int64)
    under_way: GroupSums | None = None
    for batch, groups in batches:
        done, under_way = under_way, eval_step(params, batch, groups)
        if done is not None:
            nats += np.asarray(done.cross_entropy_G, np.float64)
            tokens += np.asarray(done.tokens_G)
    if under_way is not None:
        nats += np.asarray(under_way.cross_entropy_G, np.float64)
        tokens += np.asarray(under_way.tokens_G)
    if not tokens.any():
        raise DataError(_EMPTY)
    each = {
        name: HeldOut(nats=float(n), tokens=int(t))
        for name, n, t in zip(names, nats, tokens, strict=True)
        if t
    }
    total = HeldOut(nats=sum(g.nats for g in each.values()), tokens=int(tokens.sum()))
    return Evaluation(total=total, groups=each if len(names) > 1 else {})


def evaluate_pairs(
    eval_step: Callable[[Any, Batch], PreferenceSums],
    params: Any,
    batches: Iterable[Batch],
) -> dict[str, float]:
    """Of preferences: the loss per pair, rewards and their accuracy.

    The sums stay on the devices until the last batch, so nothing waits in between.
    """
    total: Any = None
    for batch in batches:
        sums = eval_step(params, batch)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
    if total is None or float(total.tokens) == 0:
        raise DataError(_EMPTY)
    return {**total.held_out(), "eval_tokens": round(float(total.tokens))}
