# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, and the ways to stretch it over longer contexts."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from podium.config_positions import (
    LearnedPositionConfig,
    LinearScaling,
    Llama3Scaling,
    RopeConfig,
    YarnScaling,
)
from podium.sharding.constrain import current_platform


class Rotation(NamedTuple):
    """Sine and cosine of every token's angles, float32 [B, T, R = H/2]."""

    sin: Float[Array, "B T R"]
    cos: Float[Array, "B T R"]


def frequencies(cfg: RopeConfig, head_dim: int, *, is_local: bool) -> np.ndarray:
    """Radians per position of each channel pair, float64 [H/2].

    theta ** (-2i / H), then scaled on global layers: Gemma 3 keeps its local layers
    at the base they were trained with.
    """
    local_theta = cfg.theta if cfg.local_theta is None else cfg.local_theta
    theta = local_theta if is_local else cfg.theta
    freq = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    match None if is_local else cfg.scaling:
        case LinearScaling(factor=factor):
            return freq / factor
        case Llama3Scaling() as s:
            # Pairs that turn often within the old context are left alone, pairs that
            # turn less than once are slowed fully, a linear blend lies between.
            turns = s.original_max_tokens * freq / (2 * math.pi)
            keep = (turns - s.low_freq_factor) / (
                s.high_freq_factor - s.low_freq_factor
            )
            keep = np.clip(keep, 0.0, 1.0)
            return freq * (keep + (1.0 - keep) / s.factor)
        case YarnScaling() as s:
            keep = _yarn_keep(s, theta, head_dim)
            return freq * (keep + (1.0 - keep) / s.factor)
        case _:
            return freq


def _yarn_keep(s: YarnScaling, theta: float, head_dim: int) -> np.ndarray:
    """How much of each pair's frequency stays: 1 for fast pairs, 0 for slow, [H/2].

    The ramp runs over the index of the pair, between the two whole indices around
    those that turn `beta_fast` and `beta_slow` times within the old context.
    """

    def pair(turns: float) -> float:
        slowest = s.original_max_tokens / (turns * 2 * math.pi)
        return head_dim * math.log(slowest) / (2 * math.log(theta))

    first = max(math.floor(pair(s.beta_fast)), 0)
    last = min(math.ceil(pair(s.beta_slow)), head_dim - 1)
    ramp = (np.arange(head_dim // 2) - first) / max(last - first, 1e-3)
    return 1.0 - np.clip(ramp, 0.0, 1.0)


def yarn_factor(factor: float, mscale: float) -> float:
    """0.1 * mscale * ln(factor) + 1: how much sharper attention gets. eq. 22, and
    DeepSeek's `yarn_get_mscale`."""
    return 0.1 * mscale * math.log(factor) + 1.0


def amplitude(cfg: RopeConfig, *, is_local: bool) -> float:
    """What the rotated q and k are multiplied with beside: 1 but under YaRN."""
    s = cfg.scaling
    if is_local or not isinstance(s, YarnScaling):
        return 1.0
    return yarn_factor(s.factor, s.mscale) / yarn_factor(s.factor, s.mscale_all_dim)


def score_factor(cfg: RopeConfig | LearnedPositionConfig) -> float:
    """What all scores of latent attention are multiplied with: 1 but under YaRN."""
    s = cfg.scaling if isinstance(cfg, RopeConfig) else None
    if not isinstance(s, YarnScaling):
        return 1.0
    return yarn_factor(s.factor, s.mscale_all_dim) ** 2


def rotation(
    freq: np.ndarray, positions_BT: Int[Array, "B T"], amplitude: float = 1.0
) -> Rotation:
    """The angles' sine and cosine times `amplitude`; made once, shared by all layers.

    Angles are float32: bfloat16 has 8 significant bits, so positions past 256 merge.
    """
    freq_11R = jnp.asarray(freq, jnp.float32)[None, None, :]
    angle_BTR = positions_BT.astype(jnp.float32)[..., None] * freq_11R
    sin_BTR, cos_BTR = jnp.sin(angle_BTR), jnp.cos(angle_BTR)
    if amplitude == 1.0:
        return Rotation(sin_BTR, cos_BTR)
    return Rotation(sin_BTR * amplitude, cos_BTR * amplitude)


def rotate(x_BTNH: Float[Array, "B T N H"], by: Rotation) -> Float[Array, "B T N H"]:
    """Rotates channel pair (i, i + H/2) of every head by its token's angle i.

    Su et al. 2021, arXiv:2104.09864, eq. 34. The paper pairs neighbours (2i, 2i+1);
    we pair halves, the layout of Hugging Face Llama weights.
    """
    sin, cos = by.sin[:, :, None, :], by.cos[:, :, None, :]
    if current_platform() == "tpu":
        sin, cos = jnp.concatenate([-sin, sin], -1), jnp.concatenate([cos, cos], -1)
        return _rotate_by_matmul(x_BTNH, sin, cos)
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x_BTNH.dtype)


@jax.custom_vjp
def _rotate_by_matmul(x_BTNH: Array, sin_BT1H: Array, cos_BT1H: Array) -> Array:
    """X * cos + swap(x) * sin; the halves are swapped by a permutation matrix.

    On a TPU a channel is a lane: halves of 64 fill half a register, and XLA writes them
    to memory, several times. The matrix unit swaps them inside one fusion, exactly, as
    every sum has one term. A 102B step on v4 gets 6% shorter by it.
    """
    H = x_BTNH.shape[-1]
    swap_HH = jnp.asarray(np.roll(np.eye(H), H // 2, axis=0), x_BTNH.dtype)
    swapped = jax.lax.dot_general(
        x_BTNH,
        swap_HH,
        (((3,), (0,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,  # of float32; bfloat16 has only one
        preferred_element_type=jnp.float32,
    )
    rotated = x_BTNH.astype(jnp.float32) * cos_BT1H + swapped * sin_BT1H
    return rotated.astype(x_BTNH.dtype)


def _rotate_forward(x: Array, sin: Array, cos: Array):
    return _rotate_by_matmul(x, sin, cos), (sin, cos)


def _rotate_backward(saved: tuple[Array, Array], g: Array):
    sin, cos = saved  # of positions: they have no gradient
    return _rotate_by_matmul(g, -sin, cos), jnp.zeros_like(sin), jnp.zeros_like(cos)


_rotate_by_matmul.defvjp(_rotate_forward, _rotate_backward)
