# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where an exported model comes from: podium.json beside it, exports.jsonl in the run."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from podium import resume
from podium.code_commit import commit
from podium.trainer.events import read_events
from podium.trainer.tracking import run_of

ORIGIN_FILE = "podium.json"  # in the model's folder
EXPORTS_FILE = "exports.jsonl"  # in the run's, a line an export


def origin_of(workdir: str | Path, step: int) -> dict[str, Any]:
    """What is known of a checkpoint, as plain data.

    `run` is the name by which services know it, or that of the folder; `data` has path and
    fingerprint of what it was trained on, `commit` is that of the code that trained up to
    this step, None where the run was made before Podium noted it, or was imported.
    """
    workdir = Path(workdir)
    data = resume.saved_data(workdir)
    prints = zip(data.get("paths", []), data.get("fingerprints", []), strict=False)
    return {
        "run": run_of(workdir) or workdir.resolve().name,
        "step": step,
        "checkpoint": f"{resume.checkpoints_folder(workdir)}/{step}",
        "data": [{"path": path, "fingerprint": text} for path, text in prints],
        "commit": _trained_by(workdir, step),
        "exported_by": commit() or None,
    }


def note(workdir: str | Path, origin: dict[str, Any], output: str) -> None:
    """Adds a line to D/exports.jsonl; a folder that cannot be written to goes without."""
    line = {"time": round(time.time(), 3), "output": output, **origin}
    with (
        contextlib.suppress(OSError),
        (Path(workdir) / EXPORTS_FILE).open("a") as file,
    ):
        file.write(json.dumps(line) + "\n")


def _trained_by(workdir: Path, step: int) -> str | None:
    """Of the last start from before the step. One that came back to it, after a crash, did
    the same steps again, and its checkpoint took the place of the one before."""
    try:
        events = read_events(workdir)
    except FileNotFoundError:
        return None
    found = None
    for event in events:
        begun = event.get("step")
        if event["event"] == "start" and isinstance(begun, int) and begun < step:
            found = event.get("commit")
    return found if isinstance(found, str) and found else None
