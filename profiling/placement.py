# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where each mesh axis lies on the torus, in closed form: no device, no jax.

Follows `jax.experimental.mesh_utils`, which `podium.sharding.mesh` uses: the innermost
axes choose first; an axis takes whole torus dims whose product is its size, as many as
it can; where none fit, it takes parts of dims and shares their links with other axes.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping

from podium.aot.chips import Slice


@dataclasses.dataclass(frozen=True)
class Placement:
    """Chips that each mesh axis spans along each torus dim of one slice."""

    where: Slice
    reach: Mapping[str, tuple[int, ...]]

    def bytes_per_sec(self, axes: tuple[str, ...]) -> float:
        """What a device sends and receives in an all-gather over these axes; inf for 1.

        Two links a dim where it closes to a ring, else one; an axis that spans a part
        of a ring shares the ring's links with the other parts, as in
        `network.Network`.
        """
        total = 0.0
        for dim, length in enumerate(self.where.shape):
            count = math.prod(self.reach[a][dim] for a in axes if a in self.reach)
            if count == 1:
                continue
            is_ring = self.where.wrap[dim] and length > 2
            total += (2 * count / length if is_ring else 1) * (
                self.where.chip.link_bytes_per_sec
            )
        return total or math.inf

    def longest(self, axis: str) -> int:
        """The most chips that an axis spans along one dim: the length of its ring."""
        return max(self.reach[axis], default=1)


def place(sizes: Mapping[str, int], where: Slice) -> Placement:
    """`sizes`: axis -> devices along it inside one slice, outermost first."""
    free, reach = list(where.shape), {}
    cores = where.chip.devices_per_chip  # the innermost axis holds both of a chip
    for axis, size in reversed(list(sizes.items())):
        inside = math.gcd(size, cores)
        cores //= inside
        taken = _whole_dims(free, size // inside)
        taken = taken or _parts_of_dims(free, size // inside)
        reach[axis] = taken
        free = [n // t for n, t in zip(free, taken, strict=True)]
    return Placement(where, reach)


def _whole_dims(free: list[int], size: int) -> tuple[int, ...] | None:
    if size == 1:
        return (1,) * len(free)
    for number in range(len(free), 0, -1):
        for dims in itertools.combinations(range(len(free)), number):
            if 1 in (free[d] for d in dims):
                continue
            if math.prod(free[d] for d in dims) == size:
                return tuple(n if d in dims else 1 for d, n in enumerate(free))
    return None


def _parts_of_dims(free: list[int], size: int) -> tuple[int, ...]:
    """A part of one dim, the shortest that has room; else factor by factor."""
    taken, left = [1] * len(free), list(free)
    while size > 1:
        part = next(
            p
            for p in range(size, 1, -1)
            if size % p == 0 and any(n % p == 0 for n in left)
        )
        dim = min(
            (d for d, n in enumerate(left) if n % part == 0), key=left.__getitem__
        )
        taken[dim] *= part
        left[dim] //= part
        size //= part
    return tuple(taken)
