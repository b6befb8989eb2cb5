# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np

from podium.models import linear


def test_the_cast_that_stays_in_a_tpus_loop_changes_no_value_and_no_gradient(
    monkeypatch,
):
    x = jax.random.normal(jax.random.key(0), (2, 8, 16), jnp.bfloat16)
    w = jax.random.normal(jax.random.key(1), (16, 3, 4))
    monkeypatch.setattr(linear, "accumulate_in", lambda dtype: dtype)

    def run(platform: str) -> list:
        monkeypatch.setattr(linear, "current_platform", lambda: platform)
        text = str(jax.make_jaxpr(lambda w: linear.linear(x, w))(w))
        assert ("bitcast" in text) == (platform == "tpu")
        out, back = jax.vjp(lambda w: linear.linear(x, w), w)
        (grad,) = back(jnp.ones_like(out))
        assert grad.dtype == jnp.float32
        return [out.astype(jnp.float32), grad]

    for got, want in zip(run("tpu"), run("gpu"), strict=True):
        np.testing.assert_array_equal(got, want)
