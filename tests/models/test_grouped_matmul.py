# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The TPU's kernels, interpreted, against one matmul for every expert."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.models.grouped_matmul import grouped_matmul, on_tpu, side_tile

pytestmark = pytest.mark.usefixtures("standard_promotion")  # the kernels need it

D, F = 160, 136  # no multiple of a tile


def plain(x_RD, w_EDF, sizes):
    owner_R = np.repeat(np.arange(len(sizes)), sizes)
    out = [
        x @ w_EDF[e] if e < len(w_EDF) else jnp.zeros(F, x.dtype)
        for x, e in zip(x_RD, owner_R, strict=True)
    ]
    return jnp.stack(out)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("implementation", [grouped_matmul, on_tpu])
@pytest.mark.parametrize(
    "sizes",
    [(7, 0, 25), (16, 16, 0), (3, 5, 2), (4, 0, 9, 19)],
    ids=["uneven", "even", "few rows", "rows of others"],
)
def test_values_and_gradients_equal_one_matmul_for_every_expert(
    implementation, sizes, transposed
):
    used, rows = sum(sizes[:3]), sum(sizes)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (rows, D))
    w = jax.random.normal(keys[1], (3, D, F))
    weight = jax.random.normal(keys[2], (used, F))  # of what is used; the rest is free
    options = {"interpret": True} if implementation is on_tpu else {}

    def ours(x, w):
        w = w.swapaxes(1, 2) if transposed else w
        out = implementation(
            x, w, jnp.asarray(sizes), transpose_w=transposed, **options
        )
        return jnp.sum(out[:used] * weight)

    def plainly(x, w):
        return jnp.sum(plain(x, w, sizes)[:used] * weight)

    want, got = (jax.grad(f, (0, 1)) for f in (plainly, ours))
    np.testing.assert_allclose(
        ours(x, w),
        plainly(x, w),
        atol=1e-2,  # a sum of thousands of products, some hundreds in size
    )
    (dx, dw), (want_dx, want_dw) = got(x, w), want(x, w)
    np.testing.assert_allclose(dx[:used], want_dx[:used], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(dw, want_dw, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("ins", "outs"), [(24, 3), (1, 24)])
def test_the_kernels_take_the_narrow_matrices_of_adapters(ins, outs):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (32, ins))
    w = jax.random.normal(keys[1], (3, ins, outs))
    weight = jax.random.normal(keys[2], (32, outs))
    sizes = jnp.array([7, 0, 25])

    def loss(implementation, x, w):
        return jnp.sum(implementation(x, w, sizes) * weight)

    got, want = (
        jax.value_and_grad(functools.partial(loss, each), (0, 1))(x, w)
        for each in (functools.partial(on_tpu, interpret=True), grouped_matmul)
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "tile"), [(64, 64), (768, 768), (1408, 768), (2048, 1024), (14336, 1024)]
)
def test_tiles_are_large_and_leave_little_empty(size, tile):
    assert side_tile(size) == tile
