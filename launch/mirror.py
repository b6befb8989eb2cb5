# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The run folder of a job, D/, kept up to date in the bucket and brought back from there.

A machine is gone after a job, its disk too. Checkpoints go to the bucket by themselves;
all else that a run writes is small: config, metrics, events, plots, traces, TensorBoard.
A thread of its own copies what has changed, every ten seconds and whenever the run notes an
event, so that the metrics up to a checkpoint are on their way when it is begun. A bucket
that refuses is said once and tried again, and never ends a training.
"""

import contextlib
import threading
import time
from pathlib import Path

from podium import cli
from podium.errors import PodiumError
from podium.storage import Folder, open_folder

BOARD = "tensorboard"  # D/tensorboard goes to AIP_TENSORBOARD_LOG_DIR
# Folders of D/ that are not copied; data that is half made is made anew.
_STAY = ("data", "data.partial", "checkpoints")
RUN_LOCK = "run.lock"  # the process that writes D/ makes it
_LAST_TRIES = 6
_LOOK_SECS = 0.25  # between looks at events.jsonl: a stat
_EVENTS = "events.jsonl"


class Mirror:
    """Copies D/ while it is entered, and once more at the end."""

    def __init__(
        self, workdir: Path, run: str, board: str | None, *, every_secs: float = 10.0
    ):
        """`run` and `board` are addresses: of D/ and of D/tensorboard."""
        self._workdir, self._every = workdir, every_secs
        self._run = open_folder(run)
        self._board = open_folder(board) if board else self._run.inside(BOARD)
        self._copied: dict[str, tuple[int, int]] = {}  # name -> size and time
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="mirror", daemon=True)
        self._is_warned = False

    def restore(self) -> int:
        """Writes D/ as the bucket has it, but for TensorBoard's files, which only grow
        in number; returns how many files. Raises StorageError.

        A D/ that outlived its process is newer, and left as it is.
        """
        if (self._workdir / RUN_LOCK).exists():
            return 0
        names = [n for n in self._run.files() if not n.startswith(f"{BOARD}/")]
        for name in names:
            path = self._workdir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._run.read(name))
            self._copied[name] = _version(path)
        return len(names)

    def sync(self) -> None:
        """Copies what has changed since the last time. Raises StorageError."""
        if not (self._workdir / RUN_LOCK).exists():
            return  # another host writes the run folder
        for path in sorted(self._workdir.rglob("*")):
            name = path.relative_to(self._workdir).as_posix()
            if not path.is_file() or not _is_copied(name):
                continue
            with contextlib.suppress(FileNotFoundError):  # replaced or taken back
                version = _version(path)
                if self._copied.get(name) != version:
                    folder, name_there = self._place(name)
                    folder.put(path, name_there)
                    self._copied[name] = version

    def _place(self, name: str) -> tuple[Folder, str]:
        if name.startswith(f"{BOARD}/"):
            return self._board, name.removeprefix(f"{BOARD}/")
        return self._run, name

    def _loop(self) -> None:
        events = self._workdir / _EVENTS
        last, due = 0, time.monotonic() + self._every
        while not self._closed.wait(min(_LOOK_SECS, self._every)):
            size = events.stat().st_size if events.exists() else 0
            if size != last or time.monotonic() >= due:
                self._try()
                last, due = size, time.monotonic() + self._every

    def _try(self) -> bool:
        try:
            self.sync()
        except (PodiumError, OSError) as error:
            if not self._is_warned:
                self._is_warned = True
                cli.say(f"WARNING: {self._run}: {error}; tried again, training goes on")
            return False
        self._is_warned = False
        return True

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        for more in range(_LAST_TRIES):
            if self._try():
                return
            time.sleep(self._every * 2**more / 10)
        cli.say(f"WARNING: {self._run} lacks the last metrics of this start")


def _version(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _is_copied(name: str) -> bool:
    if name.split("/")[0] in _STAY or name == RUN_LOCK:
        return False
    return not name.endswith(".part")
