# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Steps traced for XProf, written to D/traces: a window, or some that are asked for.

A running job is asked by SIGUSR1, by writing D/traces/request (a number of steps, or
nothing: five), or by XProf itself over `profile.port`. A process answers for itself: the
file reaches all that share D, at steps that may differ by what is done in a second.

Python's own tracer is off: it makes a step's host work several times as long.
"""

import contextlib
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from podium.config import ProfileConfig
from podium.errors import ConfigError

# Names of what the host does, in traces; `input.device` has two more.
SAVE = "podium: save"
EVALUATION = "podium: evaluation"

REQUEST = "request"  # in D/traces
_STEPS = 5  # of a trace that is asked for without a number
_POLL_SECS = 1.0


class TraceWindow:
    """Starts the profiler before the steps to trace; entered, it hears of requests."""

    def __init__(
        self,
        cfg: ProfileConfig,
        workdir: str | Path,
        say: Callable[[str], None] = lambda line: None,
    ):
        """`say` tells the user what became of a request."""
        self._window, self._port = cfg.window(), cfg.port
        self.folder = Path(workdir) / "traces"
        self._say = say
        self._last: int | None = None  # the step a trace that is on ends with
        self._first = 0
        self._is_signalled = False
        self._seen = self._changed()  # what was asked of an earlier start is past
        self._polled = time.monotonic()
        self._handler: Any = None

    def before(self, step: int) -> None:
        """Call before a step is dispatched."""
        if self._last is not None:
            return
        if self._window is not None and step in self._window:
            self._start(step, self._window.stop - step)
        elif num_steps := self._asked():
            self._start(step, num_steps)

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Marks the host's work of a step, as XProf expects it."""
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def ends_with(self, step: int) -> bool:
        """Whether a trace is on whose last step this is: call `stop` once it is done."""
        return self._last is not None and step >= self._last

    def stop(self) -> None:
        """Writes the trace, if one is on. What fails here does not end a run."""
        if self._last is None:
            return
        first, last, self._last = self._first, self._last, None
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError, ValueError) as error:
            self._say(f"warning: the trace was not written: {_line(error)}")
        else:
            self._say(f"trace of steps {first} to {last}: {self.folder}")

    def __enter__(self) -> "TraceWindow":
        """Raises ConfigError where the capture server's port cannot be listened on."""
        if self._port is not None:
            port = self._port + jax.process_index()
            _check_port(port)
            jax.profiler.start_server(port)
            self._say(f"XProf can capture from port {port}")
        with contextlib.suppress(OSError):  # only a request would miss it
            self.folder.mkdir(parents=True, exist_ok=True)  # `echo 5 >` makes no folder
        self._handler = signal.signal(signal.SIGUSR1, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        signal.signal(signal.SIGUSR1, self._handler)
        if self._port is not None:
            jax.profiler.stop_server()

    def _start(self, step: int, num_steps: int) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        try:
            jax.profiler.start_trace(str(self.folder), profiler_options=options)
        except (OSError, RuntimeError, ValueError) as error:  # XProf captures just now
            self._say(f"warning: no trace: {_line(error)}")
            self._window = None
        else:
            self._first, self._last = step, step + num_steps - 1

    def _asked(self) -> int:
        """Steps that were asked for since the last call; 0: none."""
        if self._is_signalled:
            self._is_signalled = False
            return _STEPS
        now = time.monotonic()
        if now - self._polled < _POLL_SECS:
            return 0
        self._polled = now
        changed = self._changed()
        if changed is None or changed == self._seen:
            return 0
        self._seen = changed
        return self._num_steps()

    def _num_steps(self) -> int:
        path = self.folder / REQUEST
        try:
            text = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            self._say(f"warning: {path}: {_line(error)}")
            return 0
        if text and not re.fullmatch("[1-9][0-9]{0,3}", text):
            self._say(
                f"warning: {path} says {text[:60]!r}; expected a number of steps from "
                f"1 to 9999, or nothing for {_STEPS}"
            )
            return 0
        return int(text or _STEPS)

    def _changed(self) -> int | None:
        try:
            return (self.folder / REQUEST).stat().st_mtime_ns
        except OSError:
            return None

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self._is_signalled = True


def _check_port(port: int) -> None:
    """The server itself does not say that it could not listen."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("::", port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"profile.port: nothing can listen on port {port} ({error}); choose another "
            "one (a process adds its number to it), or none"
        ) from None


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
