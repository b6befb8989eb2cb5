# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""events.jsonl: what happened to a run, in order, with wall times.

One JSON object a line: {"time": seconds since the epoch, "event": name, …}. Appended
and flushed at once, over all restarts, so that a killed process leaves its story. The
goodput of a run is computed from this file.
"""

import json
import time
from pathlib import Path
from typing import Any, Literal

Event = Literal["start", "compile", "restore", "eval", "save", "stop", "fault"]


class Events:
    """The ledger of one run folder."""

    def __init__(self, workdir: str | Path, *, process: int = 0):
        self._process = process
        self._file = (Path(workdir) / "events.jsonl").open("a")

    def add(self, event: Event, **fields: Any) -> None:
        """Appends one event; of other processes than the first only faults, by number."""
        if self._process:
            if event != "fault":
                return
            fields["process"] = self._process
        line = {"time": round(time.time(), 3), "event": event, **fields}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_events(workdir: str | Path) -> list[dict[str, Any]]:
    """All events of a run; a last line cut short by a kill is left out."""
    lines = (Path(workdir) / "events.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
