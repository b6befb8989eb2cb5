# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a job must know and its request must not show, from Secret Manager.

`launch.secrets` names them, the job reads them when it starts: neither the request, nor
the log, nor the run folder holds a value.
"""

from launch.cloud import Cloud
from podium.config import TrainConfig
from podium.config_launch import LaunchConfig
from podium.errors import ConfigError

_WANDB = "WANDB_API_KEY"


def check_secrets(cfg: TrainConfig, launch: LaunchConfig) -> None:
    """Raises ConfigError for a service that the job could not log in to.

    An image of the user's own may hold a key.
    """
    names = [text.partition("=")[0] for text in launch.secrets]
    if cfg.tracking.wandb and _WANDB not in names and launch.image is None:
        raise ConfigError(
            f"tracking.wandb is set, and the job would have no {_WANDB}; keep the key in "
            "Secret Manager, gcloud secrets create wandb --data-file=FILE, and add "
            f"--config.launch.secrets={_WANDB}=wandb"
        )


def read_secrets(launch: LaunchConfig) -> dict[str, str]:
    """Variable -> value. Raises CloudError where one cannot be read."""
    if not launch.secrets:
        return {}
    cloud = Cloud(launch.project or "", launch.region)
    found = {}
    for text in launch.secrets:
        variable, _, secret = text.partition("=")
        name = _version(secret, launch.project or "")
        answer = cloud.call(
            f"secret {secret} for {variable}",
            lambda name=name: cloud.secrets.access_secret_version(name=name),
            missing="list them: gcloud secrets list",
        )
        # A file that an editor wrote ends with a line's end; no key does.
        found[variable] = answer.payload.data.decode().rstrip("\r\n")
    return found


def _version(secret: str, project: str) -> str:
    name = secret if "/" in secret else f"projects/{project}/secrets/{secret}"
    return name if "/versions/" in name else f"{name}/versions/latest"
