# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of training on preferences."""

import dataclasses
from typing import Literal

from podium.config_setting import setting
from podium.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """Direct preference optimisation, arXiv:2305.18290, against the weights of
    `init_from` as the reference, on data of podium.prepare --chat=preferences. With
    `lora` those are there already, below the adapters: no copy is made."""

    beta: float = setting(0.1, "how far the model is held to the reference", above=0.0)
    label_smoothing: float = setting(
        0.0, "share of pairs taken to be the wrong way round", low=0.0, below=0.5
    )
    reference_dtype: Literal["float32", "bfloat16"] | None = setting(
        None, "of the reference's weights; None: model.dtype, in which they compute"
    )


def check_dpo(
    dpo: DpoConfig, init_from: str | None, packing: str, z_loss: float, is_lora: bool
) -> None:
    """What the rest of a config must be where there are preferences. Raises ConfigError."""
    if is_lora and dpo.reference_dtype is not None:
        raise ConfigError(
            f"dpo.reference_dtype is {dpo.reference_dtype!r}, but with lora the reference "
            "is the frozen weights themselves; set it to None, and lora.base_dtype to the "
            "type to keep them in"
        )
    if init_from is None:
        raise ConfigError(
            "dpo is set, but init_from is not: its weights are the reference; name a run "
            "folder, e.g. --config.init_from=runs/model"
        )
    if packing != "best_fit":
        raise ConfigError(
            f"dpo is set, but data.packing is {packing!r}, which cuts pairs at row ends; "
            "set --config.data.packing=best_fit"
        )
    if z_loss:
        raise ConfigError(
            f"loss.z_loss is {z_loss}, but dpo has no such part; set it to 0"
        )
