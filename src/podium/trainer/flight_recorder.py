# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What there is to know of a bad step, written to D/faults/step-<N>.json at once.

The batch (its number, and the documents in it), the seed, the batches that rewinds had
left out before, the norms of each layer's gradients, and the metrics of the steps before:
enough to run that step again (`profiling.replay`). The seed is all of the randomness: it
orders the data and made the first weights, and a step draws nothing.
"""

import contextlib
import dataclasses
import json
import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from podium.config import TrainConfig
from podium.skipped_batches import Skips, batch_of
from podium.trainer.guard import LAYER_NORM

STEPS = 100  # before the bad one, and it
_TAIL_BYTES = 1 << 18  # of metrics.jsonl: so many steps at least
CORRUPTION = "silent data corruption"  # of a record's `what`, where devices erred
MAX_RECORDS = 100  # of a run: a spike a step must not fill the disk


class FlightRecorder:
    """Remembers the last steps' metrics; writes on a fault."""

    def __init__(self, workdir: Path, cfg: TrainConfig, say: Callable[[str], None]):
        self._folder, self._cfg, self._say = workdir / "faults", cfg, say
        self._last: deque[dict[str, Any]] = deque(maxlen=STEPS)

    def add(self, step: int, row: Mapping[str, Any]) -> None:
        """The metrics of a step, good or bad."""
        self._last.append({"step": step, **_numbers(row)})

    def record(
        self,
        step: int,
        *,
        what: str,
        action: str,
        skips: Skips,
        layers: Mapping[str, Any],
    ) -> Path | None:
        """Writes what is known of a bad step, beside what is known of an earlier try of
        it. None where there are too many records, or the disk is full."""
        if len(list(self._folder.glob("step-*.json"))) >= MAX_RECORDS:
            return None
        tries, batch = records(self._folder.parent, step), batch_of(skips, step)
        name = f"step-{step}-{len(tries) + 1}" if tries else f"step-{step}"
        path = self._folder / f"{name}.json"
        tree = {
            "step": step,
            "what": what,
            "action": action,
            "batch": batch,  # from 0, as the data order counts
            "skipped_batches": list(skips),
            "seed": self._cfg.seed,
            "documents": self._documents(batch),
            "layer_grad_norms": {
                name.removeprefix(LAYER_NORM): [_number(x) for x in norms]
                for name, norms in layers.items()
            },
            "metrics": [*self._before(), *self._last],
        }
        try:
            self._folder.mkdir(exist_ok=True)
            path.write_text(json.dumps(tree, indent=1) + "\n")
        except OSError as error:
            self._say(f"{path} cannot be written: {error.strerror}")
            return None
        return path

    def _before(self) -> list[dict[str, Any]]:
        """Steps that the run did before it was started again, from its metrics."""
        first = self._last[0]["step"] if self._last else math.inf
        rows: list[dict[str, Any]] = []
        with contextlib.suppress(OSError):
            path = self._folder.parent / "metrics.jsonl"
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                for line in file:
                    with contextlib.suppress(ValueError, TypeError, KeyError):
                        row = json.loads(line)
                        rows += [row] if row["step"] < first and "loss" in row else []
        return rows[-(STEPS - len(self._last)) :] if len(self._last) < STEPS else []

    def _documents(self, batch: int) -> list[dict[str, Any]] | str:
        from podium.input.ledger import documents_of_step

        try:
            entries = documents_of_step(
                self._cfg.data,
                seed=self._cfg.seed,
                global_batch_seqs=self._cfg.global_batch_seqs,
                step=batch,
            )
        except Exception as error:  # the record matters more than the lineage
            return f"not known: {type(error).__name__}: {error}"
        return [dataclasses.asdict(entry) for entry in entries]


def records(workdir: Path, step: int) -> list[Path]:
    """What a run recorded of a step, oldest first: a rewind may bring it again."""
    found = (workdir / "faults").glob(f"step-{step}*.json")
    tries = {
        path: re.fullmatch(rf"step-{step}(?:-(\d+))?", path.stem) for path in found
    }
    numbers = {path: int(m[1] or 1) for path, m in tries.items() if m}
    return sorted(numbers, key=numbers.__getitem__)


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _number(value) for name, value in row.items()}


def _number(value: Any) -> Any:
    """NaN is not JSON, and here the kind of no number matters."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
