# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts with adapters: the same as with the merged weights, however they are run."""

import contextlib
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from podium.config import ShardingConfig
from podium.models import moe_capacity, moe_dropless
from podium.models.adapted import Adapted
from podium.models.layers import silu
from podium.models.moe_kernel import expert_kernel
from podium.models.quantized import quantize
from podium.sharding.constrain import use_rules
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from profiling.parity import parse_meshes

B, T, D, E, F, k, r = 4, 16, 8, 4, 12, 2, 3
SHAPES = {"gate": (D, F), "up": (D, F), "down": (F, D)}
DISPATCH = {
    "dropless": moe_dropless.experts,
    "capacity": functools.partial(moe_capacity.experts, factor=E / k),  # room for all
}


@functools.cache
def rows():
    rng = np.random.default_rng(0)
    scores = rng.random((B, T, E), np.float32)
    chosen = np.argsort(-scores, axis=-1)[..., :k].astype(np.int32)
    weights = np.take_along_axis(scores, chosen, axis=-1)
    x = rng.standard_normal((B, T, D), np.float32)
    return tuple(map(jnp.asarray, (x, chosen, weights)))


@functools.cache
def adapted(kind: str) -> dict[str, Adapted]:
    """Gate, up and down, with large adapters."""
    rng = np.random.default_rng(1)
    found = {}
    for name, (ins, outs) in SHAPES.items():
        w, a, b = (
            jnp.asarray(0.4 * rng.standard_normal((E, *shape), np.float32))
            for shape in ((ins, outs), (ins, r), (r, outs))
        )
        m = jnp.asarray(1 + rng.random((E, outs), np.float32))
        found[name] = Adapted(w, a, b, m if kind == "dora" else None, 0.7)
    return found


def answer(dispatch, kernels, x, weights):
    return dispatch(x, rows()[1], weights, *kernels, act=silu)


def value_and_gradients(run, kind):
    """The result, and its gradients for rows, weights and adapters."""
    x, _, weights = rows()
    base = {name: one.base for name, one in adapted(kind).items()}
    trained = {n: dataclasses.replace(w, base=None) for n, w in adapted(kind).items()}

    def loss(trained, x, weights):
        whole = [dataclasses.replace(trained[n], base=base[n]) for n in SHAPES]
        y = run(whole, x, weights)
        return jnp.sum(jnp.sin(y)), y

    grads, y = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(trained, x, weights)
    return y, grads


@functools.cache
def of_merged_weights(kind):
    def run(whole, x, weights):
        kernels = [expert_kernel(merged(w), x.dtype) for w in whole]
        return answer(DISPATCH["dropless"], kernels, x, weights)

    def merged(w):
        changed = w.base + w.scale * jnp.einsum("EIr,ErO->EIO", w.a, w.b)
        if w.magnitude is None:
            return changed
        # Its length is a constant to the gradient.
        length = jnp.linalg.norm(jax.lax.stop_gradient(changed), axis=1)
        return changed * (w.magnitude / length)[:, None]

    return value_and_gradients(run, kind)


@pytest.mark.parametrize(
    ("name", "kind", "mesh"),
    [
        ("dropless", "lora", None),
        ("dropless", "dora", None),
        ("dropless", "lora", "expert2.tensor2"),
        ("dropless", "dora", "fsdp2.expert2.tensor2"),
        ("capacity", "dora", None),
        ("capacity", "dora", "fsdp2.expert2.tensor2"),
        ("capacity", "lora", "fsdp2.expert2.context2"),
    ],
)
def test_adapters_do_what_the_merged_weights_do(name, kind, mesh):
    def run(whole, x, weights):
        kernels = [expert_kernel(w, x.dtype) for w in whole]
        return answer(DISPATCH[name], kernels, x, weights)

    rules = contextlib.nullcontext()
    if mesh:
        (sizes,) = parse_meshes(mesh)
        devices = jax.devices()[: math.prod(sizes.sizes().values())]
        rules = use_rules(ShardingRules(ShardingConfig(), make_mesh(sizes, devices)))
    with rules:
        got = value_and_gradients(run, kind)
    want = of_merged_weights(kind)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert float(jnp.abs(b).max()) > 1e-2
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", DISPATCH)
def test_no_gradient_is_as_large_as_the_experts(name):
    def run(whole, x, weights):
        kernels = [expert_kernel(w, x.dtype) for w in whole]
        return answer(DISPATCH[name], kernels, x, weights)

    jaxpr = jax.make_jaxpr(lambda: value_and_gradients(run, "lora"))()
    made = {tuple(v.aval.shape) for v in products(jaxpr.jaxpr)}
    assert {(E, D, r), (E, r, F), (E, F, r), (E, r, D)} <= made
    assert not made & {(E, D, F), (E, F, D)}


def products(jaxpr):
    """What every matmul of a program makes, inner ones included."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "ragged_dot_general", "ragged_dot"):
            yield from eqn.outvars
        for sub in jaxprs_in_params(eqn.params):
            yield from products(sub)


def test_frozen_experts_may_be_of_eight_bits():
    w = adapted("dora")["up"]
    kept = dataclasses.replace(w, base=quantize(w.base, range(1, 2), "int8"))
    got = expert_kernel(kept, jnp.dtype(jnp.bfloat16))
    want = expert_kernel(w, jnp.dtype(jnp.bfloat16))
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(
            a.astype(jnp.float32), b.astype(jnp.float32), atol=0.02
        )
