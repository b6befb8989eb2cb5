# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The saves of a run: when, and what becomes of one that fails.

A save that fails (a full disk, a bucket that refuses) does not end the training: it is
said, noted in the ledger and tried again a little later, each time twice as much later.
Only when several in a row fail, or the last one, the run ends.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from podium.config import TrainConfig
from podium.errors import PodiumError, StorageError
from podium.lost_peers import is_loss
from podium.resume import SavedBase
from podium.skipped_batches import Skips
from podium.storage import refusal
from podium.trainer.events import Events, read_events
from podium.trainer.save_interval import (
    Interval,
    secs_between_failures,
    steps_until_save,
)
from podium.trainer.state import StateLayout, TrainState

if TYPE_CHECKING:
    from podium.checkpoint import Checkpoints

TRIES = 5
_FIRST_WAIT_SECS = 10.0  # until a failed save is tried again, while training goes on
_LAST_WAIT_SECS = 1.0  # the same where nothing is left to do but to save


@dataclasses.dataclass
class _UnderWay:
    """A save that is being written; times by the monotonic clock."""

    step: int
    begun: float
    blocked_secs: float
    written: float | None = None


class Saver:
    """Saves and restores the states of one run."""

    def __init__(
        self,
        workdir: Path,
        cfg: TrainConfig,
        events: Events,
        *,
        fingerprints: list[str],
        skips: Skips,
        first_step: int,
        say: Callable[[str], None],
    ):
        self._workdir, self._cfg, self._events = workdir, cfg, events
        self._fingerprints, self._skips, self._say = fingerprints, skips, say
        self._interval = Interval(cfg.checkpoint.every_steps, first_step)
        self.base: SavedBase | None = None  # with adapters: what they sit on
        self._opened: Checkpoints | None = None
        self._under_way: _UnderWay | None = None
        self._failures = 0
        self._again_at: float | None = None
        self._is_alone = jax.process_count() == 1

    @property
    def checkpoints(self) -> "Checkpoints":
        """Orbax, opened when first needed: it is not on the way to the first step."""
        if self._opened is None:
            from podium.checkpoint import Checkpoints

            self._opened = Checkpoints(self._workdir, self._cfg.checkpoint)
        return self._opened

    @functools.cached_property
    def _starts_and_stops(self) -> list[dict[str, Any]]:
        """Of the ledger, which grows long: while this process runs, none is added."""
        events = read_events(self._workdir)
        return [e for e in events if e["event"] in ("start", "stop")]

    def restore(self, step: int, layout: StateLayout) -> TrainState:
        """The state of a step, see `Checkpoints.restore`."""
        start = time.monotonic()
        state = self.checkpoints.restore(step, layout)
        secs = round(time.monotonic() - start, 3)
        self._events.add("restore", step=step, secs=secs)
        self._say(f"restored checkpoint {step} in {secs:.1f} s")
        return state

    def newest_step(self) -> int | None:
        """The newest whole checkpoint."""
        return max(self.checkpoints.steps(), default=None)

    def is_due(self, step: int, step_secs: float) -> bool:
        """Whether the state after this step is to be saved; every process asks once a
        step. `step_secs` is the mean of a step so far, 0 while there is none."""
        if self._interval.is_auto and self._interval.steps is None and step_secs:
            self._find_interval(None, 0.0, step_secs)
        if self._again_at is not None:  # else a short interval uses up the tries
            return time.monotonic() >= self._again_at
        return self._interval.is_due(step)

    def poll(self, step_secs: float) -> None:
        """Once a step: looks whether a save has come to its end."""
        now = self._under_way
        if now is None or now.written or self.checkpoints.is_saving:
            return
        now.written = time.monotonic()
        # Several processes see the end at different steps: they take note of it at the
        # next save, all at once.
        if self._is_alone:
            self.wait(step_secs)

    def save(
        self, state: TrainState, step: int, eval_loss: float | None, step_secs: float
    ) -> None:
        """Starts a save; waits for the one before.

        Raises StorageError when too many have failed.
        """
        self.wait(step_secs)
        self._again_at = None
        self._interval.begin(step)
        begun = time.monotonic()
        with self._failing(step):
            self.checkpoints.save(
                state,
                step=step,
                cfg=self._cfg,
                fingerprints=self._fingerprints,
                eval_loss=eval_loss,
                skips=self._skips,
                base=self.base,
            )
            blocked = time.monotonic() - begun
            self._under_way = _UnderWay(step, begun, blocked)
            self._events.add("save", step=step, secs=round(blocked, 3))

    def finish(
        self, state: TrainState, step: int, eval_loss: float | None, step_secs: float
    ) -> None:
        """The last save of a run, or of one that is stopped; returns when it is whole.

        Raises StorageError when it cannot be.
        """
        self.wait(step_secs)
        self._failures = 0
        while True:
            self.save(state, step, eval_loss, step_secs)
            self.wait(step_secs)
            if not self._failures:
                return
            time.sleep(_LAST_WAIT_SECS * 2 ** (self._failures - 1))

    def wait(self, step_secs: float) -> None:
        """Returns when no save is under way."""
        if self._under_way is None:
            return
        now, self._under_way = self._under_way, None
        with self._failing(now.step):
            self.checkpoints.wait()
            secs = (now.written or time.monotonic()) - now.begun
            self._events.add("saved", step=now.step, secs=round(secs, 3))
            self._failures = 0
            if self._interval.is_auto:
                self._find_interval(now.blocked_secs, secs, step_secs)

    def close(self) -> None:
        """Lets go of Orbax's threads."""
        if self._opened is not None:
            self._opened.close()

    @contextlib.contextmanager
    def _failing(self, step: int) -> Iterator[None]:
        try:
            yield
        except PodiumError as error:
            self._failed(step, str(error), error)
        except (OSError, ValueError, RuntimeError) as error:  # tensorstore's are these
            if not self._is_alone and is_loss(error):
                raise
            self._failed(step, refusal(error), error)

    def _failed(self, step: int, why: str, error: Exception) -> None:
        self._failures += 1
        self._events.add("fault", what="save", step=step, error=why)
        # Of several processes some may have saved: they do not agree on what is next.
        if self._failures >= TRIES or not self._is_alone:
            times = f"{self._failures} saves in a row" if self._is_alone else "a save"
            raise StorageError(f"{times} failed, at step {step}: {why}") from error
        wait = _FIRST_WAIT_SECS * 2 ** (self._failures - 1)
        self._again_at = time.monotonic() + wait
        self._say(
            f"WARNING: step {step} is not saved (try {self._failures} of {TRIES}, the "
            f"next in {wait:.0f} s): {why}"
        )

    def _find_interval(
        self, save_secs: float | None, write_secs: float, step_secs: float
    ) -> None:
        """The first process finds it, as the clocks of the others differ."""
        steps = steps_until_save(
            save_secs=save_secs,
            write_secs=write_secs,
            step_secs=step_secs,
            failure_secs=secs_between_failures(self._starts_and_stops, time.time()),
        )
        if not self._is_alone:
            from jax.experimental import multihost_utils

            steps = int(multihost_utils.broadcast_one_to_all(np.int32(steps)))
        if steps != self._interval.steps:
            self._interval.steps = steps
            self._events.add("save_interval", steps=steps)
