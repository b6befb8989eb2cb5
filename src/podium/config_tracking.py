# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Services that show a run, beside Vertex Experiments (`launch.experiment`)."""

import dataclasses
import re

from podium.config_setting import setting
from podium.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases. Key, host and mode are those of its own WANDB_* variables."""

    project: str = setting("podium", "that the run is shown in")
    entity: str | None = setting(
        None, "user or team that has the project; None: the key's default"
    )

    def __post_init__(self):
        if not 0 < len(self.project) <= 128 or re.search(r"[/\\#?%:]", self.project):
            raise ConfigError(
                f"tracking.wandb.project is {self.project!r:.140}; expected 1 to 128 "
                "characters without / \\ # ? % :"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MlflowConfig:
    """An MLflow tracking server or store. Its login is MLflow's own, MLFLOW_TRACKING_*."""

    uri: str | None = setting(
        None,
        "http://HOST:5000, sqlite:///PATH or databricks; None: MLFLOW_TRACKING_URI",
    )
    experiment: str = setting("podium", "that the run is shown in; made if need be")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where a run is shown beside its folder. A run may be continued with others."""

    wandb: WandbConfig | None = setting(None, "Weights & Biases; None: not there")
    mlflow: MlflowConfig | None = setting(None, "MLflow; None: not there")
