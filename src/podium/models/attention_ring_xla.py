# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Blocks of a ring in plain JAX: every platform, every feature, all scores in memory."""

import dataclasses

from jax import Array

from podium.models.attention_ring import Seen
from podium.models.attention_xla import block_backward, block_forward


@dataclasses.dataclass(frozen=True)
class Blocks:
    """See `attention_ring.Blocks`."""

    window: int | None
    cap: float | None

    def forward(
        self, q_BKGTH: Array, k_BKSH: Array, v_BKSU: Array, seen: Seen
    ) -> tuple[Array, Array]:
        """See `attention_ring.Blocks`."""
        visible_BTS = self._visible(seen)
        return block_forward(self.cap, q_BKGTH, k_BKSH, v_BKSU, visible_BTS)

    def backward(
        self,
        q_BKGTH: Array,
        k_BKSH: Array,
        v_BKSU: Array,
        seen: Seen,
        out_BKGTU: Array,
        lse_BKGT1: Array,
        dout_BKGTU: Array,
    ) -> tuple[Array, Array, Array]:
        """See `attention_ring.Blocks`."""
        rows = out_BKGTU, lse_BKGT1, dout_BKGTU
        visible_BTS = self._visible(seen)
        return block_backward(self.cap, q_BKGTH, k_BKSH, v_BKSU, visible_BTS, *rows)

    def _visible(self, seen: Seen) -> Array:
        back_TS = seen.q_at_T[:, None] - seen.k_at_S[None, :]
        seen_TS = back_TS >= 0
        if self.window is not None:
            seen_TS &= back_TS < self.window
        if seen.q_ids_BT is None or seen.k_ids_BS is None:
            return seen_TS[None]
        same_BTS = seen.q_ids_BT[:, :, None] == seen.k_ids_BS[:, None, :]
        return seen_TS[None] & same_BTS
