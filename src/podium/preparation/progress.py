# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType

_LINE_SECS = 10.0


class Progress:
    """One stage of known size, in bytes or in `unit`s. A context manager; `advance` from
    one thread."""

    def __init__(
        self, what: str, total: int, command: str = "prepare", unit: str | None = None
    ):
        self._what, self._total = what, max(1, total)
        self._command, self._unit = command, unit
        self._done = 0
        self._start = self._said = time.monotonic()
        self._bar = _bar(what, self._total, unit) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            if error is None:
                self._bar.update(self._bar.task_ids[0], completed=self._total)
            self._bar.stop()
        elif error is None:
            secs = time.monotonic() - self._start
            size = f"{self._total:,} {self._unit}"
            done = size if self._unit else megabytes(self._total)
            say(f"{self._what}: done, {done} in {secs:.1f} s", self._command)

    def advance(self, number: int) -> None:
        """Counts bytes, or units, of input that were dealt with."""
        self._done += number
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], number)
            return
        now = time.monotonic()
        if now - self._said >= _LINE_SECS and self._done:
            self._said = now
            left_secs = (now - self._start) * max(0, self._total / self._done - 1)
            done = (
                f"{self._done:,} of {self._total:,} {self._unit}"
                if self._unit
                else f"{self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB, "
                f"{self._done / 1e6 / (now - self._start):.1f} MB/s"
            )
            say(f"{self._what}: {done}, {left_secs:.0f} s left", self._command)


def megabytes(num_bytes: int) -> str:
    """1.2 MB, or 34 kB where that would be nearly nothing."""
    if num_bytes < 1e5:
        return f"{-(-num_bytes // 1000)} kB"
    return f"{num_bytes / 1e6:.1f} MB"


def count_of(number: int, what: str, plural: str = "") -> str:
    """1 shard, 2 shards."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def say(message: str, command: str = "prepare") -> None:
    """One log line."""
    print(f"{command}: {message}", file=sys.stderr, flush=True)


def _bar(what: str, total: int, unit: str | None):
    from rich import progress as rich  # 0.2 s, and only a terminal needs it
    from rich.console import Console

    amounts = (
        (rich.MofNCompleteColumn(), rich.TextColumn(unit))
        if unit
        else (rich.DownloadColumn(), rich.TransferSpeedColumn())
    )
    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        *amounts,
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task(what, total=total)
    return bar
