# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, with the context extensions of Llama 3 and linear scaling."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from podium.config import LinearScaling, Llama3Scaling, RopeConfig


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
        case _:
            return freq


def rotation(freq: np.ndarray, positions_BT: Int[Array, "B T"]) -> Rotation:
    """The angles' sine and cosine; made once and shared by all layers.

    Angles are float32: bfloat16 has 8 significant bits, so positions past 256 merge.
    """
    freq_11R = jnp.asarray(freq, jnp.float32)[None, None, :]
    angle_BTR = positions_BT.astype(jnp.float32)[..., None] * freq_11R
    return Rotation(jnp.sin(angle_BTR), jnp.cos(angle_BTR))


def rotate(x_BTNH: Float[Array, "B T N H"], by: Rotation) -> Float[Array, "B T N H"]:
    """Rotates channel pair (i, i + H/2) of every head by its token's angle i.

    Su et al. 2021, arXiv:2104.09864, eq. 34. The paper pairs neighbours (2i, 2i+1);
    we pair halves, the layout of Hugging Face Llama weights.
    """
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    sin, cos = by.sin[:, :, None, :], by.cos[:, :, None, :]
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x_BTNH.dtype)
