# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How long a collective takes on a torus of chips, and which links it fills.

Bandwidth-bound times, no latency: bytes over the links of every torus dim along which
the group's members lie (two links a dim where it closes to a ring, else one), and over
the data-centre network for groups that cross slices. After "How to Scale Your Model",
jax-ml.github.io/scaling-book/sharding.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from podium.aot.chips import Slice
from podium.aot.hlo import Collective

DCN = "dcn"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A collective's time on its slowest part, and the links that it fills meanwhile."""

    secs: float
    links: frozenset  # of (dim, direction), or DCN
    crosses_slices: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """Where the program's devices sit: position in the mesh -> (slice, coordinates)."""

    where: Slice
    places: tuple[tuple[int, tuple[int, ...]], ...]

    @classmethod
    def of(cls, where: Slice, devices: Sequence[Any]) -> "Network":
        """From a mesh's devices, in the mesh's own order."""
        dims = where.chip.torus_dims
        return cls(
            where,
            tuple(
                (getattr(d, "slice_index", 0) or 0, tuple(d.coords)[:dims])
                for d in devices
            ),
        )

    @functools.cache  # noqa: B019  (a network lives as long as its plan)
    def transfer(self, c: Collective) -> Transfer:
        """Time of one execution."""
        if c.over_dcn:
            slices = self.where.num_slices
            passes = 2 if c.kind == "all-reduce" else 1
            moved = passes * c.num_bytes * (slices - 1) / slices
            secs = moved / self.where.chip.dcn_bytes_per_sec
            return Transfer(secs, frozenset({DCN}), crosses_slices=True)
        if c.groups.is_pairs:
            return self._permute(c)
        groups = c.groups.members or (tuple(range(len(self.places))),)
        return self._group(c, groups[0])

    def _group(self, c: Collective, group: tuple[int, ...]) -> Transfer:
        size = len(group)
        if size == 1:
            return Transfer(0.0, frozenset())
        by_slice = collections.defaultdict(list)
        for member in group:
            slice_index, coords = self.places[member]
            by_slice[slice_index].append(coords)
        inside = next(iter(by_slice.values()))
        slices = len(by_slice)
        passes = 2 if c.kind == "all-reduce" else 1
        secs, links = self._ici(c, passes, inside, size)
        if slices > 1:
            share = c.num_bytes / len(inside) * (slices - 1) / slices
            dcn = passes * share / self.where.chip.dcn_bytes_per_sec
            return Transfer(max(secs, dcn), links | {DCN}, crosses_slices=True)
        return Transfer(secs, links)

    def _ici(
        self, c: Collective, passes: int, members: list[tuple[int, ...]], size: int
    ) -> tuple[float, frozenset]:
        link = self.where.chip.link_bytes_per_sec
        bandwidth, slowest, links = 0.0, 0.0, set()
        for dim, length in enumerate(self.where.shape):
            count = len({m[dim] for m in members})
            if count == 1:
                continue
            is_ring = self.where.wrap[dim] and length > 2
            # Members that lie apart share the links between with the other groups.
            share = count / length if is_ring else 1.0
            bandwidth += link * share * (2 if is_ring else 1)
            hops = length / 4 if is_ring else length / 3
            slowest = max(slowest, c.num_bytes * hops / (2 * link))
            links |= {(dim, 1), (dim, -1)}
        if not bandwidth:  # the members are cores of one chip
            return 0.0, frozenset()
        if c.rings is not None:
            bandwidth = min(bandwidth, link * c.rings)
        if c.kind in ("all-to-all", "ragged-all-to-all"):
            return slowest * (size - 1) / size, frozenset(links)
        return passes * c.num_bytes * (size - 1) / size / bandwidth, frozenset(links)

    def _permute(self, c: Collective) -> Transfer:
        """Routes every pair dim by dim; the fullest link decides."""
        load: collections.Counter = collections.Counter()
        crosses = False
        for source, target in c.groups.members:
            (here, a), (there, b) = self.places[source], self.places[target]
            if here != there:
                crosses = True
                continue
            at = list(a)
            for dim, length in enumerate(self.where.shape):
                step, hops = self._way(at[dim], b[dim], length, self.where.wrap[dim])
                for _ in range(hops):
                    load[dim, step, tuple(at)] += 1
                    at[dim] = (at[dim] + step) % length
        chip = self.where.chip
        secs = max(load.values(), default=0) * c.num_bytes / chip.link_bytes_per_sec
        links = frozenset((dim, step) for dim, step, _ in load)
        if crosses:
            secs = max(secs, c.num_bytes / chip.dcn_bytes_per_sec)
            links |= {DCN}
        return Transfer(secs, links, crosses)

    @staticmethod
    def _way(start: int, end: int, length: int, wraps: bool) -> tuple[int, int]:
        forward = (end - start) % length
        if not wraps:
            return int(math.copysign(1, end - start)), abs(end - start)
        return (1, forward) if forward <= length - forward else (-1, length - forward)
