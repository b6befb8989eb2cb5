# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What is computed in another way on GPUs comes out the same; here it runs on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from podium.config_model import (
    LayerNormConfig,
    MlpConfig,
    ModelConfig,
    RMSNormConfig,
)
from podium.models import attention_cudnn, layers
from podium.models.layer_stack import remat_policy

CFG = ModelConfig(embed_dim=32)
PARTS = {
    "layernorm": lambda rngs: layers.LayerNorm(LayerNormConfig(), 32, rngs=rngs),
    "layernorm_no_bias": lambda rngs: layers.LayerNorm(
        LayerNormConfig(use_bias=False), 32, rngs=rngs
    ),
    "rmsnorm": lambda rngs: layers.RMSNorm(
        RMSNormConfig(scale_offset=1.0), 32, rngs=rngs
    ),
    "gelu": lambda rngs: layers.GeluMlp(
        CFG, MlpConfig(kind="gelu", dim=48, use_bias=True), rngs=rngs
    ),
    "swiglu": lambda rngs: layers.GatedMlp(CFG, MlpConfig(dim=48), rngs=rngs),
}


def gradients(monkeypatch, platform, name, dtype="float32"):
    """The output's sum under fixed weights, and its gradients."""
    monkeypatch.setattr(layers, "current_platform", lambda: platform)
    graphdef, state = nnx.split(PARTS[name](nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        w + 0.3 * jax.random.normal(key, w.shape)
        for w, key in zip(leaves, keys, strict=True)
    ]
    x = 3 * jax.random.normal(jax.random.key(2), (2, 5, 32), dtype) + 1
    weights = jax.random.normal(jax.random.key(3), x.shape)

    @jax.jit
    @jax.value_and_grad
    def objective(inputs):
        y = nnx.merge(graphdef, tree.unflatten(inputs[0]))(inputs[1])
        return jnp.sum(y.astype(jnp.float32) * weights)

    return objective((moved, x))


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_the_same_gradient_on_a_gpu(name, monkeypatch):
    want = gradients(monkeypatch, "cpu", name)
    got = gradients(monkeypatch, "gpu", name)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", PARTS)
def test_no_float32_waits_for_the_backward_pass_of_bfloat16(name, monkeypatch):
    monkeypatch.setattr(layers, "current_platform", lambda: "gpu")
    part = PARTS[name](nnx.Rngs(0))
    x = jnp.ones((4, 8, 32), jnp.bfloat16)
    _, vjp = jax.vjp(lambda x: part(x), x)
    kept = [leaf for leaf in jax.tree.leaves(vjp) if hasattr(leaf, "dtype")]
    rows = [leaf for leaf in kept if leaf.shape[:2] == (4, 8) and leaf.shape[2] > 1]
    assert {str(leaf.dtype) for leaf in rows} == {"bfloat16"}


def kernels_run(remat):
    """How often the forward kernel stands in a step's program."""

    def attend(q):
        out = attention_cudnn.attention(q, q, q, None, window=None, cap=None)
        return jnp.sum(jnp.tanh(out.astype(jnp.float32)))

    q = jax.ShapeDtypeStruct((1, 128, 2, 64), jnp.bfloat16)
    again = jax.checkpoint(attend, policy=remat_policy(remat))
    return str(jax.make_jaxpr(jax.grad(again))(q)).count(
        "dot_product_attention_fwd_wrapper["
    )


def test_kept_attention_output_spares_the_kernel(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91900)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda _: False)
    assert kernels_run("full") == 2
    assert kernels_run("attention_out") == 1
    assert kernels_run("attention_out:host") == 1
