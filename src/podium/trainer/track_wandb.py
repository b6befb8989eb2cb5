# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases: a run whose id is our name for it, so that every start is the same.

`wandb` is in a process of its own, trainer/wandb_process.py: it takes seconds to import,
and makes a process that leaves wait for the service, some of it without a limit. That one
goes on with the upload when this one is gone, and ends by itself.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from podium.trainer.tracking import About, Backend, Row, State

FOLDER = "wandb"  # in D/: what `wandb sync` can still send, and the log of the process
_END_SECS = 5.0  # for a process with nothing left to do
_COMMAND = (sys.executable, "-m", "podium.trainer.wandb_process")


class WandbBackend(Backend):
    """One run of W&B."""

    name = "wandb"

    def __init__(self, project: str, entity: str | None):
        self._place = {"project": project, "entity": entity}
        self._child: subprocess.Popen[bytes] | None = None
        self._left: list[subprocess.Popen[bytes]] = []  # nobody speaks to them any more

    def open(self, about: About) -> None:
        """Begins the run, or goes on with it, in a new process."""
        self._leave()
        folder = Path(about.workdir) / FOLDER
        folder.mkdir(exist_ok=True)
        with (folder / "process.log").open("ab") as log:
            self._child = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours
            )
        told = {
            "run": about.run,
            "workdir": about.workdir,
            "params": about.params,
            "data": about.data,
            "commit": about.commit,
            "checkpoints": about.checkpoints,
        }
        self._ask("open", **self._place, about=told)

    def log(self, rows: list[Row]) -> None:
        """As rows of the history, drawn over `step`."""
        self._ask("log", rows=rows)

    def close(self, state: State, summary: dict[str, float], steps: list[int]) -> None:
        """Figures, checkpoints and state; returns when all is uploaded."""
        self._ask("close", state=state, summary=summary, steps=steps)
        self._leave()
        with contextlib.suppress(subprocess.TimeoutExpired):
            for child in self._left:
                child.wait(_END_SECS)

    def _leave(self) -> None:
        """The process sees that nobody speaks to it any more, and ends by itself: also
        where this one has ended, or was killed."""
        child, self._child = self._child, None
        for pipe in (child.stdin, child.stdout) if child else ():
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._left = [c for c in (*self._left, child) if c and c.poll() is None]

    def _ask(self, what: str, **fields: Any) -> None:
        child = self._child
        assert child
        assert child.stdin
        assert child.stdout
        try:
            child.stdin.write(json.dumps({"do": what, **fields}).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:  # it is gone
            line = b""
        if not line:
            raise ConnectionError(f"wandb's process ended, see {FOLDER}/process.log")
        if error := json.loads(line).get("error"):
            raise ConnectionError(error)


def has_key() -> bool:
    """Whether W&B would begin a run: a key for its host is known, or it is offline."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return True
    if os.environ.get("WANDB_API_KEY"):
        return True
    return not subprocess.run(
        [*_COMMAND, "check"], stderr=subprocess.DEVNULL
    ).returncode
