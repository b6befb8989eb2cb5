# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations of the Pallas kernels that a step calls, by their names.

A kernel is a black box to the compiler, so these come from the shapes of its operands.
Attention counts what causality leaves, T * (T + 1) / 2 pairs of a row of T: a kernel
that works in blocks does somewhat more (10/16 of the square at T=2048 in blocks of
512). A window leaves fewer pairs still, which the shapes do not show.
"""

import re

from podium.aot.hlo_text import Array, Computation, Instruction

# Matmuls over the pairs, by keys and by values: forward scores | weighted values; dq
# needs scores, dq | dp; dkv needs scores, dk | dp, dv; the fused backward pass all five.
_FUSED = (3, 2)
_SPLASH = (
    (re.compile(r"splash_m[hq]a_fwd"), (1, 1)),
    (re.compile(r"splash_m[hq]a_dq"), (2, 1)),
    (re.compile(r"splash_m[hq]a_dkv"), (2, 2)),
    (re.compile(r"flash_attention_bwd_dkv|flash_mha_bwd_dkv"), (2, 2)),
    (re.compile(r"flash_attention_bwd_dq|flash_mha_bwd_dq"), (2, 1)),
    (re.compile(r"flash_attention|flash_mha"), (1, 1)),
)
_GROUPED = re.compile(r"gmm|ragged.dot-none|ragged_dot")


def kernel_flops(
    i: Instruction, computation: Computation, used_rows: float = 1.0
) -> float | None:
    """Operations of one `tpu_custom_call`; None for a kernel with no known name.

    `used_rows` is the share of the rows of grouped matmuls that one of their matrices
    multiplies; the kernel leaves out the others, which the shapes do not show.
    """
    operands = [
        a
        for o in i.operands
        if o in computation.instructions
        for a in computation.instructions[o].arrays
    ]
    name = f"{i.name} {i.op_name}"
    for pattern, matmuls in _SPLASH:
        if pattern.search(name):
            if "dkv" in pattern.pattern and _is_fused(i):
                matmuls = _FUSED
            return _attention(operands, matmuls)
    if _GROUPED.search(name):
        flops = _grouped(operands, i.arrays[0])
        return None if flops is None else flops * used_rows
    return None


def _is_fused(i: Instruction) -> bool:
    """The fused backward kernel also returns dq: three wide results, not two."""
    return sum(a.dtype != "f32" or len(a.dims) > 3 for a in i.arrays) >= 3


def _attention(operands: list[Array], matmuls: tuple[int, int]) -> float | None:
    wide = [a for a in operands if len(a.dims) >= 3 and a.dtype not in ("s32", "s8")]
    if len(wide) < 3:
        return None
    query, key, value = wide[:3]
    *_, T, H = query.dims
    S = key.dims[-2]
    heads = query.size // (T * H)
    pairs = T * (T + 1) / 2 if T == S else T * S
    channels = matmuls[0] * H + matmuls[1] * value.dims[-1]
    return 2.0 * heads * pairs * channels


def _grouped(operands: list[Array], out: Array) -> float | None:
    """[M, K] x [E, K, N] -> [M, N], and its transpose [K, M] x [M, N] -> [E, K, N]."""
    dense = [a for a in operands if a.dtype not in ("s32", "s8") and len(a.dims) >= 2]
    if len(dense) < 2:
        return None
    lhs, rhs = dense[0], dense[1]
    if len(rhs.dims) == 3:
        return 2.0 * lhs.size * out.dims[-1]
    return 2.0 * rhs.size * out.dims[-2]
