# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which devices a collective joins: the three spellings of replica_groups, and pairs.

Numbers are positions in the program's device order, which is the mesh's own order.
"""

import dataclasses
import math
import re

import numpy as np

_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:\s*,?\s*device_ids=\(?(\[[\d,]+\](?:T\([\d,]+\))?)\)?)?\s*\{([^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


@dataclasses.dataclass(frozen=True)
class Groups:
    """Groups of devices that exchange among themselves, or (source, target) pairs."""

    members: tuple[tuple[int, ...], ...]  # empty: all devices form one group
    is_pairs: bool = False

    @property
    def size(self) -> int:
        """Devices in a group; 0 stands for all of them."""
        return len(self.members[0]) if self.members else 0


def parse_groups(attributes: str) -> Groups:
    """Reads an instruction's attributes; none at all means one group of everybody."""
    if found := _PAIRS.search(attributes):
        return Groups(_listed(found[1]), is_pairs=True)
    if found := _IOTA.search(attributes):
        shape, dims = _ints(found[1]), _ints(found[2])
        order = _ints(found[3]) if found[3] else range(len(dims))
        ids = np.arange(math.prod(dims)).reshape(dims).transpose(order)
        return Groups(_rows(ids.reshape(shape[0], -1)))
    if found := _MESH.search(attributes):
        return Groups(_mesh(found[1], found[2], found[3]))
    if found := _LISTED.search(attributes):
        return Groups(_listed(found[1]))
    return Groups(())


def _mesh(axes_text: str, ids_text: str | None, chosen_text: str) -> tuple:
    """mesh['a'=16,'b'=8] {'a'}: the groups along the chosen axes.

    A chosen axis may be part of one: 'a':(4)2 is the factor 2 behind a factor 4.
    """
    sizes = {n: int(s) for n, s in re.findall(r"'([^']+)'=(\d+)", axes_text)}
    ids = np.arange(math.prod(sizes.values()))
    if ids_text and (
        listed := re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\)?)?", ids_text)
    ):
        dims = _ints(listed[1])
        order = _ints(listed[2]) if listed[2] else range(len(dims))
        ids = ids.reshape(dims).transpose(order).reshape(-1)
    chosen = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen_text)
    dims, group_dims = [], []
    for name, size in sizes.items():
        parts = [(int(p), int(s)) for n, p, s in chosen if n == name and p]
        whole = any(n == name and not p for n, p, _ in chosen)
        if not parts:
            group_dims += [len(dims)] if whole else []
            dims.append(size)
            continue
        done = 1
        for before, part in sorted(parts):
            dims.append(before // done)
            group_dims.append(len(dims))
            dims.append(part)
            done = before * part
        dims.append(size // done)
    rest = [d for d in range(len(dims)) if d not in group_dims]
    width = math.prod(dims[d] for d in group_dims)
    return _rows(ids.reshape(dims).transpose(rest + group_dims).reshape(-1, width))


def _rows(ids: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(x) for x in row) for row in ids)


def _listed(text: str) -> tuple[tuple[int, ...], ...]:
    rows = re.findall(r"\{([\d,]*)\}", text)
    return tuple(tuple(_ints(r)) for r in rows if r)


def _ints(text: str) -> list[int]:
    return [int(x) for x in text.split(",") if x]
