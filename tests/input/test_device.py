# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import itertools
import queue
import threading

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from podium.errors import DataError
from podium.input import device
from podium.input.batch import Batch
from podium.input.device import Feed, prefetch


def feed_of(num_devices, *spec):
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("data",))
    return Feed.of(NamedSharding(mesh, P(*spec)), (8, 16))


def batch_of(step, rows=8, seq_len=16):
    # 64-byte aligned: the memory that jax would take over as it is.
    raw = np.zeros(4 * rows * seq_len * 4 + 64, np.uint8)
    at = -raw.ctypes.data % 64
    fields = raw[at : at + 4 * rows * seq_len * 4].view(np.int32)
    fields = fields.reshape(4, rows, seq_len)
    fields[:] = step
    return Batch(*fields)


class Numbers:
    """A stream of batches that counts, and remembers that it was closed."""

    def __init__(self, stop=None, error=None):
        self.taken, self.stop, self.error, self.is_closed = 0, stop, error, False

    def __iter__(self):
        while self.stop is None or self.taken < self.stop:
            self.taken += 1
            yield self.taken - 1, batch_of(self.taken - 1)
        if self.error:
            raise self.error

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("spec", [(), ("data",)])
def test_arrays_on_the_devices_do_not_share_the_hosts_memory(num_devices, spec):
    batch = batch_of(7)
    arrays = feed_of(num_devices, *spec).put(batch)
    for field in batch:
        field[:] = -5
    for array in arrays:
        assert array.shape == (8, 16)
        assert array.dtype == np.int32
        assert (np.asarray(array) == 7).all()


def test_rows_are_split_over_the_devices():
    array = feed_of(4, "data").put(batch_of(1)).tokens
    assert [s.data.shape for s in array.addressable_shards] == [(2, 16)] * 4


def test_one_process_feeds_all_rows():
    assert feed_of(8, "data").rows == range(8)
    assert feed_of(8).rows == range(8)


class OneHostOfTwo:
    """Its four devices hold rows 0, 1 and 4, 5 of eight, in two columns."""

    def addressable_devices_indices_map(self, shape):
        halves = (slice(None, 8), slice(8, None))
        rows = (slice(0, 2, None), slice(4, 6, None))
        return dict(enumerate(itertools.product(rows, halves)))


def test_rows_of_a_process_need_not_be_neighbours_nor_whole():
    feed = Feed.of(OneHostOfTwo(), (8, 16))
    assert list(feed.rows) == [0, 1, 4, 5]
    local = np.arange(4 * 16).reshape(4, 16)
    part = feed.part(local, (slice(4, 6, None), slice(8, None)))
    np.testing.assert_array_equal(part, local[2:4, 8:])


def test_batches_come_in_order_and_end():
    got = [(step, int(b.tokens[0, 0])) for step, b, _ in prefetch(Numbers(5), FEED)]
    assert got == [(i, i) for i in range(5)]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_than_depth_batches_are_read_ahead(depth):
    stream = Numbers()
    batches = prefetch(stream, FEED, depth=depth)
    for taken in (1, 2, 3):
        next(batches)
        wait_until(lambda want=taken + depth: stream.taken >= want)
        assert stream.taken == taken + depth
    batches.close()


@pytest.mark.parametrize(
    ("busy_secs", "batch_secs", "waited"), [(0, 3, 3), (2, 5, 3), (9, 5, 0), (0, 0, 0)]
)
def test_waiting_counts_while_the_devices_are_idle(
    monkeypatch, busy_secs, batch_secs, waited
):
    now = [0.0]
    monkeypatch.setattr(device.time, "perf_counter", lambda: now[0])

    class Late:
        def get(self, timeout):
            if now[0] < batch_secs:
                now[0] += 1.0  # a second at a time
            if now[0] < batch_secs:
                raise queue.Empty
            return 0, batch_of(0)

    with prefetch(Numbers(0), FEED) as batches:
        batches._ready = Late()
        batches.is_busy = lambda: now[0] <= busy_secs and busy_secs > 0
        assert next(batches)[2] == waited


def test_an_error_of_the_stream_comes_after_the_batches_before_it():
    batches = prefetch(Numbers(3, error=DataError("shard x is damaged")), FEED)
    assert [step for step, _, _ in itertools.islice(batches, 3)] == [0, 1, 2]
    with pytest.raises(DataError, match="shard x is damaged"):
        next(batches)


def test_closing_early_ends_the_thread_and_the_stream():
    stream = Numbers()
    with prefetch(stream, FEED) as batches:
        next(batches)
    assert stream.is_closed
    assert not [t for t in threading.enumerate() if t.name == "podium-prefetch"]
    with pytest.raises(StopIteration):
        next(batches)
    batches.close()


def wait_until(condition):
    wait = threading.Event()
    for _ in range(1000):
        if condition():
            return
        wait.wait(0.01)
    raise AssertionError("did not happen within 10 s")


FEED = feed_of(2, "data")
