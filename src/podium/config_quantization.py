# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which matmuls multiply eight-bit numbers: `model.quantization`."""

import dataclasses
from typing import Literal

from podium.config_setting import setting
from podium.errors import ConfigError

Part = Literal["attention", "mlp"]
Backward = Literal["none", "inputs", "all"]

_BACKWARD = (
    "which gradients eight-bit matmuls make too: those of a matmul's inputs, all (the "
    "weights' as well), or none"
)
_PARTS = "whose projections; scores, experts, router and output head stay in dtype"


def _check(parts: tuple[Part, ...]) -> None:
    if not parts or len(set(parts)) < len(parts):
        raise ConfigError(
            f"model.quantization.parts is {parts}; name 'attention', 'mlp' or both, once"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Int8Config:
    """Projections in int8: a scale per token and per output channel, made of the
    largest absolute value at every use (SwitchBack, arXiv:2304.13013, at the default)."""

    kind: Literal["int8"] = "int8"
    backward: Backward = setting("inputs", _BACKWARD)
    parts: tuple[Part, ...] = setting(("attention", "mlp"), _PARTS)

    def __post_init__(self):
        _check(self.parts)

    @property
    def value_type(self) -> str:
        """Of activations and weights."""
        return "int8"

    @property
    def gradient_type(self) -> str:
        """Of gradients that come back."""
        return "int8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fp8Config:
    """Projections in float8 with the scales of int8: e4m3, and for gradients that come
    back as `gradient` says (arXiv:2209.05433)."""

    kind: Literal["fp8"] = "fp8"
    backward: Backward = setting("inputs", _BACKWARD)
    gradient: Literal["e4m3", "e5m2"] = setting(
        "e4m3", "of gradients: e4m3 is finer, e5m2 reaches further below the largest"
    )
    parts: tuple[Part, ...] = setting(("attention", "mlp"), _PARTS)

    def __post_init__(self):
        _check(self.parts)

    @property
    def value_type(self) -> str:
        """Of activations and weights."""
        return "float8_e4m3fn"

    @property
    def gradient_type(self) -> str:
        """Of gradients that come back."""
        return {"e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}[self.gradient]


Quantization = Int8Config | Fp8Config
