# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations of matmuls, as XLA:TPU writes them: as convolutions.

A multiply-add is 2 operations. A dot of more than two dims becomes a convolution whose
window slides over a contracted or a batch dim, often into padding; only the positions
where both operands have an element are counted, as XLA's own cost analysis does.
"""

import functools
import math
import re

from podium.aot.hlo_text import Array, Computation, Instruction

_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")


def matmul_flops(instruction: Instruction, computation: Computation) -> float:
    """Operations of one `convolution` or `dot`; other instructions have none."""
    if instruction.opcode not in ("convolution", "dot"):
        return 0.0
    lhs, rhs = (computation.instructions[o].arrays[0] for o in instruction.operands[:2])
    out = instruction.arrays[0]
    if instruction.opcode == "dot":
        contracted = _dims(instruction.attributes, "lhs_contracting_dims")
        return 2.0 * out.size * math.prod(lhs.dims[d] for d in contracted)
    return _convolution(instruction.attributes, lhs, rhs, out)


def _convolution(attributes: str, lhs: Array, rhs: Array, out: Array) -> float:
    labels = _LABELS.search(attributes)
    assert labels, f"a convolution without dim_labels: {attributes[:100]}"
    lhs_labels, rhs_labels, out_labels = labels.groups()
    window = _window(attributes)
    batch = out.dims[out_labels.index("b")] / _number(attributes, "batch_group_count")
    features = out.dims[out_labels.index("f")]
    contracted = rhs.dims[rhs_labels.index("i")]  # of one feature group
    spatial = sorted(c for c in out_labels if c.isdigit())
    pairs = 1
    for i, c in enumerate(spatial):
        pairs *= _pairs(
            lhs.dims[lhs_labels.index(c)],
            rhs.dims[rhs_labels.index(c)],
            out.dims[out_labels.index(c)],
            window.get("stride", (1,) * len(spatial))[i],
            window.get("pad", ((0, 0),) * len(spatial))[i][0],
            window.get("lhs_dilate", (1,) * len(spatial))[i],
            window.get("rhs_dilate", (1,) * len(spatial))[i],
        )
    return 2.0 * batch * features * contracted * pairs


@functools.cache
def _pairs(
    size: int, kernel: int, out: int, stride: int, pad: int, dilate: int, spread: int
) -> int:
    """(output, kernel) positions of one spatial dim that meet an input element."""
    if out <= kernel and dilate == 1:
        return sum(_hits(size, kernel, spread, o * stride - pad, 1) for o in range(out))
    total = 0
    for k in range(kernel):
        if dilate == 1:
            total += _hits(size, out, stride, k * spread - pad, 1)
        else:
            total += _hits(size, out, stride, k * spread - pad, dilate)
    return total


def _hits(size: int, count: int, step: int, start: int, dilate: int) -> int:
    """How many of start + step * [0, count) fall on one of `size` elements."""
    if dilate == 1:
        first = max(0, -(start // step)) if start < 0 else 0
        last = min(count, -((start - size) // step))
        return max(0, last - first)
    at = range(start, start + step * count, step)
    return sum(0 <= x <= (size - 1) * dilate and x % dilate == 0 for x in at)


def _window(attributes: str) -> dict:
    found = _WINDOW.search(attributes)
    window = {}
    for item in (found[1] if found else "").split():
        key, _, value = item.partition("=")
        if key == "pad":
            window[key] = [tuple(map(int, p.split("_"))) for p in value.split("x")]
        elif key in ("stride", "lhs_dilate", "rhs_dilate", "size"):
            window[key] = [int(v) for v in value.split("x")]
    return window


def _dims(attributes: str, key: str) -> list[int]:
    found = re.search(key + r"=\{([\d,]*)\}", attributes)
    return [int(d) for d in found[1].split(",") if d] if found else []


def _number(attributes: str, key: str) -> int:
    found = re.search(key + r"=(\d+)", attributes)
    return int(found[1]) if found else 1
