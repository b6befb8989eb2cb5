# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What follows on a bad step: it is said, recorded, and dealt with as `faults` asks.

The weights did not change in it: `trainer.guard` saw to that inside the step. Here is
decided whether the run goes on, goes back, or ends. Every process of a run decides the
same, from the same numbers.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from podium.config import TrainConfig
from podium.errors import DivergedError, HardwareError
from podium.resume import latest_step
from podium.skipped_batches import Skips
from podium.trainer.events import Events
from podium.trainer.flight_recorder import CORRUPTION, FlightRecorder


class Rewind(Exception):  # noqa: N818 (no error)
    """Go back to the newest checkpoint before `step`, and leave the batches out."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


class Faults:
    """Judges the metrics of each step of a run."""

    def __init__(
        self,
        cfg: TrainConfig,
        workdir: Path,
        events: Events,
        say: Callable[[str], None],
        *,
        skips: Skips,
        is_first: bool,
    ):
        self._cfg, self._workdir, self._events, self._say = cfg, workdir, events, say
        self._skips = skips  # of the run so far; grows with each rewind
        self._is_first = is_first
        self._recorder = FlightRecorder(workdir, cfg, say)
        self._in_a_row = 0

    def check(
        self, step: int, row: Mapping[str, float], layers: Mapping[str, jax.Array]
    ) -> None:
        """Of a step's metrics. Raises Rewind, or DivergedError where the run ends."""
        self._recorder.add(step, row)
        if not math.isfinite(row["param_norm"]):
            what = f"param_norm is {row['param_norm']} at step {step}"
            self._note(step, what, "stop", "non_finite", row, layers)
            self._end(what)
        bad = [n for n in ("loss", "grad_norm") if not math.isfinite(row[n])]
        faults = self._cfg.faults
        self._in_a_row = self._in_a_row + 1 if row["skipped"] else 0
        if bad:
            what, policy = f"{bad[0]} is {row[bad[0]]}", faults.on_non_finite
            if not row["tokens"]:
                what = "the batch holds no token to learn from"
        elif row["spike_z"] > faults.spike_z:
            what = f"loss {row['loss']:.4g} or grad_norm {row['grad_norm']:.4g} spikes"
            what, policy = f"{what} (z {row['spike_z']:.0f})", faults.on_spike
        else:
            return
        what = f"{what} at step {step}"
        self._note(step, what, policy, "non_finite" if bad else "spike", row, layers)
        if policy == "stop":
            self._end(what)
        if self._in_a_row >= faults.max_in_a_row:
            self._end(f"{what}, the last of {self._in_a_row} bad steps in a row")
        if policy == "rewind":
            if len(self._skips) >= faults.max_rewinds:
                self._end(f"{what}, after {len(self._skips)} rewinds")
            self._in_a_row = 0
            raise Rewind(step)

    def _note(
        self,
        step: int,
        what: str,
        policy: str,
        kind: str,
        row: Mapping[str, float],
        layers: Mapping[str, Any],
    ) -> None:
        host = jax.device_get(dict(layers))
        path = None
        if self._is_first:
            path = self._recorder.record(
                step, what=what, action=policy, skips=self._skips, layers=host
            )
            self._events.add("fault", what=kind, step=step, action=policy)
        then = "its update is skipped" if row["skipped"] else "learnt from all the same"
        where = f"; recorded in {path}" if path else ""
        self._say(f"WARNING: {what}: {then}{where}")

    def corrupted(self, step: int, error: HardwareError) -> None:
        """Records a step that came out wrong on the devices."""
        if self._is_first:
            what = f"{CORRUPTION}: {error}"
            self._recorder.record(
                step, what=what, action="stop", skips=self._skips, layers={}
            )

    def _end(self, what: str) -> None:
        saved = latest_step(self._workdir)
        raise DivergedError(
            f"{what}; last good checkpoint: {'none' if saved is None else saved}. Lower "
            f"optim.peak_lr ({self._cfg.optim.peak_lr}) or warm up longer, in another "
            "--workdir"
        )
