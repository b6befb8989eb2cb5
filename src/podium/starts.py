# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that begin with the weights of another: `init_from`. No jax.

A folder that `podium.convert` made is marked by imported.json; D/pretrained beside it
has the files that came with the weights.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podium import resume
from podium.config import TrainConfig
from podium.config_dict import to_json_dict
from podium.errors import CheckpointError, ConfigError

IMPORTED = "imported.json"
PRETRAINED = "pretrained"
_REFERENCE_FILE = "reference.json"  # of a run with `dpo`

# Settings of a model that may differ from what the weights were made with, unsaid.
_FREE = ("dtype", "quantization", "remat", "layer_loop", "pipeline.microbatches")
_FREE += ("init_std", "attention.implementation", "attention.context")
_FREE += ("mlp.dispatch", "mlp.balance")


def is_imported(workdir: str | Path) -> bool:
    """Whether a folder is a published model that was brought in, not a run."""
    return (Path(workdir) / IMPORTED).exists()


def check_is_no_import(workdir: str | Path) -> None:
    """Runs are trained elsewhere than where their model lies. Raises ConfigError."""
    if is_imported(workdir):
        raise ConfigError(
            f"--workdir={workdir} holds an imported model; train in another folder, with "
            f"--config.init_from={workdir}"
        )


def check_start(cfg: TrainConfig, say: Callable[[str], None]) -> None:
    """The checkpoint that `init_from` names is there. Raises ConfigError.

    `say` is told where the model computes other things with the weights than the model
    did that they are of.
    """
    if cfg.init_from is None:
        return
    try:
        step = resume.find_checkpoint(cfg.init_from, say=say)
    except CheckpointError as error:
        raise ConfigError(
            f"init_from={cfg.init_from}: {error}; name a run folder with a checkpoint, "
            "or one that podium.convert made"
        ) from error
    folder = resume.checkpoints_folder(cfg.init_from)
    saved = json.loads(folder.read(f"{step}/run/metadata"))["config"]["model"]
    changed = [
        f"{key}: there {old!r}, here {new!r}"
        for key, old, new in resume.differences(saved, to_json_dict(cfg.model))
        if not any(key == free or key.startswith(free + ".") for free in _FREE)
    ]
    longest = pretrained_tokens(cfg.init_from, 0)
    if longest and cfg.data.seq_len > longest:
        say(
            f"note: data.seq_len is {cfg.data.seq_len}, and the model of init_from was "
            f"made for rows of {longest}; what lies beyond is new to it"
        )
    if changed:
        more = " …" if len(changed) > 5 else ""
        say(f"note: init_from is of another model: {'; '.join(changed[:5])}{more}")


def check_base(cfg: TrainConfig, workdir: str | Path, step: int) -> None:
    """The weights that the adapters of a checkpoint sit on are there; whether they are
    the same is found when they are read. Raises CheckpointError."""
    if cfg.lora is None or cfg.init_from is None:
        return
    folder = resume.checkpoints_folder(workdir, cfg.checkpoint.folder)
    resume.find_base(cfg.init_from, resume.saved_base(folder, step))


def reference_step(
    workdir: str | Path, cfg: TrainConfig, *, is_new: bool, is_first: bool
) -> int:
    """Which checkpoint of `init_from` is the reference: of a new run, the newest.

    The first process notes it in the run folder. Raises ConfigError.
    """
    path = Path(workdir) / _REFERENCE_FILE
    if not is_new:
        try:
            return int(json.loads(path.read_text())["step"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} should name the checkpoint of {cfg.init_from} that the run is "
                f"measured against, and cannot be read: {error}; put it back, as "
                '{"step": N}'
            ) from error
    step = resume.find_checkpoint(cfg.init_from or "")
    if is_first:
        note = {"init_from": str(Path(cfg.init_from or "").absolute()), "step": step}
        path.write_text(json.dumps(note) + "\n")
    return step


def check_reference(workdir: str | Path, cfg: TrainConfig) -> None:
    """Before anything is compiled, of a run that is continued: it is there still."""
    step = reference_step(workdir, cfg, is_new=False, is_first=False)
    try:
        resume.find_checkpoint(cfg.init_from or "", step)
    except CheckpointError as error:
        raise ConfigError(
            f"init_from={cfg.init_from} is the reference of this run, which needs it to "
            f"continue: {error}"
        ) from error


def take_along(start: str | Path, workdir: str | Path) -> None:
    """A run that starts from an imported model has the files that came with it too."""
    source, target = Path(start) / PRETRAINED, Path(workdir) / PRETRAINED
    if source.is_dir() and not target.exists():
        shutil.copytree(source, target)


def read_pretrained(workdir: str | Path, name: str) -> dict[str, Any]:
    """A JSON file that came with the weights; empty where there is none.

    Raises CheckpointError where it is damaged.
    """
    path = Path(workdir) / PRETRAINED / name
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path}: expected an object")
    return tree


def pretrained_tokens(workdir: str | Path, seq_len: int) -> int:
    """How many tokens the weights have seen at once: in their run, or before it."""
    tree = read_pretrained(workdir, "config.json")
    before = tree.get("max_position_embeddings", tree.get("n_positions"))
    return max(seq_len, before if isinstance(before, int) else 0)
