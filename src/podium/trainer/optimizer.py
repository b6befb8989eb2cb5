# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The optax chain: clip, update rule, decoupled weight decay, schedule."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from podium.config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    OptimConfig,
)
from podium.models.axes import STACKED, is_matrix
from podium.models.width import Ratios, muon_factor, step_factor

Axes = tuple[str | None, ...]


def make_optimizer(
    cfg: OptimConfig, schedule: optax.Schedule, axes: Any, wider: Ratios | None = None
) -> optax.GradientTransformation:
    """The chain for parameters whose logical axes are `axes` (a tree of tuples).

    Weight decay is multiplied by the current learning rate. Kernels and tables decay,
    vectors (norms, biases) do not, as in nanoGPT. The order is clip -> rule -> decay ->
    -lr, as in optax.adamw. `wider`, the model over its base, puts the factors of
    `models/width.py` behind the rule.
    """
    return optax.chain(make_clip(cfg), make_rule(cfg, schedule, axes, wider))


def make_clip(cfg: OptimConfig) -> optax.GradientTransformation:
    """The first link, which needs all gradients and keeps no state."""
    norm = cfg.clip_norm
    return optax.identity() if norm is None else optax.clip_by_global_norm(norm)


def make_rule(
    cfg: OptimConfig, schedule: optax.Schedule, axes: Any, wider: Ratios | None = None
) -> optax.GradientTransformation:
    """The second link: the update rule, decay and rate, for parameters of these axes."""
    return optax.chain(
        *_directions(cfg.optimizer, axes, wider),
        *([] if wider is None else [_scale_by_width(cfg, wider, axes)]),
        optax.add_decayed_weights(cfg.weight_decay, mask=_map(is_matrix, axes)),
        optax.scale_by_learning_rate(schedule),
    )


def _directions(
    o: AdamWConfig | LionConfig | AdafactorConfig | MuonConfig,
    axes: Any,
    wider: Ratios | None,
) -> list[optax.GradientTransformation]:
    """The update rule itself, without decay and rate."""
    if isinstance(o, AdamWConfig):
        return [optax.scale_by_adam(b1=o.b1, b2=o.b2, eps=_eps(o.eps, wider))]
    if isinstance(o, LionConfig):
        return [optax.scale_by_lion(b1=o.b1, b2=o.b2)]
    if isinstance(o, MuonConfig):
        return [_muon(o, axes, wider)]
    return [
        optax.scale_by_factored_rms(decay_rate=o.decay_rate),
        optax.clip_by_block_rms(o.clipping_threshold),
    ]


def _muon(
    o: MuonConfig, axes: Any, wider: Ratios | None
) -> optax.GradientTransformation:
    from optax import contrib

    return contrib.muon(
        -1.0,  # the direction alone
        beta=o.beta,
        ns_steps=o.ns_steps,
        eps=_eps(1e-8, wider),
        adam_b1=o.b1,
        adam_b2=o.b2,
        muon_weight_dimension_numbers=_map(_muon_dimensions, axes),
        # 0.2 * sqrt(max(fan_in, fan_out)): AdamW's learning rates carry over,
        # Moonlight arXiv:2502.16982 section 2.2.
        consistent_rms=0.2,
    )


def _eps(eps: float, wider: Ratios | None) -> float:
    """Gradients of every parameter shrink as the model gets wider: eps has to follow."""
    return eps if wider is None else eps / wider.embed


def _scale_by_width(
    cfg: OptimConfig, wider: Ratios, axes: Any
) -> optax.GradientTransformation:
    """The step of every parameter times its factor, see `models/width.py`."""
    is_muon = isinstance(cfg.optimizer, MuonConfig)

    def scaled(of: Axes, update: Any):
        if is_muon and _muon_dimensions(of) is not None:
            factor = muon_factor(wider, of, update.shape)
        else:
            factor = step_factor(wider, of)
        return update if factor == 1.0 else update * factor

    return optax.stateless(lambda updates, _: _map(scaled, axes, updates))


def _muon_dimensions(of: Axes) -> Any:
    """Kernels as matrices: the model width on one side, all other dims on the other.

    The token table, the head, norms and biases are None: they take the AdamW part.
    """
    from optax.contrib import MuonDimensionNumbers

    if "vocab" in of or not is_matrix(of):
        return None
    inner = [i for i, axis in enumerate(of) if axis not in STACKED]
    embed = [i for i in inner if of[i] in ("embed", "expert_embed", "latent")]
    other = [i for i in inner if i not in embed]
    if not embed or not other:
        return None
    first, second = (embed, other) if embed[0] < other[0] else (other, embed)
    return MuonDimensionNumbers(tuple(first), tuple(second))


def _map(fn: Callable[..., Any], axes: Any, *trees: Any) -> Any:
    return jax.tree.map(fn, axes, *trees, is_leaf=lambda x: isinstance(x, tuple))
