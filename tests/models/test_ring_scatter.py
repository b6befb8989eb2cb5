# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import itertools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import MeshConfig, ShardingConfig
from podium.config_mesh import MESH_AXES
from podium.models.ring_scatter import ring_size, scattered_gradient
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules


@pytest.mark.parametrize("ring", [2, 4, 8])
@pytest.mark.parametrize("heads", [(), (2,)])
def test_the_ring_sums_what_a_plain_product_sums(ring, heads):
    rules = ShardingRules(ShardingConfig(), make_mesh(MeshConfig(fsdp=8)))
    x = jax.random.normal(jax.random.key(0), (16, 4, 32))
    g = jax.random.normal(jax.random.key(1), (16, 4, 6, *heads))
    got = jax.jit(lambda x, g: scattered_gradient(x, g, 2, rules, ring, x.dtype))(x, g)
    want = jnp.tensordot(x, g, axes=((0, 1), (0, 1)))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)
    assert got.sharding.spec[0] == "fsdp"


def rules_on_v4(kind: str = "TPU v4", **sizes: int) -> Any:
    """Rules over a v4-256 of described devices, row by row as `make_mesh` lays them."""
    coords = itertools.product(range(8), range(4), range(4))
    devices = [
        types.SimpleNamespace(platform="tpu", device_kind=kind, coords=(x, y, z))
        for z, x, y in coords
    ]
    shape = dict.fromkeys(MESH_AXES, 1) | sizes
    mesh: Any = types.SimpleNamespace(
        shape=shape, size=128, devices=np.array(devices, object)
    )
    rules = ShardingRules.__new__(ShardingRules)  # jax.Mesh takes real devices only
    vars(rules).update(config=ShardingConfig(), mesh=mesh)
    return rules


def test_the_ring_is_the_longest_dim_of_the_torus_under_fsdp_alone():
    assert ring_size(rules_on_v4(fsdp=128), 10240) == 8


def test_chips_that_scatter_beside_the_core_need_no_ring():
    assert ring_size(rules_on_v4("TPU v5", fsdp=128), 10240) is None


@pytest.mark.parametrize("other", ["stage", "data", "expert", "context", "tensor"])
def test_beside_another_axis_there_is_no_ring(other):
    assert ring_size(rules_on_v4(fsdp=16, **{other: 8}), 10240) is None


def test_without_a_torus_there_is_no_ring():
    rules = ShardingRules(ShardingConfig(), make_mesh(MeshConfig(fsdp=8)))
    assert ring_size(rules, 10240) is None
