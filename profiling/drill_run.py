# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of a drill: started as a user starts them, watched, compared. No jax.

A row is one fault in a folder of its own: the run folder, and what each start of the run
said. What a row expects and does not find is a `Failed`, with the reason.
"""

import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from podium.cli import EXIT_RUN_AGAIN
from podium.resume import whole_steps
from podium.storage import open_folder
from podium.trainer.events import read_events
from podium.trainer.goodput import account

POLL_SECS = 0.002
TRIES = 3
ALONE_SECS, FOUR_SECS = 180, 600  # no start of a run may take longer
SAME = ("loss", "grad_norm", "param_norm", "eval_loss")
"""What must be equal to the bit, step by step; the rest of a row is time and memory."""


class Failed(Exception):  # noqa: N818  # a result, not an error
    """The run did not do what it must."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds, measured on the unbroken run: where kills are worth their while."""

    start: float  # of the process, to its first step
    loop: float  # from the first step to the last
    save: float  # from the start of a save until it is whole


@dataclasses.dataclass
class Drill:
    """What all rows share."""

    folder: Path
    config: Path  # the config, cut down
    gold: Path
    rng: random.Random  # every instant is drawn from it
    kills: int
    say: Callable[[str], None]
    pace: Pace = Pace(0, 0, 0)
    rows: "list[Row]" = dataclasses.field(default_factory=list)  # that were started

    def end_all(self) -> None:
        """Nothing that was started outlives its row."""
        while self.rows:
            self.rows.pop().kill_all()

    def reference(self, num_processes: int) -> Path:
        """The folder of the unbroken run."""
        return self.folder / f"unbroken-{num_processes}" / "run"


