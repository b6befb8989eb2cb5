# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The shards of a data set, read at any place: from a disk, or from a bucket.

A disk answers in microseconds, one reading after the other. A bucket answers in tens of
milliseconds, so there the readings of a batch are under way at once.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from podium import storage
from podium.errors import DataError, StorageError
from podium.storage import Folder, is_remote

_THREADS = 64  # a host's share of a batch is some hundred spans


class Files(Protocol):
    """Files by their number. Raises OSError; DataError where a bucket refuses."""

    def read(self, file: int, num_bytes: int, offset: int) -> bytes:
        """What a file holds there: less than asked for only at its end."""
        ...

    def map(
        self, function: Callable[..., bool], *columns: Sequence[int]
    ) -> Iterable[bool]:
        """function(*row) of each row, in order, by as many threads as pay."""
        ...


def open_files(folder: Folder, names: Sequence[str]) -> Files:
    """Files of a folder. Each is opened when it is first read."""
    kind = _InBucket if is_remote(folder.path) else _OnDisk
    return kind(folder, names)


class _OnDisk:
    def __init__(self, folder: Folder, names: Sequence[str]):
        self._paths = [os.path.join(folder.path, name) for name in names]
        self._open: dict[int, int] = {}

    def read(self, file: int, num_bytes: int, offset: int) -> bytes:
        return storage.read_at(self._file(file), offset, num_bytes)

    def map(
        self, function: Callable[..., bool], *columns: Sequence[int]
    ) -> Iterable[bool]:
        return map(function, *columns)

    def _file(self, file: int) -> int:
        if file not in self._open:
            self._open[file] = os.open(self._paths[file], os.O_RDONLY)
        return self._open[file]


class _InBucket:
    def __init__(self, folder: Folder, names: Sequence[str]):
        self._folder, self._names = folder, names
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bucket")

    def read(self, file: int, num_bytes: int, offset: int) -> bytes:
        try:
            return self._folder.read_at(self._names[file], offset, num_bytes)
        except StorageError as error:  # not damage: no policy passes over it
            raise DataError(str(error)) from error

    def map(
        self, function: Callable[..., bool], *columns: Sequence[int]
    ) -> Iterable[bool]:
        return self._threads.map(function, *columns)
