# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Host rows -> global sharded jax.Arrays, some steps ahead. The one jax import here."""

import bisect
import dataclasses
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from podium.input.batch import Batch

# What the host does here, by name in traces.
WAIT = "podium: wait for batch"
TO_DEVICE = "podium: batch to devices"


@dataclasses.dataclass(frozen=True)
class Feed:
    """What this process reads of every global batch, and where it goes."""

    sharding: jax.sharding.Sharding  # of rows, [B, T]
    global_shape: tuple[int, int]
    rows: Sequence[int]  # of the batch, ascending: those that its devices hold

    @classmethod
    def of(cls, sharding: jax.sharding.Sharding, shape: tuple[int, int]) -> "Feed":
        """The rows of [B, T] that any device of this process holds, whole or in part.

        Devices of one host are neighbours on the torus, so their rows need not be.
        """
        places = sharding.addressable_devices_indices_map(shape).values()
        spans = {index[0].indices(shape[0])[:2] for index in places if index}
        rows = sorted({row for span in spans for row in range(*span)})
        is_one_span = rows[-1] - rows[0] + 1 == len(rows)
        return cls(
            sharding, shape, range(rows[0], rows[-1] + 1) if is_one_span else rows
        )

    def put(self, batch: Batch) -> Batch:
        """Global arrays from the rows that this process read.

        The arrays never share memory with `batch`, which may be written over at once.
        """
        num_bytes = sum(field.nbytes for field in batch)
        with jax.profiler.TraceAnnotation(TO_DEVICE, bytes=num_bytes):
            return Batch(*map(self.put_one, batch))

    def put_one(self, local: np.ndarray) -> jax.Array:
        """The global array [B, T] from the rows that this process has of it."""
        # On a CPU device jax may take a NumPy array's memory as its own.
        part = functools.partial(self.part, np.array(local))
        return jax.make_array_from_callback(self.global_shape, self.sharding, part)

    def part(self, local: np.ndarray, index: Any) -> np.ndarray:
        """What a device holds: rows and columns `index` of the global batch."""
        start, stop, _ = index[0].indices(self.global_shape[0])
        at = bisect.bisect_left(self.rows, start)
        return local[at : at + stop - start, index[1]]


_POLL_SECS = 0.005


class Prefetcher(Iterator[tuple[int, Batch, float]]):
    """See `prefetch`.

    `is_busy` may be set: it says whether the devices still compute. Waiting meanwhile
    costs nothing and is not counted.
    """

    is_busy: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(
        self,
        stream: Iterable[tuple[int, Batch]],
        feed: Feed,
        depth: int,
    ):
        self._stream, self._feed = stream, feed
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._is_closed = False
        self._thread = threading.Thread(
            target=self._work, name="podium-prefetch", daemon=True
        )
        self._thread.start()

    def __next__(self) -> tuple[int, Batch, float]:
        if self._is_closed:
            raise StopIteration
        with jax.profiler.TraceAnnotation(WAIT):
            item, wait_secs = self._next()
        self._room.release()
        if isinstance(item, BaseException):
            self.close()
            raise item
        step, batch = item
        return step, batch, wait_secs

    def _next(self) -> tuple[Any, float]:
        """What is ready next, and for how many seconds idle devices waited for it."""
        since = time.perf_counter()
        while True:
            try:
                item = self._ready.get(timeout=_POLL_SECS)
                break
            except queue.Empty:
                if self.is_busy():
                    since = time.perf_counter()
        now = time.perf_counter()
        return item, 0.0 if self.is_busy() else now - since

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading ahead and closes the stream."""
        self._is_closed = True
        self._room.release()
        close = getattr(self._stream, "close", None)
        if close:
            close()
        self._thread.join()

    def _work(self) -> None:
        end: BaseException = StopIteration()
        try:
            batches = iter(self._stream)
            while self._room.acquire() and not self._is_closed:
                step, batch = next(batches)
                self._ready.put((step, self._feed.put(batch)))
        except BaseException as e:  # raised where the batch would have been used
            end = e
        self._ready.put(end)


def prefetch(
    stream: Iterable[tuple[int, Batch]],
    feed: Feed,
    depth: int = 2,
) -> Prefetcher:
    """Iterates over (step, batch on the devices, seconds waited for it; see `is_busy`).

    A thread keeps up to `depth` batches on the devices. It starts now. Errors of the
    stream are raised by `next` in their turn. Use it in a `with`, or call `close`.
    """
    return Prefetcher(stream, feed, depth)