class Row:
    """One fault, in a folder of its own."""

    def __init__(
        self,
        drill: Drill,
        name: str,
        *,
        num_processes: int = 1,
        flags: Sequence[str] = (),
        wrap: Callable[[int], list[str]] = lambda process: [],
        coordinator: str = "127.0.0.1",
    ):
        """`wrap` is what stands before the command of a process."""
        self.drill, self.folder = drill, drill.folder / name
        self.folder.mkdir()
        self.workdir = self.folder / "run"  # as the processes see it
        self.seen = self.workdir  # as we see it
        self.num_processes, self._wrap, self._host = num_processes, wrap, coordinator
        self.flags = [*_MESHES[num_processes], *flags]
        self.starts = 0
        self.running: list[subprocess.Popen] = []
        self.at_most_secs = ALONE_SECS if num_processes == 1 else FOUR_SECS

    # --- the processes ---

    def start(
        self,
        *,
        env: dict[str, str] | None = None,
        coordinators: dict[int, str] | None = None,
    ) -> list[subprocess.Popen]:
        """The same command every time; `coordinators` are the addresses that some
        processes know process 0 by."""
        self.starts += 1
        port = _free_port()
        self.port = port
        command = [
            *(sys.executable, "-m", "podium.train"),
            f"--config={self.drill.config}",
            f"--workdir={self.workdir}",
            *self.flags,
        ]
        self.running = []
        self.drill.rows.append(self)
        for i in range(self.num_processes):
            at = (coordinators or {}).get(i, f"{self._host}:{port}")
            who = [f"--coordinator={at}", f"--num_processes={self.num_processes}"]
            who = [*who, f"--process_id={i}"] if self.num_processes > 1 else []
            with self.log(i).open("wb") as log:
                process = subprocess.Popen(
                    [*self._wrap(i), *command, *who],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=_environment(self.drill.folder) | (env or {}),
                    start_new_session=True,  # Ctrl-C is the drill's
                )
            self.running.append(process)
        return self.running

    def log(self, process: int = 0) -> Path:
        """What a process of the latest start said."""
        return self.folder / f"start-{self.starts:03}-process-{process}.txt"

    def said(self, process: int = 0) -> str:
        """The same, as text."""
        return self.log(process).read_text(errors="replace")

    def ends(
        self, *want: int, within: float = 0, of: Sequence[int] | None = None
    ) -> float:
        """Waits for all processes, or some; they end with one of the codes.

        Returns the seconds waited.
        """
        begun = time.monotonic()
        within = within or self.at_most_secs
        for i in range(self.num_processes) if of is None else of:
            process = self.running[i]
            left = within - (time.monotonic() - begun)
            try:
                code = process.wait(max(0.1, left))
            except subprocess.TimeoutExpired:
                raise Failed(
                    f"{self._name(i)} is still there after {within:.0f} s"
                ) from None
            if code not in want:
                lines = self.said(i).strip().splitlines() or ["nothing said"]
                wanted = " or ".join(map(str, want))
                raise Failed(
                    f"{self._name(i)} ended with {code}, expected {wanted}: "
                    f"{lines[-1][:200]}"
                )
        return time.monotonic() - begun

    def until(self, is_so: Callable[[], Any], what: str) -> None:
        """Waits for something while the run goes on."""
        begun = time.monotonic()
        while not is_so():
            if any(p.poll() is not None for p in self.running):
                codes = [p.poll() for p in self.running]
                said = self.said(next(i for i, c in enumerate(codes) if c is not None))
                last = (said.strip().splitlines() or [""])[-1][:200]
                raise Failed(f"the run ended ({codes}) before {what}: {last}")
            if time.monotonic() - begun > self.at_most_secs:
                raise Failed(f"no {what} within {self.at_most_secs} s")
            time.sleep(POLL_SECS)

    def until_stepping(self) -> None:
        """Waits for the first step of this start."""
        before = self._num_first_steps()
        self.until(lambda: self._num_first_steps() > before, "a first step")

    def start_until(self, reached: Callable[[], object]) -> None:
        """Starts and waits; 75 says "run me again", so that is done.

        Four processes on two busy cores may miss each other in the half minute that Gloo
        gives them.
        """
        for is_last in (False,) * (TRIES - 1) + (True,):
            self.start()
            try:
                reached()
                return
            except Failed:
                if is_last or self.num_processes == 1 or not self._is_asked_again():
                    raise
                self.drill.say("ended with 75, before any fault: started again")

    def _is_asked_again(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            codes = [p.wait(self.at_most_secs) for p in self.running]
            return EXIT_RUN_AGAIN in codes and set(codes) <= {0, EXIT_RUN_AGAIN}
        return False

    def finish(self) -> None:
        """The same command again: to the end, and to the same curve."""
        self.start_until(lambda: self.ends(0))
        self.compare()

    def compare(self) -> None:
        """Raises Failed where the curve is another one than the unbroken run's."""
        want = self.drill.reference(self.num_processes)
        if found := first_difference(read_rows(want), read_rows(self.seen)):
            raise Failed(found)

    def kill_all(self) -> None:
        """Ends what is left of the latest start."""
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()

    def _name(self, process: int) -> str:
        return "the run" if self.num_processes == 1 else f"process {process}"

    # --- the run folder ---

    def events(self) -> list[dict[str, Any]]:
        """The ledger so far."""
        with contextlib.suppress(FileNotFoundError):
            return read_events(self.seen)
        return []

    def saved(self) -> list[int]:
        """The whole checkpoints."""
        return whole_steps(open_folder(self.seen / "checkpoints"))

    def is_saving(self) -> bool:
        """Whether a save has left, so far, a folder that is no whole checkpoint."""
        folder = self.seen / "checkpoints"
        with contextlib.suppress(FileNotFoundError):
            return any(".orbax-checkpoint-tmp" in name for name in os.listdir(folder))
        return False

    def _num_first_steps(self) -> int:
        """Starts that came to a first step, which is noted at once."""
        found = account(self.events()).attempts
        return sum(a.last_step is not None for a in found)


def first_difference(
    want: Sequence[dict[str, Any]], got: Sequence[dict[str, Any]]
) -> str | None:
    """Where two metrics.jsonl say another thing of SAME; None: nowhere."""
    for one, other in zip(want, got, strict=False):
        if one["step"] != other["step"] or _kind(one) != _kind(other):
            return (
                f"the curve has {_kind(other)} of step {other['step']} where the unbroken "
                f"one has {_kind(one)} of step {one['step']}"
            )
        for name in SAME:
            if one.get(name) != other.get(name):
                return (
                    f"{name} of step {one['step']} is {other.get(name)}, "
                    f"{one.get(name)} in the unbroken run"
                )
    if len(want) != len(got):
        return f"the curve has {len(got)} rows, the unbroken one {len(want)}"
    return None


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Every row of a curve. A line that is none is a fault here: the run is over."""
    path = workdir / "metrics.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise Failed(f"{path} is missing") from None
    except ValueError as error:
        raise Failed(f"{path} has a line that is no JSON ({error})") from None


def _kind(row: dict[str, Any]) -> str:
    return "eval_loss" if "eval_loss" in row else "loss"


@dataclasses.dataclass(frozen=True)
class Lost:
    """Seconds, by the goodput ledger of a run."""

    steps: float  # done again
    down: float  # from an attempt's last line to the next process
    again: float  # start, compile and restore of every start but the first
    recovery: float  # the same of one start, the median: how long until it steps again

    @property
    def total(self) -> float:
        """All that the unbroken run did not need."""
        return self.steps + self.down + self.again


def lost(workdirs: Sequence[Path]) -> Lost:
    """Of a fault's run, or runs."""
    steps, down, again, recoveries = 0, 0, 0, []
    for workdir in workdirs:
        attempts = account(read_events(workdir)).attempts
        steps += sum(a.millis["lost"] for a in attempts)
        down += sum(a.millis["down"] + a.millis["idle"] for a in attempts)
        for a in attempts[1:]:
            parts = ("initialisation", "compile", "restore")
            took = sum(a.millis[part] for part in parts)
            again += took
            if a.last_step is not None:
                recoveries.append(took)
    middle = sorted(recoveries)[len(recoveries) // 2] if recoveries else 0
    return Lost(steps / 1000, down / 1000, again / 1000, middle / 1000)


def pace(workdir: Path) -> Pace:
    """Of an unbroken run."""
    events = read_events(workdir)
    [attempt] = account(events).attempts
    until_loop = ("initialisation", "compile", "restore")
    saves = sorted(e["secs"] for e in events if e["event"] == "saved")
    return Pace(
        start=sum(attempt.millis[part] for part in until_loop) / 1000,
        loop=sum(attempt.millis[p] for p in ("productive", "checkpoint")) / 1000,
        save=saves[len(saves) // 2],
    )


_MESHES = {
    1: ["--config.mesh.data=1", "--config.mesh.fsdp=1"],
    4: ["--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.num_steps=60"],
}


def _environment(folder: Path) -> dict[str, str]:
    """The kills must find the compile cache, and not the user's one."""
    cache = str(folder / "compile-cache")
    return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
