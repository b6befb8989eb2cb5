# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A process that loses another one of its run leaves, in a line and with exit code 75.

jax notices: a process that sends no sign of life for `peer_secs` is dead to
the others (killed, stopped, cut off), and jax then aborts each of them from a thread of
its own, with a C++ stack and code 134. We wait for that signal, SIGABRT, where it is
raised. Python's own handlers run in the main thread, which waits for the lost process.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from podium.cli import EXIT_RUN_AGAIN

_LAST_SECS = 10  # for the last words; then the process ends without them

_held: list[object] = []  # what C code points to must not be collected
_last_words: list[Callable[[], None]] = []


def leave_when_lost() -> None:
    """From now on an abort says why and ends the process with 75."""
    libc = ctypes.CDLL(None)

    def on_abort(_number: int) -> None:
        libc.alarm(_LAST_SECS)
        leave(
            "another process of this run is gone or cannot be reached (the lines above "
            "name it, as a task)"
        )

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
    _held.append(handler)
    libc.signal(signal.SIGABRT, handler)


def call_before_leaving(last_words: Callable[[], None]) -> None:
    """What a run still has to note."""
    _last_words[:] = [last_words]


def leave(why: str) -> None:
    """Ends this process at once, whatever its threads wait for."""
    try:
        print(
            f"{why}; leaving, so that all can be started again: the same command "
            "continues from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        for say in _last_words:
            say()
    finally:
        os._exit(EXIT_RUN_AGAIN)


def is_loss(error: BaseException) -> bool:
    """Whether a runtime error says that a collective lost its other end."""
    text = str(error)
    words = ("Gloo", "Connection closed by peer", "Connection reset", "UNAVAILABLE")
    return type(error).__name__ == "JaxRuntimeError" and any(w in text for w in words)
