# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every implementation against one reference, forward and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from podium.config import MeshConfig, ShardingConfig
from podium.models import (
    attention_cudnn,
    attention_dispatch,
    attention_splash,
    attention_xla,
)
from podium.sharding.constrain import use_rules
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from tests.models.attention_matrix import CASES, Case, check, inputs

splash = functools.partial(attention_splash.attention, interpret=True)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_xla_equals_the_reference(case):
    check(attention_xla.attention, case)


def test_xla_in_bfloat16_is_close_to_the_reference():
    check(attention_xla.attention, CASES[-1], dtype="bfloat16", tolerance=2e-2)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_splash_equals_the_reference(case):
    check(splash, case)


@pytest.mark.parametrize(("tensor", "kv_heads"), [(2, ("tensor",)), (2, ()), (4, ())])
def test_splash_on_a_mesh_equals_the_reference(tensor, kv_heads):
    rules = ShardingRules(
        ShardingConfig(kv_heads=kv_heads),
        make_mesh(
            MeshConfig(data=2, fsdp=1, tensor=tensor), jax.devices()[: 2 * tensor]
        ),
    )
    case = Case("grouped_heads", N=4, K=2, T=128, window=30)
    with use_rules(rules):
        check(splash, case)


@pytest.mark.parametrize(("context", "tensor"), [(4, 2), (2, 1)])
def test_heads_that_change_places_equal_the_reference(context, tensor):
    mesh = make_mesh(
        MeshConfig(data=1, fsdp=1, context=context, tensor=tensor),
        jax.devices()[: context * tensor],
    )
    attention = functools.partial(attention_dispatch.attend, context="all_to_all")
    with use_rules(ShardingRules(ShardingConfig(), mesh)):
        check(attention, Case("narrow_values", N=8, K=8, H=24, U=16))


@pytest.mark.parametrize(("H", "U"), [(64, 64), (128, 128), (256, 256), (192, 128)])
def test_splash_lowers_for_tpus(H, U):
    case = Case("packed", N=4, K=2, H=H, U=U, T=1024, window=300, cap=50.0)
    q, k, v, ids = inputs(case, "bfloat16", batch=1)

    def loss(q, k, v):
        out = attention_splash.attention(q, k, v, ids, window=300, cap=50.0)
        return jnp.sum(out.astype(jnp.float32))

    grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    text = grad.trace(q, k, v).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("custom_call @tpu_custom_call") == 3  # forward, dq, dk and dv


def test_block_sizes_divide_the_row():
    for tokens, block in ((128, 128), (256, 256), (640, 128), (768, 384), (8192, 512)):
        assert attention_splash.block_tokens(tokens) == block


@pytest.mark.parametrize(
    "case", [Case("plain", packed=False), Case("packed", window=8)]
)
def test_cudnn_lowers_to_its_fused_kernels(case, monkeypatch):
    # The kernels need a GPU to run, not to be lowered to.
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91_000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    q, k, v, ids = inputs(case, "bfloat16")

    def loss(q, k, v):
        out = attention_cudnn.attention(q, k, v, ids, window=case.window, cap=None)
        return jnp.sum(out.astype(jnp.float32))

    grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    text = grad.trace(q, k, v).lower(lowering_platforms=("cuda",)).as_text()
    kind = "ScaleBiasSoftmax" if case.packed else "Softmax"  # the bias holds segments
    assert f"@__cudnn$fmha{kind}(" in text
    assert f"@__cudnn$fmha{kind}Backward(" in text
    settings = text.replace("\\22", "'")  # MLIR writes a quote as \22
    assert "'mask_type': 'CAUSAL'" in settings
    assert f"'sliding_window_length': {case.window or 0}" in settings


def test_a_query_sees_as_many_tokens_as_its_window_says():
    case = Case("window", window=4, packed=False, T=16)
    q, k, v, _ = inputs(case)
    v = jnp.broadcast_to(jnp.eye(16)[None, :, None, :], v.shape)  # out = weights
    out = attention_xla.attention(q, k, v, None, window=4, cap=None)
    assert np.count_nonzero(out[0, 10, 0]) == 4
    assert np.count_nonzero(out[0, 2, 0]) == 3
