# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How a family's tensors lie elsewhere and here: one table, read in both directions.

A `Row` names a tensor of the other format, the parameters of a block that it holds,
and the two shapes as an einops pattern. What the letters measure is taken from the
model's own parameters, so a table has no numbers; the letters are those of the model's
code (D width, N heads, K key and value heads, H head, F hidden, V vocabulary, E experts;
of latent attention C, Q, P, R, U, X).
"""

import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from einops import rearrange

from podium.config_model import ModelConfig
from podium.errors import CheckpointError
from podium.models.bind import abstract
from podium.models.layer_stack import layer_stacks, stack_axes


class Row(NamedTuple):
    """One tensor of theirs, "(N H) D" say, and where it goes, "D N H"."""

    theirs: str  # a name with {layer}, and {expert}, in it
    ours: str  # path in a block or of the whole; several, with spaces, if joined
    pattern: str  # "theirs -> ours", as einops.rearrange takes it
    joined: str = ""  # the letter along which several of ours lie in one of theirs
    neighbours: str = ""  # the letter whose last channels under RoPE pair neighbours

    @property
    def is_of_layers(self) -> bool:
        """Whether every layer has such a tensor."""
        return "{layer}" in self.theirs

    @property
    def letters(self) -> list[str]:
        """Of our shape, an expert's axis left out."""
        return self.pattern.partition("->")[2].split()


class Leaf(NamedTuple):
    """A parameter of ours, or one layer's or expert's share of it."""

    path: str  # "stack/block_0/attention/query"
    index: tuple[int, ...]  # into its leading axes
    shape: tuple[int, ...]  # of the share


class Tensor(NamedTuple):
    """A tensor of theirs, and which shares of our parameters it holds."""

    name: str
    shape: tuple[int, ...]
    leaves: tuple[Leaf, ...]
    row: Row
    num_rotated: int  # channels of a head under RoPE

    def to_ours(self, array: np.ndarray) -> list[np.ndarray]:
        """Their tensor, of any type -> our shares of it; views where that can be."""
        parts = rearrange(array, self.row.pattern, **_sizes(self.row, self.leaves))
        if self.row.joined:
            axis = self.row.letters.index(self.row.joined)
            lengths = [leaf.shape[axis] for leaf in self.leaves]
            parts = np.split(parts, list(itertools.accumulate(lengths))[:-1], axis)
        else:
            parts = [parts]
        return [self._paired(part, to_ours=True) for part in parts]

    def to_theirs(self, parts: list[np.ndarray]) -> np.ndarray:
        """The inverse of `to_ours`."""
        parts = [self._paired(part, to_ours=False) for part in parts]
        axis = self.row.letters.index(self.row.joined) if self.row.joined else 0
        whole = np.concatenate(parts, axis) if len(parts) > 1 else parts[0]
        there, _, here = self.row.pattern.partition("->")
        return rearrange(whole, f"{here}->{there}", **_sizes(self.row, self.leaves))

    def _paired(self, part: np.ndarray, *, to_ours: bool) -> np.ndarray:
        """With rotated channels in pairs (i, i + R/2), or back in pairs (2i, 2i + 1)."""
        if not self.row.neighbours:
            return part
        axis = self.row.letters.index(self.row.neighbours)
        order = np.arange(part.shape[axis])
        tail = order[-self.num_rotated :]
        halves = np.concatenate([tail[::2], tail[1::2]])
        order = np.concatenate([order[: -self.num_rotated], halves])
        return np.take(part, order if to_ours else np.argsort(order), axis)


def tensors(cfg: ModelConfig, rows: tuple[Row, ...]) -> list[Tensor]:
    """Every tensor of a model of this config, by the rows of its family that fit it.

    Raises CheckpointError where a parameter has no row.
    """
    shapes = _flat(abstract(cfg).shapes)
    if cfg.vocab_rows != cfg.vocab_size:  # rows that pad the vocabulary stay here
        shapes = {k: _unpadded(k, s, cfg) for k, s in shapes.items()}
    found = list(_tensors(cfg, rows, shapes))
    there = {leaf.path for tensor in found for leaf in tensor.leaves}
    if missing := sorted(shapes.keys() - there):
        raise CheckpointError(
            f"parameter {missing[0]} {list(shapes[missing[0]])} has no tensor in this "
            "family's table; export to a family that has such a part"
        )
    return found


def _tensors(cfg: ModelConfig, rows: tuple[Row, ...], shapes: dict) -> Iterator[Tensor]:
    rotated = cfg.attention.rope_dim
    for row in rows:
        if row.is_of_layers:
            continue
        paths = row.ours.split()
        if all(path in shapes for path in paths):
            leaves = tuple(Leaf(path, (), shapes[path]) for path in paths)
            yield _tensor(row, row.theirs, leaves, rotated)
    for layer, (block, index) in enumerate(places(cfg)):
        for row in rows:
            paths = [f"{block}/{path}" for path in row.ours.split()]
            if not row.is_of_layers or not all(path in shapes for path in paths):
                continue
            inner = [shapes[path][len(index) :] for path in paths]
            experts = (inner[0][0],) if "{expert}" in row.theirs else ()
            if len(inner[0]) != len(row.letters) + len(experts):
                continue  # an expert's weights have one axis more than a dense MLP's
            for expert in itertools.product(*map(range, experts)):
                leaves = tuple(
                    Leaf(path, (*index, *expert), shape[len(expert) :])
                    for path, shape in zip(paths, inner, strict=True)
                )
                name = row.theirs.format(layer=layer, expert=(*expert, 0)[0])
                yield _tensor(row, name, leaves, rotated)


def places(cfg: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Layer -> its block, "stack/block_1" say, and its index in the leading axes."""
    found = []
    for stack, (pattern, _) in layer_stacks(cfg).items():
        axes = stack_axes(cfg, stack).values()
        for index in itertools.product(*map(range, axes)):
            found += [(f"{stack}/block_{i}", index) for i in range(len(pattern))]
    return found


def _tensor(row: Row, name: str, leaves: tuple[Leaf, ...], rotated: int) -> Tensor:
    sizes = _sizes(row, leaves)
    axes = re.findall(r"\([^)]*\)|\w+", row.pattern.partition("->")[0])
    shape = tuple(
        math.prod(sizes[x] for x in re.findall(r"\w+", axis)) for axis in axes
    )
    return Tensor(name, shape, leaves, row, rotated)


def _sizes(row: Row, leaves: tuple[Leaf, ...]) -> dict[str, int]:
    """Letter -> size; of the joined one that of all together."""
    sizes = dict(zip(row.letters, leaves[0].shape, strict=True))
    if row.joined:
        axis = row.letters.index(row.joined)
        sizes[row.joined] = sum(leaf.shape[axis] for leaf in leaves)
    return sizes


def _flat(tree: dict, path: str = "") -> dict[str, tuple[int, ...]]:
    flat = {}
    for key, value in tree.items():
        name = f"{path}/{key}" if path else key
        flat |= _flat(value, name) if isinstance(value, dict) else {name: value.shape}
    return flat


def _unpadded(path: str, shape: tuple[int, ...], cfg: ModelConfig) -> tuple[int, ...]:
    axis = {"embed/table": 0, "head": 1}.get(path)
    if axis is None:
        return shape
    return (*shape[:axis], cfg.vocab_size, *shape[axis + 1 :])
