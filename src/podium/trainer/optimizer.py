# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The optax chain: clip, update rule, decoupled weight decay, schedule."""

from typing import Any

import optax

from podium.config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    OptimConfig,
)
from podium.models.width import Ratios, muon_factor, step_factor

STACKED = ("repeats", "layers", "experts")  # leading axes: many kernels in one array
# Names of parameters; vectors are not decayed.
NO_DECAY = ("bias", "scale", "choice_bias", "magnitude")


def make_optimizer(
    cfg: OptimConfig, schedule: optax.Schedule, axes: Any, wider: Ratios | None = None
) -> optax.GradientTransformation:
    """The chain for parameters whose logical axes are `axes` (a tree of tuples).

    Weight decay is multiplied by the current learning rate and leaves norms and
    biases alone. The order is clip -> rule -> decay -> -lr, as in optax.adamw. `wider`,
    the model over its base, puts the factors of `models/width.py` behind the rule.
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
    if isinstance(cfg.optimizer, MuonConfig):
        return _muon(cfg.optimizer, cfg.weight_decay, schedule, axes, wider)
    return optax.chain(
        *_directions(cfg.optimizer, wider),
        *([] if wider is None else [_scale_by_width(wider, axes)]),
        optax.add_decayed_weights(cfg.weight_decay, mask=_decay_mask(axes)),
        optax.scale_by_learning_rate(schedule),
    )


def _directions(
    o: AdamWConfig | LionConfig | AdafactorConfig, wider: Ratios | None
) -> list[optax.GradientTransformation]:
    """The update rule itself, without decay and rate."""
    if isinstance(o, AdamWConfig):
        return [optax.scale_by_adam(b1=o.b1, b2=o.b2, eps=_eps(o.eps, wider))]
    if isinstance(o, LionConfig):
        return [optax.scale_by_lion(b1=o.b1, b2=o.b2)]
    return [
        optax.scale_by_factored_rms(decay_rate=o.decay_rate),
        optax.clip_by_block_rms(o.clipping_threshold),
    ]


def _muon(
    o: MuonConfig,
    weight_decay: float,
    schedule: optax.Schedule,
    axes: Any,
    wider: Ratios | None,
) -> optax.GradientTransformation:
    from optax import contrib

    dimensions = _muon_dimensions(axes)

    def muon(rate: Any, decay: float, mask: Any) -> optax.GradientTransformation:
        return contrib.muon(
            rate,
            beta=o.beta,
            ns_steps=o.ns_steps,
            eps=_eps(1e-8, wider),
            weight_decay=decay,
            weight_decay_mask=mask,
            adam_b1=o.b1,
            adam_b2=o.b2,
            adam_weight_decay=decay,
            muon_weight_dimension_numbers=dimensions,
            # 0.2 * sqrt(max(fan_in, fan_out)): AdamW's learning rates carry over,
            # Moonlight arXiv:2502.16982 section 2.2.
            consistent_rms=0.2,
        )

    if wider is None:
        return muon(schedule, weight_decay, _decay_mask(axes))
    return optax.chain(
        muon(-1.0, 0.0, None),  # the direction alone
        _scale_by_width(wider, axes, dimensions),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(schedule),
    )


def _eps(eps: float, wider: Ratios | None) -> float:
    """Gradients of every parameter shrink as the model gets wider: eps has to follow."""
    return eps if wider is None else eps / wider.embed


def _scale_by_width(
    wider: Ratios, axes: Any, muon_dimensions: Any = None
) -> optax.GradientTransformation:
    """The step of every parameter times its factor, see `models/width.py`."""

    def scaled(name: str, of: tuple[str | None, ...], update: Any, is_muon: bool):
        if is_muon:
            factor = muon_factor(wider, name, of, update.shape)
        else:
            factor = step_factor(wider, name, of)
        return update if factor == 1.0 else update * factor

    def walk(of: Any, updates: Any, muon: Any, name: str = "") -> Any:
        if not isinstance(of, dict):
            return scaled(name, of, updates, muon is not None)
        inner = muon if isinstance(muon, dict) else dict.fromkeys(of)
        return {key: walk(of[key], updates[key], inner[key], key) for key in of}

    return optax.stateless(lambda updates, _: walk(axes, updates, muon_dimensions))


def _decay_mask(axes: Any) -> Any:
    return _map_named(lambda name, _: name not in NO_DECAY, axes)


def _muon_dimensions(axes: Any) -> Any:
    """Kernels as matrices: the model width on one side, all other dims on the other.

    Embeddings, norms and biases are None: they take the AdamW part.
    """
    from optax.contrib import MuonDimensionNumbers

    def numbers(name: str, dims: tuple[str | None, ...]):
        inner = [i for i, d in enumerate(dims) if d not in STACKED]
        if name in NO_DECAY or "vocab" in dims or len(inner) < 2:
            return None
        embed = [i for i in inner if dims[i] in ("embed", "expert_embed", "latent")]
        other = [i for i in inner if i not in embed]
        if not embed or not other:
            return None
        first, second = (embed, other) if embed[0] < other[0] else (other, embed)
        return MuonDimensionNumbers(tuple(first), tuple(second))

    return _map_named(numbers, axes)


def _map_named(fn, axes: Any, name: str = "") -> Any:
    if isinstance(axes, dict):
        return {k: _map_named(fn, v, k) for k, v in axes.items()}
    return fn(name, axes)
