# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which microbatch is at which stage of a pipeline, and when; no jax."""

from typing import Any, NamedTuple

from podium.config_model import PipelineConfig
from podium.errors import ConfigError

_AUTOMATIC_PER_STAGE = (4, 3, 2, 1)


class Schedule(NamedTuple):
    """Which microbatch is where; a time is an iteration of the loop."""

    stages: int
    microbatches: int
    repeats: int

    @property
    def round(self) -> int:
        """Iterations until a stage has done with one group of microbatches."""
        return self.stages * self.repeats

    @property
    def num_times(self) -> int:
        """Iterations until the last microbatch is done."""
        return self.microbatches * self.repeats + self.stages - 1

    def at(self, begun: Any) -> tuple[Any, Any]:
        """(microbatch, repeat) of a stage that has `begun` passes before; groups of S
        microbatches go round together."""
        group, within = begun // self.round, begun % self.round
        return group * self.stages + within % self.stages, within // self.stages


def make_schedule(
    cfg: PipelineConfig, *, stages: int, rows: int, devices: int
) -> Schedule:
    """Of a batch of `rows` rows, a stage of which shares them over `devices` devices.

    Raises ConfigError where the rows do not divide into the microbatches.
    """
    asked = cfg.microbatches
    choices = [stages * n for n in _AUTOMATIC_PER_STAGE] if asked is None else [asked]
    for microbatches in choices:
        if microbatches % stages == 0 and rows % (microbatches * devices) == 0:
            return Schedule(stages, microbatches, cfg.repeats)
    unit = (asked or stages) * devices
    if asked is not None and asked % stages:
        raise ConfigError(
            f"model.pipeline.microbatches ({asked}) must be a multiple of mesh.stage "
            f"({stages}); use {-(-asked // stages) * stages}"
        )
    raise ConfigError(
        f"{rows} rows do not divide into {asked or stages} microbatches over {devices} "
        f"devices of a stage. Use {-(-rows // unit) * unit} rows (global_batch_seqs / "
        "grad_accum_steps), or another model.pipeline.microbatches"
    )
