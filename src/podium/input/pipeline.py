# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The two ways an input process drives `Loader`: directly, and through tf.data.

Both give the same batches, because a batch is a function of its step. The direct way
is there at once; tf.data reads several steps in parallel.
"""

import functools
import itertools
import os
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from podium.errors import DataError
from podium.input.loader import Loader

Fill = Callable[[np.ndarray], object]  # writes a batch into an int32 [4, rows, T]
Engine = Callable[[Loader], Iterator[tuple[int, Fill]]]

_LOWEST_PRIORITY = 19


def direct(loader: Loader) -> Iterator[tuple[int, Fill]]:
    """(step, fill) one after the other; the read happens in `fill`."""
    for step in _steps(loader):
        yield step, functools.partial(loader.read, step)


def tf_data(loader: Loader) -> Iterator[tuple[int, Fill]]:
    """(step, fill) from a tf.data pipeline that has read ahead. Raises DataError."""
    import tensorflow as tf

    failures: dict[int, DataError] = {}

    def read_step(step: np.ndarray) -> np.ndarray:
        try:
            return loader.read(int(step))
        except DataError as e:  # TensorFlow would turn it into a page of text
            failures[int(step)] = e
            return np.empty(0, np.int32)

    @tf.autograph.experimental.do_not_convert  # leaves files in /tmp, and is slow
    def read(step):
        return tf.numpy_function(read_step, [step], tf.int32)

    spec = loader.spec
    last = 2**62 if loader.stop_step is None else loader.stop_step
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = spec.data.num_threads
    batches = (
        tf.data.Dataset.range(spec.first_step, last)
        .map(read, num_parallel_calls=spec.data.num_threads)
        .prefetch(1)
        .with_options(options)
    )
    for step, batch in zip(_steps(loader), batches.as_numpy_iterator(), strict=False):
        if step in failures:
            raise failures[step]
        yield step, functools.partial(_copy, batch)


def import_tensorflow() -> None:
    """Imports TensorFlow (7 to 11 s of CPU) silently, without accelerators or jax.

    Call it in a thread: on Linux a priority belongs to a thread, and this one's becomes
    the lowest for good. Raises what the import raises.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # announces itself on stderr otherwise
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    sys.modules["jax"] = typing.cast(Any, None)  # TensorFlow Lite would import it
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, _LOWEST_PRIORITY)
    import tensorflow  # noqa: F401


def _copy(batch: np.ndarray, out: np.ndarray) -> None:
    np.copyto(out, batch)


def _steps(loader: Loader) -> Iterator[int]:
    if loader.stop_step is None:
        return itertools.count(loader.spec.first_step)
    return iter(range(loader.spec.first_step, loader.stop_step))
