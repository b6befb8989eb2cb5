# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What the logical axes of a parameter say about it, whatever its name."""

STACKED = ("repeats", "layers", "experts")  # leading axes: many weights in one array


def inner(axes: tuple[str | None, ...]) -> list[str | None]:
    """The axes of one weight of the stack."""
    return [axis for axis in axes if axis not in STACKED]


def is_matrix(axes: tuple[str | None, ...]) -> bool:
    """Whether it is a kernel or a table, with inputs and outputs; norms' scales, biases
    and DoRA's magnitudes have one number a channel. Channels are counted by heads x
    head_dim, so a bias of queries is a vector although its array has two dimensions.
    """
    return len([axis for axis in inner(axes) if axis != "head_dim"]) > 1
