# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which token waits in which slot of which expert, and the way there and back.

The way there and the way back are each other's gradients, both as gathers: the scatters
that jax would make of them run row after row on a TPU.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Share(NamedTuple):
    """A run of what devices divide between them."""

    first: Array | int
    size: int


class Table(NamedTuple):
    """Choices -> slots, and back.

    A choice is (row, token, one of k), a slot (expert, row, place), counted in this
    order; a number past the last one is none.
    """

    choice_S: Array  # int32: who waits in each slot
    slot_R: Array  # int32: where each choice waits


def table(
    experts_BTk: Array,
    weights_BTk: Array,
    num_experts: int,
    capacity: int,
    *,
    experts: Share,
    places: Share,
) -> Table:
    """In every row the `capacity` choices that score an expert highest have a place.

    Of equal ones the earlier goes first. The table is of the experts and the places in
    both shares; places past the capacity stay empty.
    """
    B = experts_BTk.shape[0]
    expert_BR = experts_BTk.reshape(B, -1)  # R = T * k
    weight_BR = jax.lax.stop_gradient(weights_BTk).reshape(B, -1)
    R, (first_e, E), (first_c, C) = expert_BR.shape[1], experts, places
    rows_B1 = jnp.arange(B)[:, None]
    index_BR = jnp.broadcast_to(jnp.arange(R), (B, R))
    *_, queued_BR = jax.lax.sort(
        (expert_BR, -weight_BR, index_BR), dimension=1, num_keys=2, is_stable=True
    )
    is_of_BRE = expert_BR[..., None] == jnp.arange(num_experts)[None, None]
    count_BE = jnp.sum(is_of_BRE, axis=1, dtype=jnp.int32)
    start_BE = jnp.cumsum(count_BE, axis=1) - count_BE

    start_Be, count_Be = (
        jax.lax.dynamic_slice_in_dim(t, first_e, E, axis=1)
        for t in (start_BE, count_BE)
    )
    place_11C = (first_c + jnp.arange(C))[None, None]
    is_taken_BeC = place_11C < jnp.minimum(count_Be, capacity)[..., None]
    at_BeC = jnp.minimum(start_Be[..., None] + place_11C, R - 1)
    at_BS = at_BeC.reshape(B, -1)
    choice_BS = jnp.take_along_axis(queued_BR, at_BS, axis=1) + rows_B1 * R
    choice_BeC = jnp.where(is_taken_BeC, choice_BS.reshape(B, E, C), B * R)

    rank_BR = jnp.argsort(queued_BR, axis=1)
    place_BR = rank_BR - jnp.take_along_axis(start_BE, expert_BR, axis=1)
    e_BR, c_BR = expert_BR - first_e, place_BR - first_c
    is_in_BR = (e_BR >= 0) & (e_BR < E) & (c_BR >= 0) & (c_BR < C)
    is_in_BR &= place_BR < capacity
    slot_BR = jnp.where(is_in_BR, (e_BR * B + rows_B1) * C + c_BR, E * B * C)
    return Table(choice_BeC.swapaxes(0, 1).reshape(-1), slot_BR.reshape(-1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def into_slots(x: Array, where: Table, k: int) -> Array:
    """Rows of x, one for every k choices, in their slots; zeros in the empty ones."""
    return x.at[where.choice_S // k].get(mode="fill", fill_value=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def out_of_slots(y: Array, where: Table, k: int) -> Array:
    """The transpose of `into_slots`: sums, in float32, over the slots of k choices."""
    slot_nk = where.slot_R.reshape(-1, k)
    # One gather of all, [n, k, D], would pad k to the 8 rows of a register.
    parts = (
        y.at[slot_nk[:, j]].get(mode="fill", fill_value=0).astype(jnp.float32)
        for j in range(k)
    )
    return functools.reduce(jnp.add, parts).astype(y.dtype)


into_slots.defvjp(
    lambda x, where, k: (into_slots(x, where, k), where),
    lambda k, where, g: (out_of_slots(g, where, k), None),
)
out_of_slots.defvjp(
    lambda y, where, k: (out_of_slots(y, where, k), where),
    lambda k, where, g: (into_slots(g, where, k), None),
)
