# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's event files: they never hold up a run, and never end it.

Written in the loop's own thread: tensorboardX's SummaryWriter has a thread that dies of
a full disk, after which the loop would wait for it for ever.
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_AGAIN_SECS = 60.0  # until a file is begun anew where one could not be written


class Board:
    """The scalars of one start of a run, in D/tensorboard."""

    def __init__(self, workdir: Path, *, first_step: int):
        """Steps after `first_step` that are there already are hidden: they are done
        again."""
        self._folder, self._first_step = workdir / "tensorboard", first_step
        self._writer: Any = None
        self._num_files = 0
        self._again_at = -math.inf

    def add(self, step: int, row: Mapping[str, float | None]) -> None:
        """Adds the values of a step; None, no number, is left out."""
        if time.monotonic() < self._again_at:
            return
        try:
            self._add(step, row)
        except OSError as error:
            self._drop()  # a file with half a record in it is not gone on with
            self._again_at = time.monotonic() + _AGAIN_SECS
            if self._num_files <= 1:
                print(
                    f"WARNING: {self._folder}: {error.strerror}; training goes on, what "
                    "TensorBoard shows will have a gap",
                    file=sys.stderr,
                )

    def close(self) -> None:
        """Closes the file."""
        self._drop()

    def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()

    def _add(self, step: int, row: Mapping[str, float | None]) -> None:
        # Not on the way to the first step. Protocol buffers make names as they load.
        from tensorboardX.proto import event_pb2, summary_pb2

        events: Any = event_pb2
        summaries: Any = summary_pb2
        writer = self._writer
        if writer is None:
            writer = self._open()
            start = events.SessionLog(status=events.SessionLog.START)
            first = self._first_step + 1 if self._num_files == 1 else step
            event = events.Event(step=first, session_log=start, wall_time=time.time())
            writer.write_event(event)
        values = [
            summaries.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if value is not None
        ]
        summary = summaries.Summary(value=values)
        event = events.Event(step=step, summary=summary, wall_time=time.time())
        writer.write_event(event)
        writer.flush()

    def _open(self) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        self._folder.mkdir(exist_ok=True)
        self._num_files += 1
        # Two starts within a second must not have one name.
        suffix = f".{os.getpid()}.{time.monotonic_ns()}"
        self._writer = EventsWriter(str(self._folder / "events"), suffix)
        return self._writer
