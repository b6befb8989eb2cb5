# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Host rows -> global sharded jax.Arrays, some steps ahead. The one jax import here."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from podium.input.batch import Batch


def put(batch: Batch, sharding: jax.sharding.Sharding) -> Batch:
    """A batch of global arrays from the rows that this process feeds.

    The arrays never share memory with `batch`, which may be written over at once.
    """

    def global_array(local: np.ndarray) -> jax.Array:
        # On a CPU device jax may take a NumPy array's memory as its own.
        return jax.make_array_from_process_local_data(sharding, np.array(local))

    return Batch(*map(global_array, batch))


def process_rows(
    sharding: jax.sharding.Sharding, global_batch_seqs: int, seq_len: int
) -> tuple[int, int]:
    """[start, stop) of the global batch's rows that this process's devices hold."""
    slices = sharding.addressable_devices_indices_map((global_batch_seqs, seq_len))
    spans = [index[0].indices(global_batch_seqs) for index in slices.values() if index]
    return min(s[0] for s in spans), max(s[1] for s in spans)


class Prefetcher(Iterator[tuple[int, Batch, float]]):
    """See `prefetch`."""

    def __init__(
        self,
        stream: Iterable[tuple[int, Batch]],
        sharding: jax.sharding.Sharding,
        depth: int,
    ):
        self._stream, self._sharding = stream, sharding
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
        begin = time.perf_counter()
        item = self._ready.get()
        wait_secs = time.perf_counter() - begin
        self._room.release()
        if isinstance(item, BaseException):
            self.close()
            raise item
        step, batch = item
        return step, batch, wait_secs

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
                self._ready.put((step, put(batch, self._sharding)))
        except BaseException as e:  # raised where the batch would have been used
            end = e
        self._ready.put(end)


def prefetch(
    stream: Iterable[tuple[int, Batch]],
    sharding: jax.sharding.Sharding,
    depth: int = 2,
) -> Prefetcher:
    """Iterates over (step, batch on the devices, seconds the caller waited for it).

    A thread keeps up to `depth` batches on the devices. It starts now. Errors of the
    stream are raised by `next` in their turn. Use it in a `with`, or call `close`.
    """
    return Prefetcher(stream, sharding, depth)
