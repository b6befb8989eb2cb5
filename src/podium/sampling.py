# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How the next token is drawn. No jax: a mistake is answered before it is imported."""

import dataclasses

from podium.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn: temperature, then top-k, then top-p."""

    temperature: float = 0.8  # 0: greedy
    top_k: int | None = None  # only the k likeliest; None: all
    top_p: float = 1.0  # smallest set with at least this mass (arXiv:1904.09751)

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ConfigError(f"temperature is {self.temperature}; expected at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}; expected at least 1")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; expected above 0, at most 1")


def check_num_tokens(num_tokens: int) -> None:
    """Raises ConfigError unless there is something to generate."""
    if num_tokens < 1:
        raise ConfigError(f"num_tokens is {num_tokens}; expected at least 1")
