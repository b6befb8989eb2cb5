# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Blocks of a ring by splash: no scores in memory, whatever the row's length.

A ring's backward pass needs each block's gradients under the normalisers of the whole
row. The kernel's public gradient takes those of the block alone, and no function of its
results makes up for it: softmax of a block has gradients that sum to zero over the
block, that of a row has not. So `_gradients` calls a private function of JAX, here and
nowhere else; a test says so if a release changes it. tokamax has a public ring of
kernels, but for rows in their own order, where the last device has all the work.
"""

import dataclasses
from typing import Any

import jax
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

from podium.models.attention_ring import Seen
from podium.models.attention_splash import make_kernel


@dataclasses.dataclass(frozen=True)
class Blocks:
    """See `attention_ring.Blocks`. Means and gradients of a block have q's type; pieces
    of a row must be multiples of `attention_splash.LANES` tokens.

    A query that sees no key of a block has the kernel's mask value for a normaliser,
    -2.4e38: finite, and its weight beside any other is 0.
    """

    window: None  # two pieces of a row are no band in their device's order
    cap: float | None
    interpret: bool = False  # anywhere, slowly

    def forward(
        self, q_BKGTH: Array, k_BKSH: Array, v_BKSU: Array, seen: Seen
    ) -> tuple[Array, Array]:
        """See `attention_ring.Blocks`."""
        kernel: Any = self._kernel(q_BKGTH, k_BKSH, is_own=seen.is_own)
        run = jax.vmap(kernel)
        out_BNTU, (lse_BNT,) = run(_flat(q_BKGTH), k_BKSH, v_BKSU, _segments(seen))
        heads = q_BKGTH.shape[:4]
        return (
            out_BNTU.reshape(*heads, -1).astype("float32"),
            lse_BNT.reshape(*heads, 1),
        )

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
        kernel = self._kernel(q_BKGTH, k_BKSH, is_own=seen.is_own)
        flat = map(_flat, (out_BKGTU, lse_BKGT1[..., 0], dout_BKGTU))
        run = jax.vmap(lambda *row: _gradients(kernel, *row))
        dq, dk, dv = run(_flat(q_BKGTH), k_BKSH, v_BKSU, _segments(seen), *flat)
        return dq.reshape(q_BKGTH.shape), dk, dv

    def _kernel(
        self, q_BKGTH: Array, k_BKSH: Array, *, is_own: bool
    ) -> splash.SplashAttentionKernel:
        _, K, G, T, _ = q_BKGTH.shape
        mask = masks.CausalMask if is_own else masks.FullMask
        return make_kernel(
            mask((T, k_BKSH.shape[2])),
            num_heads=K * G,
            cap=self.cap,
            save_residuals=True,
            interpret=self.interpret,
        )


def _gradients(
    kernel: splash.SplashAttentionKernel,
    q_NTH: Array,
    k_KSH: Array,
    v_KSU: Array,
    ids: splash.SegmentIds | None,
    out_NTU: Array,
    lse_NT: Array,
    dout_NTU: Array,
) -> tuple[Array, Array, Array]:
    """dq, dk, dv of a block, given the output and the normalisers of the whole row."""
    sinks = None
    tables = kernel.dq_mask_info, kernel.dkv_mask_info
    residuals = (q_NTH, k_KSH, v_KSU, ids, sinks, out_NTU, lse_NT, *tables)
    found: Any = splash._splash_attention_bwd(
        **kernel.kwargs, res=residuals, do=dout_NTU
    )
    _, _, _, dq, dk, dv, *_ = found  # the first three are for the mask's tables
    return dq, dk, dv


def _segments(seen: Seen) -> splash.SegmentIds | None:
    if seen.q_ids_BT is None or seen.k_ids_BS is None:
        return None
    return splash.SegmentIds(q=seen.q_ids_BT, kv=seen.k_ids_BS)


def _flat(x_BKGT: Array) -> Array:
    """[B, K, G, ...] -> [B, N, ...]: query head n reads kv head n // G."""
    B, K, G, *rest = x_BKGT.shape
    return x_BKGT.reshape(B, K * G, *rest)
