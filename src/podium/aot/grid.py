# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Devices that exchange -> the mesh axes along which they do.

A program knows device numbers only; they are positions in the mesh, row by row.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from podium.aot.groups import Groups


@dataclasses.dataclass(frozen=True)
class Grid:
    """The mesh as a program sees it: its axes, and the slice of every position."""

    sizes: tuple[tuple[str, int], ...]  # outermost axis first
    slices: tuple[int, ...]

    @classmethod
    def of(cls, mesh: Any, slices: Sequence[int] | None = None) -> "Grid":
        """From a jax Mesh; `slices` of its devices in its order, else as they say."""
        if slices is None:
            slices = [getattr(d, "slice_index", 0) or 0 for d in mesh.devices.flat]
        return cls(tuple(mesh.shape.items()), tuple(slices))

    @functools.cache  # noqa: B019  (a grid lives as long as its report)
    def axes(self, groups: Groups) -> str:
        """'fsdp', 'data+fsdp' where groups span both, 'fsdp(8 of 128)' where they span
        a part; '' where nobody exchanges with anybody.

        For pairs: the axes along which a source and its target differ.
        """
        members = groups.members or (tuple(range(len(self.slices))),)
        dims = [size for _, size in self.sizes]
        if groups.is_pairs:
            at = np.stack(np.unravel_index(np.array(members), dims), -1)  # [n, 2, axes]
            moves = (at[:, 0] != at[:, 1]).any(0)
            return "+".join(
                name for (name, _), m in zip(self.sizes, moves, strict=True) if m
            )
        spans = [1] * len(dims)  # the most positions of a group along each axis
        for group in members:
            at = np.unravel_index(np.array(group), dims)
            spans = [
                max(s, len(set(a.tolist()))) for s, a in zip(spans, at, strict=True)
            ]
        return _named(self.sizes, spans, max(map(len, members)))

    def axes_across_slices(self) -> str:
        """The axes along which a slice ends: 'data', 'stage(2 of 4)'."""
        dims = [size for _, size in self.sizes]
        at = np.array(self.slices).reshape(dims)
        spans = [
            max(
                len(set(line))
                for line in np.moveaxis(at, i, -1).reshape(-1, n).tolist()
            )
            for i, n in enumerate(dims)
        ]
        return _named(self.sizes, spans, math.prod(spans))

    def crosses_slices(self, groups: Groups) -> bool:
        """Whether any group, or pair, has members in two slices."""
        members = groups.members or (tuple(range(len(self.slices))),)
        return any(len({self.slices[m] for m in group}) > 1 for group in members)


def _named(
    sizes: tuple[tuple[str, int], ...], spans: list[int], group_size: int
) -> str:
    names = [
        name if span == size else f"{name}({span} of {size})"
        for (name, size), span in zip(sizes, spans, strict=True)
        if span > 1
    ]
    if group_size < math.prod(spans):  # a diagonal, say
        return f"{'+'.join(names)}, {group_size} devices"
    return "+".join(names)
