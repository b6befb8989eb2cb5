# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a run goes: a live line on a terminal, log lines elsewhere."""

import os
import sys
import time
from typing import Any


class Progress:
    """Step, loss, tokens/s and time left, on standard error."""

    def __init__(self, num_steps: int, *, log_every_steps: int, is_shown: bool = True):
        """`is_shown` is for one process of a run; the others see nothing."""
        self._num_steps = num_steps
        self._every = log_every_steps
        self._is_shown = is_shown
        self._tokens, self._secs = 0, 0.0  # since the last line
        is_live = is_shown and sys.stderr.isatty()
        self._bar: Any = _live_bar(num_steps) if is_live else None
        if self._bar is None:
            self.say("compiling")

    def step(
        self, step: int, loss: float, *, tokens: int, secs: float, eta_secs: float
    ):
        """Shows a finished step; tokens/s are the mean since the last line.

        `tokens` and `secs` are those of this step.
        """
        self._tokens, self._secs = self._tokens + tokens, self._secs + secs
        rate = self._tokens / max(self._secs, 1e-9)
        is_due = step % self._every == 0 or step == self._num_steps
        if self._bar is not None:
            self._bar.update(
                0,
                completed=step,
                loss=f"loss {loss:.4f}",
                rate=f"{rate:,.0f} tok/s",
                left=f"ETA {duration(eta_secs)}",
            )
        elif is_due:
            self.say(
                f"step {step}/{self._num_steps}  loss {loss:.4f}  "
                f"{rate:,.0f} tokens/s  ETA {duration(eta_secs)}"
            )
        if is_due:
            self._tokens, self._secs = 0, 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        elif self._is_shown:
            try:
                print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)
            except BrokenPipeError:
                # Who read is gone (a closed `| tee`): no reason to end weeks of work.
                # From here on nobody is told, here or by a later print.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    def close(self) -> None:
        """Leaves the last state of the bar on the screen."""
        if self._bar is not None:
            self._bar.stop()


def duration(secs: float) -> str:
    """1:02:03, or 2:03 under an hour."""
    minutes, seconds = divmod(round(secs), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _live_bar(num_steps: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        refresh_per_second=4,
    )
    bar.add_task("", total=num_steps, loss="compiling", rate="", left="")
    bar.start()
    return bar
