# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out loss: every scored token of the eval split counts the same."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from podium.errors import DataError
from podium.input.batch import Batch
from podium.trainer.loss import LossSums
from podium.trainer.preference import PreferenceSums


def evaluate(
    eval_step: Callable[[Any, Batch], LossSums | PreferenceSums],
    params: Any,
    batches: Iterable[Batch],
) -> dict[str, float]:
    """Mean cross-entropy in nats per token, perplexity, and the tokens scored; with
    `dpo` the loss per pair, rewards and their accuracy.

    The sums stay on the devices until the last batch, so nothing waits in between.
    """
    total: Any = None
    for batch in batches:
        sums = eval_step(params, batch)
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
    if total is None or float(total.tokens) == 0:
        raise DataError(
            "the eval split holds no scored token; raise data.eval_fraction, or set "
            "--config.eval=None"
        )
    return {**total.held_out(), "eval_tokens": round(float(total.tokens))}
