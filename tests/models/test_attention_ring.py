# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A ring of devices against attention on one device, and against its mistakes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import MeshConfig, ShardingConfig
from podium.models import (
    attention_ring,
    attention_ring_splash,
    attention_ring_xla,
    attention_xla,
)
from podium.sharding.constrain import use_rules
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules

T, N, K, H, U = 48, 4, 2, 8, 6  # values are narrower, as in latent attention
SPLASH_T = 2 * 4 * 128  # 4 devices, two pieces each


def rules(context: int, tensor: int = 1) -> ShardingRules:
    cfg = MeshConfig(data=1, fsdp=1, context=context, tensor=tensor)
    mesh = make_mesh(cfg, jax.devices()[: context * tensor])
    return ShardingRules(ShardingConfig(), mesh)


def inputs(T=T):
    rng = np.random.default_rng(0)
    q, k, v, dout = (
        jnp.asarray(rng.standard_normal((2, T, *head)), jnp.float32)
        for head in ((N, H), (K, H), (K, U), (N, U))
    )
    ids = jnp.asarray(np.sort(rng.integers(0, 4, (2, T))), jnp.int32)
    return q, k, v, ids, dout


def on_one(q, k, v, ids, dout, **features):
    out, vjp = jax.vjp(
        lambda q, k, v: attention_xla.attention(q, k, v, ids, **features), q, k, v
    )
    return out, *vjp(dout)


def on_a_ring(
    context, tensor, q, k, v, ids, dout, *, make=attention_ring_xla.Blocks, **features
):
    order = attention_ring.ring_order(q.shape[1], context)
    blocks = make(**features)
    back = np.argsort(order)
    with use_rules(rules(context, tensor)):

        @jax.jit
        def run(q, k, v, ids, dout):
            out, vjp = jax.vjp(
                lambda q, k, v: attention_ring.attention(q, k, v, ids, blocks=blocks),
                q, k, v,
            )  # fmt: skip
            return out, *vjp(dout)

        q, k, v, dout = (x[:, order] for x in (q, k, v, dout))
        found = run(q, k, v, None if ids is None else ids[:, order], dout)
    return [x[:, back] for x in found]


interpreted = functools.partial(attention_ring_splash.Blocks, interpret=True)
FEATURES = {
    "causal": {"window": None, "cap": None},
    "window": {"window": 11, "cap": None},
    "cap": {"window": None, "cap": 2.0},
}


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize(("context", "tensor"), [(2, 1), (4, 2), (8, 1), (2, 4)])
def test_a_ring_equals_one_device_forward_and_backward(context, tensor, features):
    args = inputs()
    want = on_one(*args, **features)
    got = on_a_ring(context, tensor, *args, **features)
    for w, g in zip(want, got, strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("is_packed", "cap"), [(True, None), (False, 2.0)])
def test_a_ring_of_kernels_equals_one_device_forward_and_backward(is_packed, cap):
    q, k, v, ids, dout = inputs(SPLASH_T)
    args = (q, k, v, ids if is_packed else None, dout)
    want = on_one(*args, window=None, cap=cap)
    got = on_a_ring(4, 1, *args, make=interpreted, window=None, cap=cap)
    for w, g in zip(want, got, strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("context", [2, 4, 8])
def test_every_device_scores_the_same_number_of_pairs(context):
    order = attention_ring.ring_order(T, context)
    assert sorted(order) == list(range(T))
    per_device = (order.reshape(context, -1) + 1).sum(axis=1)
    assert len(set(per_device)) == 1


def test_a_ring_that_skips_a_hop_is_noticed(monkeypatch):
    args = inputs()
    want = on_one(*args, **FEATURES["causal"])
    monkeypatch.setattr(attention_ring._Ring, "to_next", lambda self, tree: tree)
    got = on_a_ring(4, 1, *args, **FEATURES["causal"])
    assert np.abs(np.asarray(got[0] - want[0])).max() > 0.1
