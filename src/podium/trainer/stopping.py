# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""SIGTERM or SIGINT ends a run after a step: of several processes, all after the same.

A preemption reaches the hosts of a slice at different moments, or one of them alone.
jax's preemption service tells all, and picks a step that none has begun yet.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils

_ONE_PRESS_SECS = 0.3  # `uv run` passes on what its process group was sent: that is one


class Stopping:
    """Listens while it is entered."""

    def __init__(self, say: Callable[[str], None]):
        """`say` tells the user that the signal was understood."""
        self.signal: int | None = None  # why the run stops at the step last asked about
        self._heard: int | None = None
        self._first_at: float | None = None  # when a signal came
        self._say = say
        self._is_alone = jax.process_count() == 1
        self._before: dict[int, Any] = {}

    def reached(self, step: int) -> bool:
        """Whether the run ends after this step. Every process asks once a step."""
        if self._is_alone:
            self.signal = self._heard
        elif multihost_utils.reached_preemption_sync_point(step):
            self.signal = self._heard or signal.SIGTERM
            self._say(f"stop asked for: saving after step {step}, then leaving")
        return self.signal is not None

    def ask(self) -> None:
        """As a first SIGTERM, but that one may still come. From any thread."""
        if self._is_alone:
            self._heard = self._heard or signal.SIGTERM
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def __enter__(self) -> "Stopping":
        # Of several processes each has jax's own handler for SIGTERM.
        numbers = (
            (signal.SIGTERM, signal.SIGINT) if self._is_alone else (signal.SIGINT,)
        )
        self._before = {n: signal.signal(n, self._on_signal) for n in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: Any) -> None:
        now = time.monotonic()
        if self._first_at is not None:  # the second one leaves at once
            if now - self._first_at < _ONE_PRESS_SECS:
                return
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._heard, self._first_at = number, now
        if self._is_alone:
            self._say(
                f"{signal.Signals(number).name}: saving after this step, then leaving; "
                "once more leaves now"
            )
        else:
            os.kill(os.getpid(), signal.SIGTERM)
