# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters on frozen weights: `lora`."""

import dataclasses
from typing import Literal

from podium.config_setting import setting
from podium.errors import ConfigError

BaseDtype = Literal["float32", "bfloat16", "int8"]

DEFAULT_TARGETS = ("attention/*", "mlp/*")
_RANK = "rank r of an adapter: A is [in, r], B is [r, out]"
_ALPHA = "the change is A B times alpha / rank"
_TARGETS = (
    "matmuls that get an adapter, as patterns over names such as attention/query, mlp/up "
    "or head, or whole paths such as stack/block_0/mlp/up"
)
_BASE = (
    "type in which the frozen weights are kept; int8: matmuls with a scale per output "
    "channel, the rest bfloat16"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Adapters:
    """What every kind of adapter is told."""

    rank: int = setting(8, _RANK, low=1)
    alpha: float = setting(16.0, _ALPHA, above=0.0)
    targets: tuple[str, ...] = setting(DEFAULT_TARGETS, _TARGETS)
    base_dtype: BaseDtype = setting("float32", _BASE)

    def __post_init__(self):
        if not self.targets:
            raise ConfigError(
                "lora.targets is empty: nothing would be trained; name patterns such as "
                "'attention/*', or set --config.lora=None to train all weights"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig(_Adapters):
    """y = x W + (alpha / rank) x A B, W frozen. arXiv:2106.09685, equation 3."""

    kind: Literal["lora"] = "lora"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoraConfig(_Adapters):
    """y = m (x W + (alpha / rank) x A B) / |W + (alpha / rank) A B|, the norm and the
    trained m of an output channel each. arXiv:2402.09353, equation 5."""

    kind: Literal["dora"] = "dora"


Lora = LoraConfig | DoraConfig


def check_lora(lora: Lora | None, init_from: str | None, state_memory: str) -> None:
    """Whether the rest of the config goes with adapters. Raises ConfigError."""
    if lora is None:
        return
    if init_from is None:
        raise ConfigError(
            "lora trains adapters on weights that are there already; name them with "
            "--config.init_from=D, a run folder or an imported model"
        )
    if state_memory == "host":
        raise ConfigError(
            "optim.state_memory is 'host', but the moments of adapters (lora) take no "
            "room; use 'device'"
        )
