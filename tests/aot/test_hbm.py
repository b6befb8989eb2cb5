# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest

from podium.aot.hbm import stacked_bytes
from podium.aot.hlo_text import parse

LAYERS, ROWS, WIDTH = 6, 32, 64


def loss(weights, x):
    @jax.checkpoint  # keeps the layers' inputs alone
    def layer(x, w):
        return jnp.tanh(x @ w), None

    return jnp.sum(jax.lax.scan(layer, x, weights)[0])


def accumulated(weights, parts):
    def add(total, x):
        return total + jax.grad(loss)(weights, x), None

    return jax.lax.scan(add, jnp.zeros_like(weights), parts)[0]


@pytest.mark.parametrize(
    ("fn", "rows"),
    [(jax.grad(loss), (ROWS,)), (accumulated, (4, ROWS))],
    ids=["one batch", "micro-batches"],
)
def test_what_a_loop_over_layers_stacks_up_is_found_at_any_depth(fn, rows):
    shapes = ((LAYERS, WIDTH, WIDTH), (*rows, WIDTH))
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    hlo = jax.jit(fn).lower(*args).compile().as_text()
    assert stacked_bytes(parse(hlo)) == LAYERS * ROWS * WIDTH * 4
