# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Learning rate over the steps: linear warm-up, then one of five shapes."""

import jax.numpy as jnp
import optax

from podium.config import OptimConfig


def learning_rate(cfg: OptimConfig, num_steps: int) -> optax.Schedule:
    """Step (0-based) -> learning rate. The first step already moves: warm-up / W * 1.

    cosine: SGDR arXiv:1608.03983. wsd: warm-up, stable, 1 - sqrt decay,
    arXiv:2405.18392. inverse_sqrt: arXiv:1706.03762, continuous at the warm-up's end.
    """
    s = cfg.schedule
    peak, end = cfg.peak_lr, cfg.peak_lr * s.end_lr_ratio
    warmup, total = s.warmup_steps, max(num_steps, s.warmup_steps + 1)
    decay = min(s.decay_steps or max(1, num_steps // 10), total - warmup)

    def schedule(count):
        step = jnp.asarray(count, jnp.float32)
        done = jnp.clip((step - warmup) / (total - warmup), 0.0, 1.0)
        if s.kind == "cosine":
            rate = end + (peak - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        elif s.kind == "linear":
            rate = peak + (end - peak) * done
        elif s.kind == "wsd":
            late = jnp.clip((step - (total - decay)) / decay, 0.0, 1.0)
            rate = peak + (end - peak) * jnp.sqrt(late)
        elif s.kind == "inverse_sqrt":
            base = max(warmup, 1)
            rate = jnp.maximum(peak * jnp.sqrt(base / jnp.maximum(step, base)), end)
        else:
            rate = jnp.full((), peak, jnp.float32)
        return jnp.where(step < warmup, peak * (step + 1.0) / max(warmup, 1), rate)

    return schedule
