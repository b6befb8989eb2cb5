# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the metrics of a step once the next one is under way, and acts on them."""

import time
from typing import TYPE_CHECKING, Any

import jax

from podium.trainer.guard import LAYER_NORM
from podium.trainer.metrics import Metrics, Rates, memory_bytes

if TYPE_CHECKING:
    from podium.trainer.loop import Trainer


class Reporter:
    """From a step's metrics to the files, the terminal, the watchdog and the faults."""

    def __init__(self, trainer: "Trainer", metrics: Metrics | None):
        """`metrics` where this process writes them."""
        self._trainer, self._metrics = trainer, metrics
        self._rates = Rates(trainer.cfg, list(trainer.setup.mesh.devices.flat))
        self._device = jax.local_devices()[0]
        self._pending: tuple[int, dict, float] | None = None
        self._clock = time.monotonic()
        self.mean_secs = 0.0  # of a step; 0 while none is known

    def add(self, step: int, values: dict[str, Any], wait_secs: float) -> None:
        """Takes over the metrics of a step just dispatched; reports the one before."""
        self._trainer.steps.waited(wait_secs)
        self._trainer.hosts.dispatched(
            values["loss"].is_ready, wait_secs, follows=self._pending is not None
        )
        previous, self._pending = self._pending, (step, values, wait_secs)
        if previous is not None:
            self._report(*previous)

    def flush(self) -> None:
        """Reports the last step too; the devices are idle after it."""
        if self._pending is not None:
            last, self._pending = self._pending, None
            self._report(*last)
        self._trainer.steps.flush()

    def drop(self) -> None:
        """Forgets a step that is being undone."""
        self._pending = None
        self._trainer.steps.flush()

    def is_busy(self) -> bool:
        """Whether the devices are still at the last step."""
        return self._pending is not None and not self._pending[1]["loss"].is_ready()

    def restart_clock(self) -> None:
        """The time since the last step went to something else."""
        self._clock = time.monotonic()

    def _report(self, step: int, values: dict[str, jax.Array], wait_secs: float):
        scalars = {k: v for k, v in values.items() if not k.startswith(LAYER_NORM)}
        host = {name: float(v) for name, v in jax.device_get(scalars).items()}
        host["tokens"] = round(host["tokens"])
        now = time.monotonic()
        step_secs, self._clock = now - self._clock, now
        trainer = self._trainer
        rates = self._rates.of(step_secs)
        known = self.mean_secs or step_secs
        self.mean_secs = 0.95 * known + 0.05 * step_secs
        trainer.watchdog.step(step, step_secs)
        trainer.steps.add(step, step_secs)
        if self._metrics:
            self._metrics.write(
                step,
                {
                    **host,
                    "step_secs": step_secs,
                    "input_wait_secs": wait_secs,
                    **rates,
                    "device_memory_bytes": memory_bytes(self._device),
                    "damaged_records": trainer.damage.count(step),
                },
            )
        trainer.progress.step(
            step,
            host["loss"],
            tokens=self._rates.tokens,
            secs=step_secs,
            eta_secs=(trainer.cfg.num_steps - step) * self.mean_secs,
        )
        layers = {k: v for k, v in values.items() if k.startswith(LAYER_NORM)}
        trainer.faults.check(step, host, layers)
