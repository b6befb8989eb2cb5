# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The form of RoPE that runs on TPUs, checked against the one that runs elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config_positions import RopeConfig
from podium.models import rope


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_matmul_form_rotates_as_the_plain_one_and_so_does_its_gradient(
    monkeypatch, dtype
):
    x = jax.random.normal(jax.random.key(0), (2, 8, 3, 16), jnp.dtype(dtype))
    g = jax.random.normal(jax.random.key(1), x.shape, x.dtype)
    freq = rope.frequencies(RopeConfig(), 16, is_local=False)
    by = rope.rotation(freq, jnp.broadcast_to(jnp.arange(8), (2, 8)))
    want, want_back = jax.vjp(lambda x: rope.rotate(x, by), x)
    monkeypatch.setattr(rope, "current_platform", lambda: "tpu")
    got, got_back = jax.vjp(lambda x: rope.rotate(x, by), x)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == "float32" else {"atol": 0.02}
    for a, b in ((got, want), (got_back(g)[0], want_back(g)[0])):
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), **tolerance
        )
