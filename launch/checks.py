# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Does a training config go with the machines it is launched on? No jax, no cloud.

What only the devices know, `profiling.plan` finds out; here is what is plain arithmetic,
and what several hosts cannot share.
"""

import math
import os
import urllib.parse
from pathlib import Path

from launch import source
from podium.config import TrainConfig
from podium.config_launch import LaunchConfig
from podium.errors import ConfigError
from podium.text_tokens import check_text_tokens
from podium.tokenizer_name import is_path

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def required(cfg: TrainConfig, *names: str) -> LaunchConfig:
    """`cfg.launch`, with these settings given. Raises ConfigError."""
    launch = cfg.launch or LaunchConfig()
    examples = {"project": "my-project", "bucket": "gs://my-bucket"}
    if missing := [name for name in names if getattr(launch, name) is None]:
        flags = " ".join(f"--config.launch.{n}={examples[n]}" for n in missing)
        raise ConfigError(
            f"{', '.join('launch.' + n for n in missing)} not set; add {flags}, or set "
            "them in the config file"
        )
    return launch


def check_mesh(cfg: TrainConfig, devices: int, slices: int, name: str) -> None:
    """Raises ConfigError where the mesh leaves a device over or wants one too many."""
    sizes = cfg.mesh.sizes()
    known = math.prod(size for size in sizes.values() if size != -1)
    is_open = -1 in sizes.values()
    if devices % known or (devices != known and not is_open):
        shown = " x ".join(
            f"{axis} {size}" for axis, size in sizes.items() if size != 1
        )
        free = next((axis for axis, size in sizes.items() if size == -1), "fsdp")
        raise ConfigError(
            f"mesh is {shown or 'fsdp 1'}, {known} devices{' times -1' * is_open}, but "
            f"{name} has {devices}; set --config.mesh.{free}=-1 and the others to a "
            f"divisor of {devices}"
        )
    across = cfg.mesh.slices
    asked = [across.stage, across.data, across.fsdp]
    fixed = math.prod(size for size in asked if size != -1)
    if slices % fixed or (slices != fixed and -1 not in asked):
        raise ConfigError(
            f"mesh.slices asks for {fixed}, but {name} has {slices} slices; set "
            "--config.mesh.slices.data=-1"
        )


def check_data(cfg: TrainConfig, hosts: int) -> None:
    """Raises ConfigError for data that the hosts of a job cannot read."""
    local = [path for path in cfg.data.paths if not path.startswith("gs://")]
    if local:
        raise ConfigError(
            f"data.paths has {local[0]}, which the job cannot read; copy it: gcloud "
            "storage cp -r, and give it as gs://BUCKET/PATH"
        )
    if not cfg.data.paths and hosts > 1:
        raise ConfigError(
            f"data.text is prepared on one host, and the job has {hosts}; run "
            "podium.prepare once, copy the folder to a bucket, and give it as "
            "--config.data.paths=gs://BUCKET/PATH"
        )
    if not cfg.data.paths and cfg.data.text is None:
        raise ConfigError(
            "data.paths and data.text are both empty; set "
            "--config.data.paths=gs://BUCKET/PATH, made by podium.prepare"
        )


def check_start(cfg: TrainConfig) -> None:
    """Raises ConfigError for a model to start from that the job does not have."""
    start = cfg.init_from
    if start is not None and not start.startswith("gs://"):
        raise ConfigError(
            f"init_from is {start}, which the job cannot read; copy the folder: gcloud "
            "storage cp -r, and give it as --config.init_from=gs://BUCKET/PATH"
        )


def check_trackers(cfg: TrainConfig) -> None:
    """Raises ConfigError for an MLflow that only this machine has."""
    uri = (cfg.tracking.mlflow.uri or "") if cfg.tracking.mlflow else ""
    address = urllib.parse.urlsplit(uri)
    if address.scheme in ("sqlite", "file") or address.hostname in _THIS_MACHINE:
        raise ConfigError(
            f"tracking.mlflow.uri is {uri}, which is another place in the job; give a "
            "server that it reaches, http://HOST:5000"
        )


def check_folder(cfg: TrainConfig) -> None:
    """Raises ConfigError for checkpoints that would go with the machine."""
    folder = cfg.checkpoint.folder
    if folder is not None and not folder.startswith("gs://"):
        raise ConfigError(
            f"checkpoint.folder is {folder}, which is gone with the job's machine; leave "
            "it out (None), or give gs://BUCKET/PATH"
        )


def check_export(cfg: TrainConfig) -> None:
    """Raises ConfigError for a model to export that no family of transformers has."""
    if cfg.launch and cfg.launch.export:
        from podium.pretrained.configs import write_config

        try:
            write_config(cfg.model, cfg.data.seq_len)
        except ConfigError as error:
            raise ConfigError(
                f"launch.export={cfg.launch.export}: {error}; leave it out (None)"
            ) from error


def check_text(cfg: TrainConfig, overrides: dict[str, str], root: Path) -> None:
    """Raises ConfigError for a text or tokenizer of the command line that stays behind,
    and for one whose tokens the model lacks."""
    text, tokenizer = overrides.get("data.text"), cfg.data.tokenizer
    if text is not None and text != "None" and not text.startswith("tfds:"):
        _check_inside("data.text", text, root)
    check_text_tokens(cfg)
    if is_path(tokenizer) and not cfg.data.paths:
        _check_inside("data.tokenizer", tokenizer, root)


def _check_inside(name: str, given: str, root: Path) -> None:
    path = Path(os.path.relpath((root / given).resolve(), root.resolve()))
    is_inside = not Path(given).is_absolute() and path.parts[0] != ".."
    if is_inside and not source.holds(root, path):
        raise ConfigError(
            f"{name} is {given}, where the checkout has no file that git does not "
            "ignore: the job would not have it; add the files, or prepare them "
            "(podium.prepare) and give --config.data.paths=gs://BUCKET/PATH"
        )
    if not is_inside:
        raise ConfigError(
            f"{name} is {given}, which lies outside the checkout: the job does not have "
            "it; prepare it (podium.prepare), copy the folder to a bucket, and give it as "
            "--config.data.paths=gs://BUCKET/PATH"
        )
