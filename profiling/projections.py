# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The projections of a layer in closed form: operations, bytes of gathers and, under
`model.quantization`, at which rate they multiply and what rounding reads and writes.

Where the chip multiplies eight-bit numbers no faster than bfloat16, only rounding is left.
"""

import dataclasses
from functools import cached_property

from podium.aot.chips import Chip
from podium.config_quantization import Part
from profiling.shares import Shares

SPEEDUP = 2.0  # of a matmul fusion, where chips.py has it `twice_as_fast`
# Of a rounded number: as much traffic of HBM as would take its time. It is read for the
# maximum, read again, written as one byte, 5 bytes; but the vector units take longer.
# Fitted to compiled steps, see benchmarks/quantization.py.
ROUNDING_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Projection:
    """Weights that multiply the same numbers, on one device and in one micro-batch."""

    s: Shares
    part: Part
    into: float  # width that comes in
    out: float  # widths that go out, together
    again: float  # share of the forward pass that the backward pass computes again

    @property
    def params(self) -> float:
        """Weights, gathered."""
        return self.into * self.out

    @cached_property
    def _eight_bit(self) -> tuple[bool, bool, bool]:
        """Whether the result, the inputs' and the weights' gradients are made so."""
        from podium.models.quantized import dots  # imports jax

        forward, inputs, weights = dots(self.s.cfg.model.quantization, self.part)
        return forward is not None, inputs is not None, weights is not None

    def flops(self, chip: Chip) -> float:
        """Of all passes, eight-bit ones as the bfloat16 ones that take as long."""
        q = self.s.cfg.model.quantization
        fast = SPEEDUP if q is not None and q.kind in chip.twice_as_fast else 1.0
        times = zip((1 + self.again, 1.0, 1.0), self._eight_bit, strict=True)
        passes = sum(n / (fast if is_eight_bit else 1.0) for n, is_eight_bit in times)
        return 2 * self.s.tokens * self.params * passes

    def rounding_bytes(self) -> float:
        """HBM traffic of rounding activations and gradients. Weights are rounded in
        their shards, before they are gathered."""
        forward, inputs, weights = self._eight_bit
        widths = forward * (1 + self.again) * self.into + inputs * self.out
        widths += weights * (self.into + self.out)  # along rows: scales of their own
        return ROUNDING_BYTES * self.s.tokens * widths

    def gathered_bytes(self, number_bytes: int) -> float:
        """Of all gathers of the weights: of numbers of `number_bytes` one forward, one
        backward; of eight-bit ones one a matmul, as each contraction has its scales."""
        forward, inputs, _ = self._eight_bit
        if not forward:
            return 2 * number_bytes * self.params
        return (1 + self.again + (1 if inputs else number_bytes)) * self.params
