# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which services a run is shown in, found and checked before anything compiles. No jax."""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium import resume
from podium.code_commit import commit
from podium.config import TrainConfig
from podium.config_dict import to_json_dict
from podium.config_launch import LaunchConfig
from podium.config_tracking import MlflowConfig
from podium.errors import ConfigError

if TYPE_CHECKING:
    from podium.trainer.tracking import About, Backend, Tracker

_MOST_RUN = 56  # characters: 128 of an id, less 64 of the experiment and "-tb-run"
_MLFLOW_URI = r"(https?|sqlite|postgresql|mysql|mssql|file|databricks)(\W|$)"


def check(cfg: TrainConfig) -> None:
    """Raises ConfigError where a service is asked for that cannot be reached at all."""
    if cfg.launch and cfg.launch.experiment is not None:
        _check_vertex(cfg.launch)
    if cfg.tracking.wandb:
        _check_wandb()
    if cfg.tracking.mlflow:
        _check_mlflow(cfg.tracking.mlflow)


def _check_vertex(launch: LaunchConfig) -> None:
    if launch.project is None:
        raise ConfigError(
            f"launch.experiment is {launch.experiment!r}, but launch.project is not "
            "set; add --config.launch.project=my-project, or --config.launch.experiment="
            "None to keep the run to its folder"
        )
    if not _is_installed("google.cloud.aiplatform_v1"):
        raise ConfigError(
            f"launch.experiment is {launch.experiment!r}, but Google's clients are not "
            "installed; uv sync --extra vertex, or --config.launch.experiment=None"
        )


def _check_wandb() -> None:
    if not _is_installed("wandb"):
        raise ConfigError(
            "tracking.wandb is set, but wandb is not installed; uv sync --extra wandb, or "
            "--config.tracking.wandb=None"
        )
    from podium.trainer.track_wandb import has_key

    if not has_key():
        raise ConfigError(
            "tracking.wandb is set, but W&B has no key for its host; run wandb login, set "
            "WANDB_API_KEY, or WANDB_MODE=offline to keep the run in its folder"
        )


def _check_mlflow(mlflow: MlflowConfig) -> None:
    if not _is_installed("mlflow"):
        raise ConfigError(
            "tracking.mlflow is set, but MLflow is not installed; uv sync --extra mlflow, "
            "or --config.tracking.mlflow=None"
        )
    if not (uri := _mlflow_uri(mlflow)):
        raise ConfigError(
            "tracking.mlflow is set, but no server; give --config.tracking.mlflow.uri="
            "http://HOST:5000 or sqlite:///PATH, or set MLFLOW_TRACKING_URI"
        )
    if not re.match(_MLFLOW_URI, uri):
        raise ConfigError(
            f"tracking.mlflow.uri is {uri!r:.120}; expected http://HOST:PORT, "
            "https://HOST, sqlite:///PATH, another database, or databricks"
        )


def _mlflow_uri(mlflow: MlflowConfig) -> str:
    return mlflow.uri or os.environ.get("MLFLOW_TRACKING_URI", "")


def _is_installed(module: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(module) is not None
    return False


def trackers(
    cfg: TrainConfig, workdir: Path, data: list[tuple[str, str]]
) -> list["Tracker"]:
    """One for each service that the config names; none of them asks it anything yet.

    `data`: path and fingerprint of every manifest.
    """
    backends = list(_backends(cfg))
    if not backends:
        return []
    from podium.trainer.tracking import Tracker

    about = _about(cfg, workdir, data)
    return [Tracker(backend, about, every=cfg.log_every_steps) for backend in backends]


def _backends(cfg: TrainConfig) -> Iterator["Backend"]:
    launch, tracking = cfg.launch, cfg.tracking
    if launch and launch.experiment is not None:
        from podium.trainer.track_vertex import VertexBackend

        yield VertexBackend(launch.project or "", launch.region, launch.experiment)
    if tracking.wandb:
        from podium.trainer.track_wandb import WandbBackend

        yield WandbBackend(tracking.wandb.project, tracking.wandb.entity)
    if tracking.mlflow:
        from podium.trainer.track_mlflow import MlflowBackend

        yield MlflowBackend(_mlflow_uri(tracking.mlflow), tracking.mlflow.experiment)


def _about(cfg: TrainConfig, workdir: Path, data: list[tuple[str, str]]) -> "About":
    from podium.trainer import tracking

    given = cfg.launch.run if cfg.launch else None
    run = tracking.run_of(workdir) or run_name(given, workdir)
    tracking.write_state(workdir, run=run)
    there = workdir.absolute()
    checkpoints = str(resume.checkpoints_folder(workdir, cfg.checkpoint.folder))
    in_bucket = checkpoints.startswith("gs://") and given
    config = f"{checkpoints.rpartition('/')[0]}/run" if in_bucket else str(there)
    return tracking.About(
        run=run,
        workdir=str(there),
        params=flat(to_json_dict(cfg)) | {"workdir": str(there)},
        data=data,
        commit=commit(),
        config=f"{config}/config.json",
        checkpoints=checkpoints,
    )


def run_name(given: str | None, workdir: Path) -> str:
    """Of the config, or the folder's own with a few letters of chance: folders of one
    name are not one run."""
    name = given or f"{workdir.absolute().name[:40]}-{secrets.token_hex(3)}"
    slug = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if len(slug) > _MOST_RUN:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        slug = f"{slug[: _MOST_RUN - 9]}-{digest}"
    return slug


def flat(tree: Any, path: str = "") -> dict[str, int | float | str]:
    """Settings by their dotted names. None, true and lists are text, as services take
    numbers and text alone."""
    if isinstance(tree, dict):
        parts = [flat(v, f"{path}.{k}" if path else str(k)) for k, v in tree.items()]
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(tree, bool) or not isinstance(tree, int | float | str):
        tree = tree if tree is None else json.dumps(tree)
    return {path: "None" if tree is None else tree}
