# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import MeshConfig, ShardingConfig
from podium.models.ring_scatter import ring_size, scattered_gradient
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules


@pytest.mark.parametrize("ring", [2, 4, 8])
@pytest.mark.parametrize("heads", [(), (2,)])
def test_the_ring_sums_what_a_plain_product_sums(ring, heads):
    rules = ShardingRules(ShardingConfig(), make_mesh(MeshConfig(fsdp=8)))
    x = jax.random.normal(jax.random.key(0), (16, 4, 32))
    g = jax.random.normal(jax.random.key(1), (16, 4, 6, *heads))
    got = jax.jit(lambda x, g: scattered_gradient(x, g, 2, rules, ring))(x, g)
    want = jnp.tensordot(x, g, axes=((0, 1), (0, 1)))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)
    assert got.sharding.spec[0] == "fsdp"


def test_without_a_torus_there_is_no_ring():
    rules = ShardingRules(ShardingConfig(), make_mesh(MeshConfig(fsdp=8)))
    assert ring_size(rules, 10240) is None
