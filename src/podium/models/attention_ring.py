# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention over rows that several devices share: keys and values go round a ring.

Ring attention, arXiv:2310.01889: every device keeps its queries; in each of C steps it
reads one device's keys, while the next ones are on their way. Under causality a device
that holds the end of a row would have all the work, so a row is cut into 2C pieces and
device i holds pieces i and 2C-1-i (arXiv:2407.21783, section 3.3.2): then every device
scores the same number of pairs in every step, and none that causality rules out whole.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from podium.models.attention_shards import per_shard
from podium.models.attention_xla import (
    block_backward,
    block_forward,
    from_blocks,
    named,
    to_blocks,
)
from podium.sharding.constrain import current_rules


def ring_order(num_tokens: int, num_devices: int) -> np.ndarray:
    """Which token of a row stands in each slot, int [T]; slots go to devices in order."""
    pieces = np.arange(num_tokens).reshape(2 * num_devices, -1)
    pairs = [(pieces[i], pieces[-1 - i]) for i in range(num_devices)]
    return np.concatenate([piece for pair in pairs for piece in pair])


def attention(
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKU: Array,
    segment_ids_BT: Array | None,
    *,
    window: int | None,
    cap: float | None,
) -> Array:
    """As `attention_dispatch.attend`, over rows in `ring_order` split by "length"."""
    rules = current_rules()
    assert rules, "a ring needs a mesh"
    axes = rules.mesh_axes("length")
    C = rules.num_shards("length")

    def local(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT):
        if segment_ids_BT is None:
            segment_ids_BT = jnp.zeros(q_BTNH.shape[:2], jnp.int32)
        blocks = to_blocks(q_BTNH, k_BTKH, v_BTKU)
        ring = _Ring(axes, C, window, cap)
        return from_blocks(_attend(ring, *blocks, segment_ids_BT))

    return per_shard(local, q_BTNH, k_BTKH, v_BTKU, segment_ids_BT, is_ring=True)


class _Ring:
    """One ring: where a device stands in it, and what its queries may see."""

    def __init__(self, axes: Any, size: int, window: int | None, cap: float | None):
        self.axes, self.size, self.window, self.cap = axes, size, window, cap

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ring) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.axes, self.size, self.window, self.cap))

    def here(self) -> Array:
        return jax.lax.axis_index(self.axes)

    def to_next(self, tree: Any) -> Any:
        """Everything moves one device on."""
        hops = [(i, (i + 1) % self.size) for i in range(self.size)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axes, hops), tree)

    def tokens(self, device: Array, num_tokens: int) -> Array:
        """Index in the row of each of a device's tokens, int32 [T]."""
        piece = num_tokens // 2
        first = device * piece + jnp.arange(piece)
        second = (2 * self.size - 1 - device) * piece + jnp.arange(piece)
        return jnp.concatenate([first, second])

    def visible(self, q_at_T: Array, k_at_S: Array, q_ids_BT: Array, k_ids_BS: Array):
        back_TS = q_at_T[:, None] - k_at_S[None, :]
        seen_TS = back_TS >= 0
        if self.window is not None:
            seen_TS &= back_TS < self.window
        return seen_TS[None] & (q_ids_BT[:, :, None] == k_ids_BS[:, None, :])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(ring: _Ring, q_BKGTH: Array, k_BKSH: Array, v_BKSU: Array, ids_BT: Array):
    return _forward(ring, q_BKGTH, k_BKSH, v_BKSU, ids_BT)[0]


def _forward(ring: _Ring, q, k, v, ids):
    T = q.shape[3]
    here = ring.here()
    at = ring.tokens(here, T)
    own = ring.visible(at, at, ids, ids)
    merged = block_forward(ring.cap, q, k, v, own)

    def step(carry: Any, distance: Array, is_last: bool = False) -> tuple[Any, None]:
        (k, v, k_ids), merged = carry
        arriving = None if is_last else ring.to_next((k, v, k_ids))
        there = (here - distance) % ring.size
        k_at = ring.tokens(there, T)
        half = T // 2

        def earlier() -> Any:  # both of our pieces see the first of theirs, alone
            mask = ring.visible(at, k_at[:half], ids, k_ids[:, :half])
            return block_forward(ring.cap, q, k[:, :, :half], v[:, :, :half], mask)

        def later() -> Any:  # our second piece alone sees theirs, both
            mask = ring.visible(at[half:], k_at, ids[:, half:], k_ids)
            out, lse = block_forward(ring.cap, q[:, :, :, half:], k, v, mask)
            pad = [(0, 0)] * 3 + [(half, 0), (0, 0)]
            return jnp.pad(out, pad), jnp.pad(lse, pad, constant_values=-jnp.inf)

        block = jax.lax.cond(there < here, earlier, later)
        return (arriving, _merge(merged, block)), None

    carry = (ring.to_next((k, v, ids)), merged)
    carry, _ = jax.lax.scan(step, carry, jnp.arange(1, ring.size - 1))
    (_, (out, lse)), _ = step(carry, jnp.asarray(ring.size - 1), is_last=True)
    out, lse = named(out.astype(v.dtype), lse)
    return out, (q, k, v, ids, out, lse)


def _merge(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Means over two sets of keys -> the mean over both."""
    (out_a, lse_a), (out_b, lse_b) = a, b
    lse = jnp.logaddexp(lse_a, lse_b)
    return out_a * jnp.exp(lse_a - lse) + out_b * jnp.exp(lse_b - lse), lse


def _backward(ring: _Ring, saved, dout):
    q, k, v, ids, out, lse = saved
    T = q.shape[3]
    half = T // 2
    here = ring.here()
    at = ring.tokens(here, T)
    own = ring.visible(at, at, ids, ids)
    dq, dk, dv = block_backward(ring.cap, q, k, v, own, out, lse, dout)

    def step(carry: Any, distance: Array, is_last: bool = False) -> tuple[Any, None]:
        (k, v, k_ids), sums, dq = carry
        # The sums for the keys that are here now come from the device before, which
        # had these keys a step ago; like the next keys they travel while we compute.
        arriving = None if is_last else ring.to_next((k, v, k_ids))
        dk, dv = ring.to_next(sums)
        there = (here - distance) % ring.size
        k_at = ring.tokens(there, T)

        def earlier() -> Any:
            mask = ring.visible(at, k_at[:half], ids, k_ids[:, :half])
            dq, dk, dv = block_backward(
                ring.cap, q, k[:, :, :half], v[:, :, :half], mask, out, lse, dout
            )
            pad = ((0, 0), (0, 0), (0, half), (0, 0))
            return dq, jnp.pad(dk, pad), jnp.pad(dv, pad)

        def later() -> Any:
            mask = ring.visible(at[half:], k_at, ids[:, half:], k_ids)
            parts = (x[:, :, :, half:] for x in (out, lse, dout))
            dq, dk, dv = block_backward(ring.cap, q[:, :, :, half:], k, v, mask, *parts)
            return jnp.pad(dq, [(0, 0)] * 3 + [(half, 0), (0, 0)]), dk, dv

        more = jax.lax.cond(there < here, earlier, later)
        return (arriving, (dk + more[1], dv + more[2]), dq + more[0]), None

    carry = (ring.to_next((k, v, ids)), (dk, dv), dq)
    carry, _ = jax.lax.scan(step, carry, jnp.arange(1, ring.size - 1))
    (_, sums, dq), _ = step(carry, jnp.asarray(ring.size - 1), is_last=True)
    dk, dv = ring.to_next(sums)  # home
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_attend.defvjp(_forward, _backward)
