# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which services a run is shown in, found and checked before anything compiles. No jax."""

import contextlib
import hashlib
import importlib.util
import json
import re
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium import resume
from podium.config import TrainConfig
from podium.config_dict import to_json_dict
from podium.errors import ConfigError

if TYPE_CHECKING:
    from podium.trainer.tracking import About, Tracker

_MOST_RUN = 56  # characters: 128 of an id, less 64 of the experiment and "-tb-run"
_SOURCE_FILE = Path(".podium/source.json")  # in a checkout that launch.vertex packaged


def check(cfg: TrainConfig) -> None:
    """Raises ConfigError where a service is asked for that cannot be reached at all."""
    if cfg.launch is None or cfg.launch.experiment is None:
        return
    if cfg.launch.project is None:
        raise ConfigError(
            f"launch.experiment is {cfg.launch.experiment!r}, but launch.project is not "
            "set; add --config.launch.project=my-project, or --config.launch.experiment="
            "None to keep the run to its folder"
        )
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec("google.cloud.aiplatform_v1"):
            return
    raise ConfigError(
        f"launch.experiment is {cfg.launch.experiment!r}, but Google's clients are not "
        "installed; uv sync --extra vertex, or --config.launch.experiment=None"
    )


def trackers(
    cfg: TrainConfig, workdir: Path, data: list[tuple[str, str]]
) -> list["Tracker"]:
    """One for each service that the config names; none of them asks it anything yet.

    `data`: path and fingerprint of every manifest.
    """
    launch = cfg.launch
    if launch is None or launch.experiment is None:
        return []
    from podium.trainer.track_vertex import VertexBackend
    from podium.trainer.tracking import Tracker

    backend = VertexBackend(launch.project or "", launch.region, launch.experiment)
    about = _about(cfg, workdir, data)
    return [Tracker(backend, about, every=cfg.log_every_steps)]


def _about(cfg: TrainConfig, workdir: Path, data: list[tuple[str, str]]) -> "About":
    from podium.trainer import tracking

    assert cfg.launch
    run = tracking.run_of(workdir) or run_name(cfg.launch.run, workdir)
    tracking.write_state(workdir, run=run)
    there = workdir.absolute()
    checkpoints = str(resume.checkpoints_folder(workdir, cfg.checkpoint.folder))
    in_bucket = checkpoints.startswith("gs://") and cfg.launch.run
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


def commit() -> str:
    """Of the code that runs, "-dirty" behind it where files differ; "": not known."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        about = json.loads(_SOURCE_FILE.read_text())
        return about["commit"] + ("-dirty" if about["is_dirty"] else "")
    here = Path(__file__).parent
    try:
        head, state = (
            subprocess.run(
                ["git", "-C", str(here), *words],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("-dirty" if state else "")
