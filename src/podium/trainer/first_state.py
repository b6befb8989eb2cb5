# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The state that a run begins with, or goes on from."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from podium.base_weights import load_base
from podium.checkpoint import restore_params
from podium.resume import SavedBase, checkpoints_folder, find_checkpoint, saved_base
from podium.trainer.setup import Setup
from podium.trainer.state import (
    StateLayout,
    TrainState,
    init_state,
    state_of,
    state_on,
)


def first_state(
    setup: Setup,
    workdir: str | Path,
    step: int | None,
    restore: Callable[[int, StateLayout], TrainState],
) -> tuple[TrainState, SavedBase | None]:
    """The state of checkpoint `step`, or of a run that begins; and what adapters sit on.

    `restore` reads a checkpoint. A run begins with random weights or those of
    `init_from`; adapters begin on those, and are put on them again.
    """
    cfg, optimizer, layout = setup.cfg, setup.optimizer, setup.layout
    if cfg.lora is not None:
        folder = checkpoints_folder(workdir, cfg.checkpoint.folder)
        saved = None if step is None else saved_base(folder, step)
        frozen, base = load_base(cfg, setup.rules, saved)
        if step is None:
            return state_on(frozen, cfg, optimizer, layout), base
        return dataclasses.replace(restore(step, layout), frozen=frozen), base
    if step is not None:
        return restore(step, layout), None
    if cfg.init_from is None:
        return init_state(cfg.model, cfg.seed, optimizer, layout), None
    start = find_checkpoint(cfg.init_from)
    _, params = restore_params(cfg.init_from, start, rules=setup.rules, model=cfg.model)
    return state_of(params, optimizer, layout), None
