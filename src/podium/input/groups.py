# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which group every token of a batch belongs to: its data set, or its source.

The manifest says which source every document came from. There may be millions, so
sources are grouped by where they lie: by folders as deep as `max_groups` allows, deeper
where there is more.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from podium.input.loader import Loader
from podium.input.manifest import Shard
from podium.input.spec import StreamSpec

By = Literal["total", "dataset", "source"]


class Groups:
    """Names of the groups of a stream, and the group of every position of a batch.

    Attributes:
        names: one a group; a single group is the whole.
    """

    def __init__(self, spec: StreamSpec, by: By, max_groups: int):
        """Opens the data where more than one group is possible. Raises DataError."""
        self.names: tuple[str, ...] = ("all",)
        self._shape = (len(spec.rows), spec.data.seq_len)
        self._loader: Loader | None = None
        if by == "total" or (by == "dataset" and len(spec.data.paths) == 1):
            return
        loader = Loader(spec)
        if by == "dataset":
            self.names = _short(spec.data.paths)
            self._ranges = [
                (np.zeros(1, np.int64), np.full(1, k, np.int32))
                for k in range(len(self.names))
            ]
        else:
            shards = [d.documents.shards for d in loader.datasets]
            self.names, group_of = group_sources(shards, max_groups)
            self._ranges = [_ranges(each, group_of) for each in shards]
        if len(self.names) > 1:
            self._loader = loader

    def of_batch(self, step: int) -> np.ndarray:
        """Group of the document at every position, int32 [rows, T]; 0 for padding."""
        out = np.zeros(self._shape, np.int32)
        if self._loader is None:
            return out
        datasets, chunks = self._loader.chunks(step)
        group = np.zeros(len(chunks.row), np.int32)
        for k, (first_document, groups) in enumerate(self._ranges):
            mine = np.flatnonzero(datasets == k)
            at = np.searchsorted(first_document, chunks.document[mine], side="right")
            group[mine] = groups[at - 1]
        begin = chunks.row * self._shape[1] + chunks.column
        before = np.cumsum(chunks.length) - chunks.length
        at = np.arange(chunks.length.sum()) + np.repeat(begin - before, chunks.length)
        out.reshape(-1)[at] = np.repeat(group, chunks.length)
        return out


def group_sources(
    shards: Sequence[Sequence[Shard]], max_groups: int
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of at most `max_groups` groups, and the group of every uri.

    A group is all that lies under a prefix of the uris, cut at slashes. They start as
    one; the one with most records is parted by its next folder or file, as long as the
    parts are not too many.
    """
    records: dict[str, int] = {}
    for of_dataset in shards:
        for shard in of_dataset:
            for source in shard.sources:
                records[source.uri] = records.get(source.uri, 0) + source.num_records
    parts_of = {uri: tuple(uri.split("/")) for uri in records}
    open_groups: dict[tuple[str, ...], list[str]] = {(): sorted(records)}
    closed: dict[tuple[str, ...], list[str]] = {}
    while open_groups:
        prefix = max(open_groups, key=lambda p: sum(records[u] for u in open_groups[p]))
        uris, n = open_groups.pop(prefix), len(prefix)
        children: dict[tuple[str, ...], list[str]] = {}
        for uri in uris:
            children.setdefault(parts_of[uri][: n + 1], []).append(uri)
        is_leaf = len(uris) == 1 or prefix in children
        total = len(open_groups) + len(closed) + len(children)
        if is_leaf or total > max_groups:
            closed[prefix if len(uris) > 1 else parts_of[uris[0]]] = uris
        else:
            open_groups |= children
    prefixes = sorted(closed)
    group_of = {uri: i for i, p in enumerate(prefixes) for uri in closed[p]}
    return _short(["/".join(p) for p in prefixes]), group_of


def _ranges(
    shards: Sequence[Shard], group_of: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """First document of every range of one source, counted over shards; its group."""
    first, group, before = [], [], 0
    for shard in shards:
        for source in shard.sources:
            first.append(before + source.first_record)
            group.append(group_of[source.uri])
        before += shard.records
    return np.array(first, np.int64), np.array(group, np.int32)


def _short(paths: Sequence[str]) -> tuple[str, ...]:
    """Paths without the folders that all of them lie in; one named twice is numbered."""
    parts = [path.rstrip("/").split("/") for path in paths]
    in_common = 0
    for names in zip(*(each[:-1] for each in parts), strict=False):
        if len(set(names)) > 1:
            break
        in_common += 1
    short = ["/".join(each[in_common:]) or "all" for each in parts]
    return tuple(
        f"{name}#{short[:i].count(name) + 1}" if name in short[:i] else name
        for i, name in enumerate(short)
    )
