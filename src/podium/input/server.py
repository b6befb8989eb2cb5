# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""InputServer: the trainer's side of the input processes.

The process that reads is started first of all and is ready while jax is still being
imported; its threads never take the trainer's interpreter lock. Importing TensorFlow
takes longer than a first step, so once a long stream is under way a second process
imports it, at the lowest priority, and takes that stream over at a later step: the
batches are the same, as each is a function of its step. No jax here.
"""

import contextlib
import dataclasses
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import IO, Literal

import numpy as np

from podium.errors import DataError
from podium.input import wire
from podium.input.batch import Batch
from podium.input.damage import Damage
from podium.input.spec import StreamInfo, StreamSpec

_EXIT_SECS = 2.0
_LONG_STREAM_STEPS = 64  # shorter ones end before TensorFlow is there

EngineName = Literal["direct", "tf.data"]


class InputServer:
    """Starts input processes and opens streams of batches from them.

    Use `InputServer.start()`, as early as possible, and `close()`; or `with`.
    """

    def __init__(self, *, tf_data_after_steps: int | None = 8):
        """tf_data_after_steps: batches a long stream serves before TensorFlow is
        imported, so that it does not compete with the first step; None: never.
        """
        self._tf_data_after_steps = tf_data_after_steps
        self._workers: dict[EngineName, _Worker] = {}
        self._lock = threading.Lock()
        self.worker("direct")

    @classmethod
    def start(cls, *, tf_data_after_steps: int | None = 8) -> "InputServer":
        """Starts the input process and returns at once."""
        return cls(tf_data_after_steps=tf_data_after_steps)

    def open(self, spec: StreamSpec) -> "Stream":
        """The batches that `spec` describes. Returns at once; errors come with `next`.

        Any number of streams may be open at a time.
        """
        return Stream(self, spec, self._tf_data_after_steps)

    def worker(self, engine: EngineName) -> "_Worker":
        """The process of an engine, started when first asked for."""
        with self._lock:
            if engine not in self._workers:
                self._workers[engine] = _Worker(engine)
            return self._workers[engine]

    def close(self) -> None:
        """Ends the processes."""
        with self._lock:
            for worker in self._workers.values():
                worker.close()

    def __enter__(self) -> "InputServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stream(Iterator[tuple[int, Batch]]):
    """Iterates over (step, batch of NumPy arrays that are the caller's own).

    `next` raises DataError for damaged data or a dead input process.

    Attributes:
        wait_secs: how long the last `next` took.
        engine: what the last batch came from, "direct" or "tf.data".
    """

    def __init__(self, server: InputServer, spec: StreamSpec, tf_after: int | None):
        self._server, self._spec, self._tf_after = server, spec, tf_after
        self._damaged: deque[tuple[int, list[Damage]]] = deque()
        self._source = _Source(server.worker("direct"), spec, self._damaged)
        self._successor: _Source | None = None
        self._served = 0
        self.wait_secs = 0.0
        self.engine: EngineName = "direct"

    @property
    def info(self) -> StreamInfo:
        """Size of the data and share of padding; waits until the data is open."""
        return self._source.info()

    def __next__(self) -> tuple[int, Batch]:
        begin = time.perf_counter()
        found = self._source.next()
        if found is None:
            raise StopIteration
        step, fields = found
        self._served += 1
        self.engine = self._source.engine
        self._hand_over(step + 1)
        self.wait_secs = time.perf_counter() - begin
        return step, Batch(*fields)

    def take_damaged(self, step: int | None = None) -> list[Damage]:
        """The records left out of the batches up to `step`, or of all that were read.

        Each is named once for every batch it was left out of. Another thread than the
        one that calls `next` may ask.
        """
        found: list[Damage] = []
        while self._damaged and (step is None or self._damaged[0][0] <= step):
            found += self._damaged.popleft()[1]
        return found

    def close(self) -> None:
        """Lets the input process stop working on this stream."""
        self._source.close()
        if self._successor:
            self._successor.close()

    def _hand_over(self, next_step: int) -> None:
        """Moves a long stream over to tf.data once that is ready."""
        if self._successor is not None:
            if next_step == self._successor.spec.first_step:
                self._source.close()
                self._source, self._successor = self._successor, None
                self._tf_after = None
            return
        if self._tf_after is None or self._served < self._tf_after:
            return
        first_step = next_step + self._spec.data.prefetch_batches
        stop = self.info.stop_step
        if stop is not None and stop - first_step < _LONG_STREAM_STEPS:
            return
        worker = self._server.worker("tf.data")
        if worker.is_dead():
            self._tf_after = None
            logging.getLogger(__name__).warning(
                "tf.data is not available, reading on without it (same batches): %s",
                worker.last_words(),
            )
        elif worker.is_ready():
            remaining = None if stop is None else stop - first_step
            spec = dataclasses.replace(
                self._spec, first_step=first_step, num_steps=remaining
            )
            self._successor = _Source(worker, spec, self._damaged)


class _Source:
    """One engine's end of a stream: a socket and a ring of slots."""

    def __init__(
        self,
        worker: "_Worker",
        spec: StreamSpec,
        damaged: deque[tuple[int, list[Damage]]],
    ):
        """`damaged` takes (step, records) of the batches to which that happened."""
        self.spec, self._worker, self.damaged = spec, worker, damaged
        self.engine: EngineName = worker.engine
        shape = (len(Batch._fields), len(spec.rows), spec.data.seq_len)
        num_slots = spec.data.prefetch_batches
        memory = wire.make_memory(num_slots * 4 * int(np.prod(shape)))
        self._ring = wire.map_ring(memory, (num_slots, *shape))
        self._socket, theirs = socket.socketpair()
        self._hang_up = weakref.finalize(self, _hang_up, self._socket)
        with contextlib.closing(theirs):
            worker.request(spec, [theirs.fileno(), memory])
        os.close(memory)
        self._slot = 0
        self._is_closed = False
        self._info: StreamInfo | None = None

    def info(self) -> StreamInfo:
        if self._info is None:
            _, _, body = self._receive()
            self._info = wire.unpack_info(body)
        return self._info

    def next(self) -> tuple[int, np.ndarray] | None:
        """(step, a copy of the fields [4, rows, T]), or None at the end."""
        try:
            self.info()  # the first message
            kind, step, body = self._receive()
            while kind is wire.Kind.DAMAGED:
                self.damaged.append((step, wire.unpack_damaged(body)))
                kind, step, body = self._receive()
        except ValueError:
            return None
        if kind is wire.Kind.END:
            self.close()
            return None
        fields = self._ring[self._slot].copy()
        self._slot = (self._slot + 1) % len(self._ring)
        with contextlib.suppress(OSError):  # gone if that was the last batch
            self._socket.send(wire.CREDIT)
        return step, fields

    def close(self) -> None:
        self._is_closed = True
        self._hang_up()

    def _receive(self) -> tuple[wire.Kind, int, bytes]:
        try:
            kind, step, body = wire.receive_message(self._socket)
        except (EOFError, OSError) as e:
            if self._is_closed:
                raise ValueError("the stream is closed") from e
            raise DataError(self._worker.last_words()) from e
        if kind is wire.Kind.ERROR:
            self.close()
            raise DataError(body.decode())
        return kind, step, body


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for a batch
    sock.close()


class _Worker:
    """An input process."""

    def __init__(self, engine: EngineName):
        self.engine: EngineName = engine
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "podium.input.worker"]
        with contextlib.closing(theirs):
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), engine],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                process_group=0,  # Ctrl-C reaches the trainer alone
            )
        self._is_ready = False
        self._lock = threading.Lock()
        self.close = weakref.finalize(
            self, _end, self._process, self._control, self._log
        )

    def request(self, spec: StreamSpec, fds: list[int]) -> None:
        """Asks for a stream. A dead process is noticed by the stream's own socket."""
        with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send_request(self._control, spec, fds)

    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def is_ready(self) -> bool:
        """Whether the process has said that it is ready; only tf.data does."""
        if not self._is_ready and select.select([self._control], [], [], 0)[0]:
            self._is_ready = self._control.recv(1) == wire.READY
        return self._is_ready

    def last_words(self) -> str:
        """One line on how the process ended."""
        if self._log.closed:
            return "the input server is closed"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECS)
        code = self._process.returncode
        if code is None:
            how = "broke off"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        if code == -signal.SIGBUS:  # all else is read, not mapped
            how += " (a packing plan was cut short while it was read)"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no message")
        return f"the input process {how}: {last.strip()}"


def _end(process: subprocess.Popen, control: socket.socket, log: IO) -> None:
    """Closes the control socket, at which the process leaves by itself."""
    control.close()
    try:
        process.wait(_EXIT_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
