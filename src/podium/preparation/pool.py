# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Worker processes that run functions of this package and report progress.

Not multiprocessing.Pool: its workers run the caller's main module again (a trainer's
would import jax in each), need an `if __name__` guard in scripts, and hang when one of
them is killed for want of memory. Here a worker is a plain Python that imports what the
function needs; one that dies is an error, and none outlives its parent for longer than
one progress report.
"""

import importlib
import multiprocessing.connection
import os
import pathlib
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import podium
from podium.errors import DataError, PodiumError

Connection = multiprocessing.connection.Connection


class Pool:
    """`num_workers` processes, each with `num_threads` threads for the tokenizer.

    A function handed to `map` takes (task, report), where report(n) says that n more
    bytes are done; it must be importable, and tasks and results must pickle.
    """

    def __init__(self, num_workers: int, num_threads: int = 1):
        self._workers: dict[Connection, subprocess.Popen] = {}
        for _ in range(num_workers):
            ours, theirs = multiprocessing.Pipe()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(num_threads),
            )
            theirs.close()  # so that we see the end of file when the worker dies
            self._workers[ours] = process

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection, process in self._workers.items():
            connection.close()
            process.kill()  # idle by now, or its work is no longer wanted
        for process in self._workers.values():
            process.wait()

    def map(
        self,
        function: Callable[[Any, Callable[[int], None]], Any],
        tasks: Sequence[Any],
        report: Callable[[int], None],
    ) -> list[Any]:
        """Results in the order of the tasks. Raises the first error of a worker."""
        name = (function.__module__, function.__qualname__)
        results: list[Any] = [None] * len(tasks)
        todo = iter(range(len(tasks)))
        at: dict[Connection, int] = {}

        def give(connection: Connection) -> None:
            if (i := next(todo, None)) is not None:
                at[connection] = i
                connection.send((*name, tasks[i]))

        for connection in self._workers:
            give(connection)
        while at:
            for connection in multiprocessing.connection.wait(list(at)):
                assert isinstance(connection, Connection)
                try:
                    kind, value = connection.recv()
                except (EOFError, ConnectionResetError):
                    raise self._died(connection) from None
                if kind == "progress":
                    report(value)
                elif kind == "error":
                    raise value
                else:
                    results[at.pop(connection)] = value
                    give(connection)
        return results

    def _died(self, connection: Connection) -> PodiumError:
        code = self._workers[connection].wait()
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        hint = "; perhaps out of memory: try --num_workers=1" if code == -9 else ""
        error = DataError(
            f"a worker process died ({cause}){hint}. Run the same command to continue"
        )
        error.is_met_at_work = True
        return error


def _environment(num_threads: int) -> dict[str, str]:
    # -P and our own folder first: a file called random.py in the user's working
    # folder must not get in the way.
    package = str(pathlib.Path(podium.__file__).resolve().parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "TOKENIZERS_PARALLELISM": "true" if num_threads > 1 else "false",
        "RAYON_NUM_THREADS": str(num_threads),
    }


def _work(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle

    def report(num_bytes: int) -> None:
        connection.send(("progress", num_bytes))

    while True:
        try:
            module, name, task = connection.recv()
        except EOFError:
            return
        try:
            function = getattr(importlib.import_module(module), name)
            answer = ("done", function(task, report))
        except (BrokenPipeError, ConnectionResetError):
            return  # the parent is gone
        except PodiumError as e:
            answer = ("error", e)
        except OSError as e:
            error = DataError(f"{e.filename or 'prepare'}: {e.strerror}")
            error.is_met_at_work = True
            answer = ("error", error)
        except Exception:
            answer = ("error", RuntimeError(traceback.format_exc()))
        connection.send(answer)


if __name__ == "__main__":
    _work(Connection(int(sys.argv[1])))
