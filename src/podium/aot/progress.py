# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Says on standard error what takes minutes, and lets nobody wait for its end."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from podium import cli

T = TypeVar("T")
_LINE_SECS = 60.0  # between lines, where there is no terminal


def watched(what: str, call: Callable[[], T]) -> T:
    """What `call` returns or raises, its time shown meanwhile.

    It runs in a thread of its own, as XLA answers no signal until it is done. Ctrl-C and
    SIGTERM then end the whole process: nothing ends a compile.
    """
    came: list[Any] = []

    def work() -> None:
        try:
            came.append((call(), None))
        except BaseException as error:
            came.append((None, error))

    thread = threading.Thread(target=work, name="compile", daemon=True)
    with _terminated_at_once():
        thread.start()
        try:
            with _shown(what) as show:
                start = time.monotonic()
                while thread.is_alive():
                    thread.join(1.0)
                    show(time.monotonic() - start)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr, flush=True)
            os._exit(cli.EXIT_INTERRUPTED)
    result, error = came[0]
    if error is not None:
        raise error
    return result


@contextlib.contextmanager
def _terminated_at_once() -> Iterator[None]:
    """libtpu has a handler of SIGTERM, which prints a stack trace and takes seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _shown(what: str) -> Iterator[Callable[[float], None]]:
    """A spinner on a terminal; elsewhere a line, one a minute, and one at the end."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what) as status:
            yield lambda secs: status.update(f"{what}: {secs:.0f} s")
        return
    start = said = time.monotonic()
    print(what, file=sys.stderr, flush=True)

    def show(secs: float) -> None:
        nonlocal said
        if time.monotonic() - said >= _LINE_SECS:
            said = time.monotonic()
            print(f"{what}: {secs:.0f} s so far", file=sys.stderr, flush=True)

    yield show
    took = time.monotonic() - start
    print(f"{what}: {took:.0f} s", file=sys.stderr, flush=True)
