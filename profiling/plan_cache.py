# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Plans that were made, kept for those who only want to know whether a run fits.

`podium.aot.compile` keeps compiled programs, under the program; to name one takes jax
and minutes of tracing. Here a plan lies under what it was made of: the settings that
the step depends on, the slice, and the sources. No jax.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from podium.config import TrainConfig
from podium.config_dict import to_json_dict

# What no compiled step depends on.
_NOT_IN_STEP = (
    *("seed", "num_steps", "checkpoint", "eval", "log_every_steps", "profile"),
    *("peer_secs", "watchdog", "sample", "tracking", "launch"),
)
_SOURCES = ("src/podium", "profiling")


def load(cfg: TrainConfig, topology: str) -> dict[str, Any] | None:
    """What `profiling.plan` found for this config, slice and code; None if never made."""
    with contextlib.suppress(OSError, ValueError):
        plan = json.loads(_path(cfg, topology).read_text())
        if isinstance(plan, dict) and isinstance(plan.get("fits"), bool):
            return plan
    return None


def save(cfg: TrainConfig, topology: str, plan: dict[str, Any]) -> None:
    """Keeps a plan; a disk that refuses is no reason to lose it on the screen."""
    path = _path(cfg, topology)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(plan))
        part.replace(path)


def _path(cfg: TrainConfig, topology: str) -> Path:
    tree = to_json_dict(cfg)
    tree = {key: value for key, value in tree.items() if key not in _NOT_IN_STEP}
    tree["data"] = {"seq_len": cfg.data.seq_len}
    digest = hashlib.sha256(json.dumps([tree, topology], sort_keys=True).encode())
    root = Path(__file__).parents[1]
    files = [p for folder in _SOURCES for p in (root / folder).rglob("*.py")]
    for path in sorted([*files, root / "uv.lock"]):
        if path.is_file():
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "podium" / "plans" / f"{digest.hexdigest()[:32]}.json"
