# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs an attention kernel on every device's own rows and heads.

The compiler cannot split a custom kernel, so the split is written out with shard_map.
Where the mesh splits the rows themselves, each device gets whole rows of fewer heads
instead, by an all-to-all before and one after (DeepSpeed-Ulysses, arXiv:2309.14509):
then any kernel will do. Only a ring takes the rows in pieces.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec as P

from podium.errors import ShardingError
from podium.sharding.constrain import current_rules


def per_shard(
    fn: Callable[..., Array],
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKU: Array,
    segment_ids_BT: Array | None,
    *,
    is_ring: bool = False,
) -> Array:
    """fn(q, k, v, segment_ids) with batch and heads split by the current rules.

    Rows are whole in `fn`, unless it is a ring's. Raises ShardingError where the heads
    do not divide.
    """
    rules = current_rules()
    if rules is None or rules.mesh.size == 1:
        return fn(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)
    N, K = q_BTNH.shape[2], k_BTKH.shape[2]
    head_axes, length_axes = rules.mesh_axes("heads"), rules.mesh_axes("length")
    if not is_ring:
        head_axes, length_axes = (*head_axes, *length_axes), ()
    parts = math.prod(rules.mesh.shape[axis] for axis in head_axes)
    if N % parts:
        raise ShardingError(
            f"model.attention.num_heads ({N}) does not divide by the {parts} devices of "
            f"mesh axes {'*'.join(head_axes)}, over which context='all_to_all' splits "
            "the heads. Use model.attention.context='ring', or a smaller mesh.context."
        )
    if K % parts:
        # More devices than kv heads: the fewest copies that every device gets one of.
        copies = math.lcm(K, parts) // K
        copies = copies if N % (K * copies) == 0 else N // K
        k_BTKH, v_BTKU = (jnp.repeat(x, copies, axis=2) for x in (k_BTKH, v_BTKU))
    (batch,) = rules.spec("batch")
    heads = P(batch, length_axes or None, head_axes or None, None)
    return jax.shard_map(
        fn,
        mesh=rules.mesh,
        in_specs=(heads, heads, heads, P(batch, length_axes or None)),
        out_specs=heads,
        check_vma=False,  # kernels do not say over which axes their outputs vary
    )(q_BTNH, k_BTKH, v_BTKU, segment_ids_BT)
