# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention over rows that several devices share: keys and values go round a ring.

Ring attention, arXiv:2310.01889: every device keeps its queries; in each of C steps it
reads one device's keys, while the next ones are on their way. Under causality a device
that holds the end of a row would have all the work, so a row is cut into 2C pieces and
device i holds pieces i and 2C-1-i (arXiv:2407.21783, section 3.3.2): then every device
scores the same number of pairs in every step, and none that causality rules out whole.

How a device scores one block of keys is `Blocks`: plain JAX, or a kernel.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from podium.models.attention_shards import per_shard
from podium.models.attention_xla import from_blocks, named, to_blocks
from podium.sharding.constrain import current_rules


class Seen(NamedTuple):
    """What queries see of a block of keys: the same segment, and of it the past."""

    q_at_T: Array  # index in the row of every query
    k_at_S: Array
    q_ids_BT: Array | None  # segments; None: every row is one document
    k_ids_BS: Array | None
    # The device's own keys: in its order a query sees those up to itself, two pieces or
    # one. Of another device's, the ring asks only for what lies in the past whole.
    is_own: bool


@runtime_checkable
class Blocks(Protocol):
    """Attention to one block of keys; hashable, equal where it computes the same."""

    def forward(
        self, q_BKGTH: Array, k_BKSH: Array, v_BKSU: Array, seen: Seen
    ) -> tuple[Array, Array]:
        """The mean of v over the block, float32 [B, K, G, T, U], and the logarithm of
        its normaliser, float32 [B, K, G, T, 1]: of a query that sees nothing here, a
        number far below any score, beside a finite mean."""
        ...

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
        """The block's share of dq, and its dk and dv; `out` and `lse` are of all
        blocks merged."""
        ...


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
    blocks: Blocks,
) -> Array:
    """As `attention_dispatch.attend`, over rows in `ring_order` split by "length"."""
    rules = current_rules()
    assert rules, "a ring needs a mesh"
    ring = _Ring(rules.mesh_axes("length"), rules.num_shards("length"), blocks)

    def local(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT):
        heads_in_front = to_blocks(q_BTNH, k_BTKH, v_BTKU)
        return from_blocks(_attend(ring, *heads_in_front, segment_ids_BT))

    return per_shard(local, q_BTNH, k_BTKH, v_BTKU, segment_ids_BT, is_ring=True)


@dataclasses.dataclass(frozen=True)
class _Ring:
    """One ring: where a device stands in it, and how it scores a block of keys."""

    axes: tuple[str, ...]
    size: int
    blocks: Blocks

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


def _part(ids: Array | None, tokens: slice) -> Array | None:
    return None if ids is None else ids[:, tokens]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    ring: _Ring, q_BKGTH: Array, k_BKSH: Array, v_BKSU: Array, ids_BT: Array | None
):
    return _forward(ring, q_BKGTH, k_BKSH, v_BKSU, ids_BT)[0]


def _forward(ring: _Ring, q, k, v, ids):
    T = q.shape[3]
    first, second = slice(T // 2), slice(T // 2, T)
    here = ring.here()
    at = ring.tokens(here, T)
    merged = ring.blocks.forward(q, k, v, Seen(at, at, ids, ids, is_own=True))

    def step(carry: Any, distance: Array, is_last: bool = False) -> tuple[Any, None]:
        (k, v, k_ids), merged = carry
        arriving = None if is_last else ring.to_next((k, v, k_ids))
        there = (here - distance) % ring.size
        k_at = ring.tokens(there, T)

        def earlier() -> Any:  # both of our pieces see the first of theirs, alone
            seen = Seen(at, k_at[first], ids, _part(k_ids, first), is_own=False)
            return ring.blocks.forward(q, k[:, :, first], v[:, :, first], seen)

        def later() -> Any:  # our second piece alone sees theirs, both
            seen = Seen(at[second], k_at, _part(ids, second), k_ids, is_own=False)
            out, lse = ring.blocks.forward(q[:, :, :, second], k, v, seen)
            pad = [(0, 0)] * 3 + [(T // 2, 0), (0, 0)]
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
    first, second = slice(T // 2), slice(T // 2, T)
    here = ring.here()
    at = ring.tokens(here, T)

    def block(q, k, v, seen: Seen, *rest: Array) -> tuple[Array, Array, Array]:
        # Sums over the ring are float32, whatever a kernel writes for one block.
        grads = ring.blocks.backward(q, k, v, seen, *rest)
        dq, dk, dv = (x.astype(jnp.float32) for x in grads)
        return dq, dk, dv

    own = Seen(at, at, ids, ids, is_own=True)
    dq, dk, dv = block(q, k, v, own, out, lse, dout)

    def step(carry: Any, distance: Array, is_last: bool = False) -> tuple[Any, None]:
        (k, v, k_ids), sums, dq = carry
        # The sums for the keys that are here now come from the device before, which
        # had these keys a step ago; like the next keys they travel while we compute.
        arriving = None if is_last else ring.to_next((k, v, k_ids))
        dk, dv = ring.to_next(sums)
        there = (here - distance) % ring.size
        k_at = ring.tokens(there, T)

        def earlier() -> Any:
            seen = Seen(at, k_at[first], ids, _part(k_ids, first), is_own=False)
            theirs = k[:, :, first], v[:, :, first]
            dq, dk, dv = block(q, *theirs, seen, out, lse, dout)
            pad = ((0, 0), (0, 0), (0, T // 2), (0, 0))
            return dq, jnp.pad(dk, pad), jnp.pad(dv, pad)

        def later() -> Any:
            seen = Seen(at[second], k_at, _part(ids, second), k_ids, is_own=False)
            parts = (x[:, :, :, second] for x in (out, lse, dout))
            dq, dk, dv = block(q[:, :, :, second], k, v, seen, *parts)
            return jnp.pad(dq, [(0, 0)] * 3 + [(T // 2, 0), (0, 0)]), dk, dv

        more = jax.lax.cond(there < here, earlier, later)
        return (arriving, (dk + more[1], dv + more[2]), dq + more[0]), None

    carry = (ring.to_next((k, v, ids)), (dk, dv), dq)
    carry, _ = jax.lax.scan(step, carry, jnp.arange(1, ring.size - 1))
    (_, sums, dq), _ = step(carry, jnp.asarray(ring.size - 1), is_last=True)
    dk, dv = ring.to_next(sums)  # home
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_attend.defvjp(_forward, _backward)
