# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The settings of positions: rotary ones and their scalings, learned ones."""

import dataclasses
from typing import Literal

from podium.config_setting import setting
from podium.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions divided by `factor` (position interpolation, arXiv:2306.15595)."""

    kind: Literal["linear"] = "linear"
    factor: float = setting(1.0, "positions are divided by this", low=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Frequency-dependent scaling of Llama 3.1 (arXiv:2407.21783, as released)."""

    kind: Literal["llama3"] = "llama3"
    factor: float = setting(8.0, "low frequencies are divided by this", low=1.0)
    low_freq_factor: float = setting(
        1.0, "below this many turns: divided fully", above=0
    )
    high_freq_factor: float = setting(4.0, "above this many turns: left alone", low=0)
    original_max_tokens: int = setting(
        8192, "context length of pretraining", unit="tokens", low=1
    )

    def __post_init__(self):
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(
                f"model.position.scaling: high_freq_factor ({self.high_freq_factor}) "
                f"must be above low_freq_factor ({self.low_freq_factor})"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN (arXiv:2309.00071): slow pairs divided, fast ones kept, scores sharpened.

    Names and meaning of the last two as in DeepSeek's config.json; at their defaults
    the paper's own temperature, eq. 22, which the rotation carries.
    """

    kind: Literal["yarn"] = "yarn"
    factor: float = setting(40.0, "slow pairs are divided by this", low=1.0)
    beta_fast: float = setting(32.0, "from this many turns: left alone", low=0.01)
    beta_slow: float = setting(1.0, "up to this many turns: divided fully", low=0.01)
    original_max_tokens: int = setting(
        4096, "context length of pretraining", unit="tokens", low=1
    )
    mscale: float = setting(
        1.0,
        "the rotated channels of q and k grow by 0.1 mscale ln(factor) + 1",
        low=0.0,
    )
    mscale_all_dim: float = setting(
        0.0,
        "of that, what latent attention's scores take instead, all channels, squared",
        low=0.0,
    )

    def __post_init__(self):
        if self.beta_fast <= self.beta_slow:
            raise ConfigError(
                f"model.position.scaling: beta_fast ({self.beta_fast}) must be above "
                f"beta_slow ({self.beta_slow})"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary positions (arXiv:2104.09864), halves layout as in Hugging Face Llama."""

    kind: Literal["rope"] = "rope"
    theta: float = setting(10_000.0, "base of the wavelengths", low=1.0)
    scaling: LinearScaling | Llama3Scaling | YarnScaling | None = setting(
        None, "context extension; local layers are never scaled"
    )
    local_theta: float | None = setting(
        None, "base for local (windowed) layers; None: the same as theta", low=1.0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedPositionConfig:
    """A learned vector per absolute position, added to the embedding (GPT-2)."""

    kind: Literal["learned"] = "learned"
    max_tokens: int = setting(1024, "rows of the table", unit="tokens", low=1)
