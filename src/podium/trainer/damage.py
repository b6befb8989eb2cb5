# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Damaged records that a run left out (`data.on_damage=skip`): each named once, counted.

Once in the life of a run: events.jsonl remembers them over restarts, with the step that
met each first, so the count in a step's metrics is that of the unbroken run.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from podium.input.damage import Damage
from podium.trainer.events import Events


class DamageLog:
    """What this process met; other processes have their own rows, and log their own."""

    def __init__(
        self,
        workdir: str | Path,
        events: Events,
        say: Callable[[str], None],
        *,
        process: int = 0,
    ):
        self._events, self._say = events, say
        self._first_step: dict[tuple[str, int], int] = {}
        for line in (Path(workdir) / "events.jsonl").read_text().splitlines():
            # Other faults have no record, and a kill may leave a line cut short.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                key, step = (event["shard"], event["record"]), int(event["step"])
                if event["event"] == "fault" and event.get("process", 0) == process:
                    self._first_step[key] = step

    def note(self, damaged: Sequence[Damage], step: int) -> None:
        """Takes in what the batches that `step` used were left without."""
        for damage in damaged:
            key = damage.file, damage.record
            if key in self._first_step:
                continue
            self._first_step[key] = step
            self._events.add(
                "fault",
                step=step,
                shard=damage.file,
                record=damage.record,
                byte=damage.byte,
                error=f"skipped: {damage}",
            )
            self._say(f"WARNING: step {step} goes without {damage}")

    def count(self, step: int) -> int | None:
        """Damaged records met up to a step; None if there were none."""
        return sum(first <= step for first in self._first_step.values()) or None
