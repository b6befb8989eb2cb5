# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Inside the step: is this loss or this gradient fit to learn from?

A loss or a gradient norm that is no number never changes the weights. One that lies far
outside of what the last steps had is a spike: its robust z-score (Iglewicz and Hoaglin
1993) is

    z = (x - median) / (1.4826 MAD)

over the last steps' losses, and the logarithms of their gradient norms. The history is a
part of the state, so that a resumed run judges as the unbroken one does, bit for bit.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from podium.config import FaultsConfig

HISTORY = 128  # steps
_MIN_STEPS = 32  # before that nothing is a spike
_LEAST_SPREAD = (
    1e-3  # of the median: steps that are all alike make no spike of the next
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recent:
    """What the last steps had, oldest overwritten first."""

    loss_W: Any  # float32 [HISTORY]; NaN where no step was yet
    log_norm_W: Any  # the logarithm of the gradient's norm
    num: Any  # [] int32, steps noted so far


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is thought of one step."""

    is_skipped: Array  # [] bool: the weights stay as they are
    spike_z: Array  # [] float32: the larger of the two z-scores; 0 for the first steps
    recent: Recent  # with this step


def nothing_yet() -> Recent:
    """The history before the first step."""
    empty = jnp.full((HISTORY,), jnp.nan, jnp.float32)
    return Recent(empty, jnp.copy(empty), jnp.zeros((), jnp.int32))


def judge(cfg: FaultsConfig, recent: Recent, loss: Array, grad_norm: Array) -> Verdict:
    """Of a step's loss and gradient norm, before the update."""
    log_norm = jnp.log(jnp.maximum(grad_norm, 1e-30))
    is_finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    z = jnp.maximum(_z(recent.loss_W, loss), _z(recent.log_norm_W, log_norm))
    z = jnp.where(is_finite & (recent.num >= _MIN_STEPS), z, 0.0)
    is_spike = z > cfg.spike_z if cfg.on_spike != "keep" else jnp.zeros((), bool)
    at = recent.num % HISTORY
    noted = Recent(
        jnp.where(is_finite, recent.loss_W.at[at].set(loss), recent.loss_W),
        jnp.where(is_finite, recent.log_norm_W.at[at].set(log_norm), recent.log_norm_W),
        recent.num + is_finite.astype(jnp.int32),
    )
    return Verdict(~is_finite | is_spike, z, noted)


def _z(history_W: Array, x: Array) -> Array:
    median = jnp.nanmedian(history_W)
    deviation = 1.4826 * jnp.nanmedian(jnp.abs(history_W - median))
    return (x - median) / jnp.maximum(deviation, _LEAST_SPREAD * jnp.abs(median) + 1e-9)


def unless(
    is_skipped: Array, rule: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The rule, but for a step that is skipped: no update, and its state as it was."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, new = rule.update(updates, state, params)
        updates = jax.tree.map(
            lambda u: jnp.where(is_skipped, jnp.zeros_like(u), u), updates
        )
        return updates, jax.tree.map(
            lambda old, new: jnp.where(is_skipped, old, new), state, new
        )

    return optax.GradientTransformation(rule.init, update)


def layer_norms(grads: Any, stacks: tuple[str, ...]) -> dict[str, Array]:
    """The norm of each tensor's gradient, 'layer_grad_norm/<path>': [layers], or [1]
    outside of the stacks. Tells after a fault where it came from."""
    norms = {}
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        layers = grad.shape[0] if name.split("/")[0] in stacks else 1
        rows = grad.reshape(layers, -1).astype(jnp.float32)
        norms[f"{LAYER_NORM}{name}"] = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))
    return norms


LAYER_NORM = "layer_grad_norm/"
