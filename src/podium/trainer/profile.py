# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A window of steps traced for XProf, written to D/traces."""

from pathlib import Path
from typing import Any

import jax

from podium.config import ProfileConfig


class TraceWindow:
    """Starts and stops the profiler round the configured steps."""

    def __init__(self, cfg: ProfileConfig, workdir: str | Path):
        self._steps = cfg.window()
        self._folder = Path(workdir) / "traces"
        self._is_on = False

    def before(self, step: int) -> None:
        """Call before a step is dispatched."""
        if self._steps is not None and step in self._steps and not self._is_on:
            jax.profiler.start_trace(str(self._folder))
            self._is_on = True

    def after(self, step: int, result: Any) -> None:
        """Call with the step's result; the last step of the window is waited for."""
        if self._is_on and self._steps is not None and step + 1 not in self._steps:
            jax.block_until_ready(result)
            self._stop()

    def __enter__(self) -> "TraceWindow":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._is_on:
            jax.profiler.stop_trace()
            self._is_on = False
