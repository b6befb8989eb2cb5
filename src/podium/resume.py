# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A run folder meets a config: begin, continue, or say why not. No jax.

`resume` is "run it again": what may change between two starts of one run is listed
here; anything else would silently make it another run, so it is an error.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from podium.config import DataConfig, TrainConfig
from podium.config_dict import to_json_dict
from podium.errors import ConfigError

# Dotted prefixes that neither the weights nor the order of the data depend on.
MAY_CHANGE = (
    "num_steps",
    "grad_accum_steps",
    "mesh",
    "sharding",
    "checkpoint",
    "eval",
    "log_every_steps",
    "profile",
    "sample",
    "loss.chunk_tokens",
    "model.remat",
    "model.layer_loop",
    "model.attention.implementation",
    "data.text",
    "data.paths",  # compared by fingerprint instead: a data set may have moved
    "data.num_threads",
    "data.prefetch_batches",
)


def latest_step(workdir: str | Path) -> int | None:
    """The newest whole checkpoint of a run, by its folder name; reads no array."""
    folder = Path(workdir) / "checkpoints"
    steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit()]
    return max(steps, default=None)


def step_to_resume(workdir: str | Path, cfg: TrainConfig) -> int | None:
    """The checkpoint to continue from, or None. Raises ConfigError on another run's."""
    step = latest_step(workdir)
    path = Path(workdir) / "config.json"
    if step is None or not path.exists():
        return step
    saved, now = json.loads(path.read_text()), to_json_dict(cfg)
    changed = [
        f"{key}: saved {old!r}, now {new!r}"
        for key, old, new in differences(saved, now)
        if not any(key == may or key.startswith(may + ".") for may in MAY_CHANGE)
    ]
    if changed:
        raise ConfigError(
            f"{workdir} holds a run with another config: {'; '.join(changed[:5])}"
            f"{' …' if len(changed) > 5 else ''}. Use the saved values, or another "
            "--workdir."
        )
    return step


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) wherever two config trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            name = f"{path}.{key}" if path else key
            found += differences(old.get(key), new.get(key), name)
        return found
    return [] if old == new else [(path, old, new)]


def data_folder(workdir: str | Path) -> Path:
    """Where a run keeps the gold data that it made itself: `data.paths` is empty."""
    return Path(workdir).absolute() / "data"


def data_of(workdir: str | Path, cfg: TrainConfig) -> DataConfig:
    """The data settings of a run with the folders it reads filled in."""
    paths = cfg.data.paths or (str(data_folder(workdir)),)
    return dataclasses.replace(cfg.data, paths=paths)


def check_fingerprints(workdir: str | Path, fingerprints: list[str]) -> None:
    """A run goes on with the data it began with. Raises ConfigError with both prints."""
    saved = json.loads((Path(workdir) / "data.json").read_text())["fingerprints"]
    if saved != fingerprints:
        raise ConfigError(
            f"{workdir} was trained on data {', '.join(saved)}; data.paths now holds "
            f"{', '.join(fingerprints)}. Point data.paths at the first, or use another "
            "--workdir."
        )


def write_config(workdir: str | Path, cfg: TrainConfig, fingerprints: list[str]):
    """Writes D/config.json, the resolved config, and D/data.json, what it reads."""
    _write(Path(workdir) / "config.json", to_json_dict(cfg))
    paths = list(data_of(workdir, cfg).paths)
    _write(Path(workdir) / "data.json", {"paths": paths, "fingerprints": fingerprints})


def _write(path: Path, tree: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(tree, indent=2) + "\n")
    part.replace(path)
