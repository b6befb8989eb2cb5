# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Says on standard error what takes minutes."""

import sys
import time
from typing import Any


def progress(what: str) -> Any:
    """A spinner on a terminal; elsewhere a line, and another with the time it took."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status(what) if console.is_terminal else _Line(what)


class _Line:
    def __init__(self, what: str):
        self.what = what

    def __enter__(self):
        self.start = time.monotonic()
        print(self.what, file=sys.stderr, flush=True)

    def __exit__(self, *_):
        took = time.monotonic() - self.start
        print(f"{self.what}: {took:.0f} s", file=sys.stderr, flush=True)
