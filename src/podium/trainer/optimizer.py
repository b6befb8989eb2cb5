# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The optax chain: clip, update rule, decoupled weight decay, schedule."""

from typing import Any

import optax

from podium.config import AdafactorConfig, AdamWConfig, LionConfig, OptimConfig

STACKED = ("repeats", "layers", "experts")  # leading axes: many kernels in one array
# Names of parameters; vectors are not decayed.
NO_DECAY = ("bias", "scale", "choice_bias", "magnitude")


def make_optimizer(
    cfg: OptimConfig, schedule: optax.Schedule, axes: Any
) -> optax.GradientTransformation:
    """The chain for parameters whose logical axes are `axes` (a tree of tuples).

    Weight decay is multiplied by the current learning rate and leaves norms and
    biases alone. The order is clip -> rule -> decay -> -lr, as in optax.adamw.
    """
    return optax.chain(make_clip(cfg), make_rule(cfg, schedule, axes))


def make_clip(cfg: OptimConfig) -> optax.GradientTransformation:
    """The first link, which needs all gradients and keeps no state."""
    norm = cfg.clip_norm
    return optax.identity() if norm is None else optax.clip_by_global_norm(norm)


def make_rule(
    cfg: OptimConfig, schedule: optax.Schedule, axes: Any
) -> optax.GradientTransformation:
    """The second link: the update rule, decay and rate, for parameters of these axes."""
    o, decay = cfg.optimizer, _decay_mask(axes)
    if isinstance(o, AdamWConfig):
        return optax.adamw(
            schedule,
            b1=o.b1,
            b2=o.b2,
            eps=o.eps,
            weight_decay=cfg.weight_decay,
            mask=decay,
        )
    if isinstance(o, LionConfig):
        return optax.lion(
            schedule, b1=o.b1, b2=o.b2, weight_decay=cfg.weight_decay, mask=decay
        )
    if isinstance(o, AdafactorConfig):
        return optax.chain(
            optax.scale_by_factored_rms(decay_rate=o.decay_rate),
            optax.clip_by_block_rms(o.clipping_threshold),
            optax.add_decayed_weights(cfg.weight_decay, mask=decay),
            optax.scale_by_learning_rate(schedule),
        )
    from optax import contrib

    return contrib.muon(
        schedule,
        beta=o.beta,
        ns_steps=o.ns_steps,
        weight_decay=cfg.weight_decay,
        weight_decay_mask=decay,
        adam_b1=o.b1,
        adam_b2=o.b2,
        adam_weight_decay=cfg.weight_decay,
        muon_weight_dimension_numbers=_muon_dimensions(axes),
        # 0.2 * sqrt(max(fan_in, fan_out)): AdamW's learning rates carry over,
        # Moonlight arXiv:2502.16982 section 2.2.
        consistent_rms=0.2,
    )


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
