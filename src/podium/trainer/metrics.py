# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a step reports: scalars from the devices, rates from the clock, three sinks.

MFU counts model FLOPs, not executed ones: 6 per matmul parameter and token plus causal
attention at half of the full square, forward and backward (PaLM, arXiv:2204.02311,
appendix B; recomputation is not credited), over the peak of the chips' compute type.
"""

import contextlib
import json
import math
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium.config import TrainConfig
from podium.models import flops
from podium.trainer.board import Board

if TYPE_CHECKING:
    from podium.trainer.tracking import Tracker


class Metrics:
    """Appends every step to D/metrics.jsonl and some to TensorBoard.

    Rows that a full disk refuses are kept and written when there is room again: a run
    does not end for its log.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        first_step: int,
        tensorboard_every: int,
        trackers: Sequence["Tracker"] = (),
    ):
        """`trackers` are told when there are rows to send."""
        self._trackers = trackers
        self._workdir = Path(workdir)
        self._path = self._workdir / "metrics.jsonl"
        self._every = tensorboard_every
        self._unwritten = b""
        self._is_warned = False
        self._open(first_step)

    def _open(self, first_step: int) -> None:
        keep_rows_up_to(self._path, first_step)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(self._path, flags, 0o666)
        self._board = Board(self._workdir, first_step=first_step)
        for tracker in self._trackers:
            tracker.rewind(first_step)

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Records one step; None means "not known here" and is left out.

        What is no number, a loss that diverged, is null: NaN is not JSON.
        """
        known = {k: v for k, v in values.items() if v is not None}
        row = {k: v if math.isfinite(v) else None for k, v in known.items()}
        self._unwritten += json.dumps({"step": step, **row}).encode() + b"\n"
        if step % self._every == 0 or "eval_loss" in known:
            self.flush()
            self._board.add(step, row)

    def flush(self) -> None:
        """Hands all rows to the file. Before a checkpoint is begun: a run that is
        killed after it does not do their steps again."""
        try:
            while self._unwritten:
                written = os.write(self._file, self._unwritten)
                self._unwritten = self._unwritten[written:]
        except OSError as error:
            if not self._is_warned:
                self._is_warned = True
                print(
                    f"WARNING: {self._path}: {error.strerror}; training goes on, and the "
                    "rows are written when that is possible again",
                    file=sys.stderr,
                )
        for tracker in self._trackers:
            tracker.wake()

    def rewind(self, step: int) -> None:
        """Drops what was recorded past a step: those steps are done again."""
        self._close()
        self._open(step)

    def _close(self) -> None:
        self.flush()
        os.close(self._file)
        self._board.close()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def keep_rows_up_to(path: Path, step: int) -> None:
    """Drops rows past a step: a resumed run does those steps again."""
    if not path.exists():
        return
    kept = [row for row in _rows(path) if row.get("step", math.inf) <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in kept))
    part.replace(path)


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return _rows(Path(workdir) / "metrics.jsonl")


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file but for lines that a kill or a full disk cut short."""
    lines = path.read_text(errors="replace").splitlines()
    return [row for line in lines if (row := _object(line)) is not None]


def row_of(line: str | bytes) -> dict[str, Any] | None:
    """The row of a line; None for one that was cut short or has no step."""
    row = _object(line)
    return row if row is not None and isinstance(row.get("step"), int) else None


def _object(line: str | bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        row = json.loads(line)
        return row if isinstance(row, dict) else None
    return None


class Rates:
    """Turns the seconds of a step into tokens/s and MFU."""

    def __init__(self, cfg: TrainConfig, devices: list[Any]):
        self._num_devices = len(devices)
        self.tokens = cfg.global_batch_seqs * cfg.data.seq_len
        self._flops = self.tokens * flops.train_flops_per_token(
            cfg.model, cfg.data.seq_len, is_frozen=cfg.lora is not None
        )
        peak = peak_flops_per_sec(devices[0], cfg.model.dtype)
        self._peak = None if peak is None else peak * len(devices)

    def of(self, step_secs: float) -> dict[str, float | None]:
        """Rates of a step that took this long."""
        return {
            "tokens_per_sec": self.tokens / step_secs,
            "tokens_per_sec_per_device": self.tokens / step_secs / self._num_devices,
            "model_flops_per_sec": self._flops / step_secs,
            "mfu": self._flops / step_secs / self._peak if self._peak else None,
        }


# Dense bf16 FLOP/s of one JAX device, from the vendors' data sheets. A v4 or v5p
# device is a whole chip (megacore).
PEAK_BF16_FLOPS_PER_SEC = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,  # two devices a chip
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops_per_sec(device: Any, dtype: str) -> float | None:
    """Peak of one device, or None where no data sheet says: a CPU, or float32."""
    if dtype != "bfloat16":
        return None
    names = [n for n in PEAK_BF16_FLOPS_PER_SEC if device.device_kind.startswith(n)]
    return PEAK_BF16_FLOPS_PER_SEC[max(names, key=len)] if names else None


def memory_bytes(device: Any) -> int:
    """Most memory a device has held so far; on a CPU, that of this process."""
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
