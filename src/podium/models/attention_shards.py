# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs an attention kernel on every device's own rows and heads.

The compiler cannot split a custom kernel, and no kernel here needs another device's
rows or heads; so the split is written out with shard_map.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from podium.sharding.constrain import current_rules


def per_shard(
    fn: Callable[..., Array],
    q_BTNH: Array,
    k_BTKH: Array,
    v_BTKH: Array,
    segment_ids_BT: Array | None,
) -> Array:
    """fn(q, k, v, segment_ids) with batch and heads split by the current rules."""
    rules = current_rules()
    if rules is None or rules.mesh.size == 1:
        return fn(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
    N, K = q_BTNH.shape[2], k_BTKH.shape[2]
    if K % math.prod(rules.mesh.shape[axis] for axis in rules.mesh_axes("heads")):
        # More devices than kv heads: every query head brings its own copy along.
        k_BTKH, v_BTKH = (jnp.repeat(x, N // K, axis=2) for x in (k_BTKH, v_BTKH))
    heads = rules.spec("batch", "length", "heads", "head_dim")
    return jax.shard_map(
        fn,
        mesh=rules.mesh,
        in_specs=(heads, heads, heads, rules.spec("batch", "length")),
        out_specs=heads,
        check_vma=False,  # kernels do not say over which axes their outputs vary
    )(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT)
