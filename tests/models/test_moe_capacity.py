# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts with a capacity: the same result and gradients however the mesh splits them."""

import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import MeshConfig, ShardingConfig
from podium.models import moe_capacity
from podium.models.layers import silu
from podium.models.moe_kernel import ExpertKernel
from podium.models.moe_slots import Share, Table, into_slots, out_of_slots, table
from podium.models.pipeline import inside_a_stage
from podium.sharding.constrain import use_rules
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from profiling.parity import parse_meshes

B, T, D, E, F, k = 8, 16, 16, 8, 8, 2
FACTOR = 0.75  # 3 places in a row: they do not divide over two devices, and some wait


@functools.cache
def arrays():
    rng = np.random.default_rng(0)
    x, gate, up, down = (
        rng.normal(0, std, shape).astype(np.float32)
        for std, shape in zip(
            (1, 0.2, 0.2, 0.2),
            ((B, T, D), (E, D, F), (E, D, F), (E, F, D)),
            strict=True,
        )
    )
    scores = rng.random((B, T, E), np.float32)
    chosen = np.argsort(-scores, axis=-1)[..., :k].astype(np.int32)
    weights = np.take_along_axis(scores, chosen, axis=-1)
    return tuple(map(jnp.asarray, (x, chosen, weights, gate, up, down)))


def result_and_gradients(rules: ShardingRules | None, stages: int | None = None):
    x, chosen, weights, gate, up, down = arrays()

    def run(x, weights, gate, up, down):
        kernels = map(ExpertKernel, (gate, up, down))
        return moe_capacity.experts(
            x, chosen, weights, *kernels, act=silu, factor=FACTOR
        )

    def loss(*args):
        if stages:  # as a pipeline runs it: other weights on every stage
            args = [
                jnp.stack([(n + 1) * a / stages for n in range(stages)]) for a in args
            ]
        y = (jax.vmap(run, spmd_axis_name="stage") if stages else run)(*args)
        return jnp.sum(jnp.sin(y)), y

    grad = jax.jit(jax.grad(loss, (0, 1, 2, 3, 4), has_aux=True))
    with use_rules(rules) if rules else contextlib.nullcontext():
        return grad(x, weights, gate, up, down)


@functools.cache
def of_one_device():
    return result_and_gradients(None)


REPEATED = ShardingConfig(batch=("data", "fsdp"))  # rows are the same along "expert"
LAYOUTS = {
    name: (name, ShardingConfig())
    for name in (
        "fsdp8",
        "fsdp2.expert2.tensor2",
        "data2.expert4",
        "fsdp2.expert2.context2",
        "fsdp2.context2.tensor2",
    )
}
LAYOUTS |= {
    "whole rows under tensor": (
        "fsdp2.expert2.tensor2",
        ShardingConfig(act_length=("context",)),
    ),
    "repeated rows": ("fsdp2.expert2.tensor2", REPEATED),
    "repeated rows, split too": ("fsdp2.expert2.context2", REPEATED),
    "experts over two axes": (
        "fsdp2.expert4",
        ShardingConfig(experts=("fsdp", "expert"), expert_embed=()),
    ),
    "experts over the devices of a row": (
        "expert4.context2",
        ShardingConfig(experts=("expert", "context"), expert_embed=()),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_mesh_changes_neither_the_result_nor_a_gradient(layout):
    name, sharding = LAYOUTS[layout]
    (mesh,) = parse_meshes(name)
    got = result_and_gradients(ShardingRules(sharding, make_mesh(mesh)))
    assert_same(got, of_one_device())


def test_in_a_pipeline_every_stage_has_its_own_result():
    (mesh,) = parse_meshes("stage2.expert2.context2")
    rules = inside_a_stage(ShardingRules(ShardingConfig(), make_mesh(mesh)))
    assert_same(result_and_gradients(rules, 2), result_and_gradients(None, 2))


def assert_same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert float(jnp.abs(b).max()) > 0
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@functools.cache
def whole_table() -> Table:
    _, chosen, weights, *_ = arrays()
    return table(chosen, weights, E, 3, experts=Share(0, E), places=Share(0, 3))


def test_a_table_and_its_inverse_agree():
    choice_S, slot_R = map(np.asarray, whole_table())
    taken = np.flatnonzero(choice_S < B * T * k)
    np.testing.assert_array_equal(slot_R[choice_S[taken]], taken)
    assert np.sum(slot_R < len(choice_S)) == len(taken) < B * T * k


def test_there_and_back_are_each_others_transposes():
    where = whole_table()
    x_shape, y_shape = (B * T, D), (*where.choice_S.shape, D)
    rng = np.random.default_rng(2)
    x, y = (jnp.asarray(rng.standard_normal(s, np.float32)) for s in (x_shape, y_shape))
    there = jnp.vdot(into_slots(x, where, k), y)
    back = jnp.vdot(x, out_of_slots(y, where, k))
    np.testing.assert_allclose(there, back, rtol=1e-5)
    (dx,) = jax.vjp(lambda x: into_slots(x, where, k), x)[1](y)
    (dy,) = jax.vjp(lambda y: out_of_slots(y, where, k), y)[1](x)
    np.testing.assert_array_equal(dx, out_of_slots(y, where, k))
    np.testing.assert_array_equal(dy, into_slots(x, where, k))


def test_nothing_is_scattered():
    """A TPU would do that row after row."""
    rules = ShardingRules(ShardingConfig(), make_mesh(MeshConfig(fsdp=4, expert=2)))
    jaxpr = str(jax.make_jaxpr(lambda: result_and_gradients(rules))())
    assert "all_to_all" in jaxpr
    assert not re.findall(r"\bscatter(?:-\w+)?\[", jaxpr)
