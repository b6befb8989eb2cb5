# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Podium trains large language models across TPU pods with JAX.

Importing it starts no backend, parses no flags and reads no environment; the names
below are loaded when first used, so `podium.config` is there without jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AttentionConfig": "podium.config_model",
    "Batch": "podium.input.batch",
    "CheckpointError": "podium.errors",
    "Checkpoints": "podium.checkpoint",
    "ConfigError": "podium.errors",
    "DataConfig": "podium.config",
    "DataError": "podium.errors",
    "ModelConfig": "podium.config_model",
    "OptimConfig": "podium.config",
    "ShardingError": "podium.errors",
    "ShardingRules": "podium.sharding.rules",
    "TrainConfig": "podium.config",
    "TrainState": "podium.trainer.state",
    "Trainer": "podium.trainer.loop",
    "Transformer": "podium.models.transformer",
    "init_state": "podium.trainer.state",
    "make_mesh": "podium.sharding.mesh",
    "make_train_step": "podium.trainer.step",
    "restore_params": "podium.checkpoint",
    "setup": "podium.trainer.setup",
    "shard": "podium.sharding.constrain",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from podium.checkpoint import Checkpoints, restore_params
    from podium.config import DataConfig, OptimConfig, TrainConfig
    from podium.config_model import AttentionConfig, ModelConfig
    from podium.errors import CheckpointError, ConfigError, DataError, ShardingError
    from podium.input.batch import Batch
    from podium.models.transformer import Transformer
    from podium.sharding.constrain import shard
    from podium.sharding.mesh import make_mesh
    from podium.sharding.rules import ShardingRules
    from podium.trainer.loop import Trainer
    from podium.trainer.setup import setup
    from podium.trainer.state import TrainState, init_state
    from podium.trainer.step import make_train_step


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'podium' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
