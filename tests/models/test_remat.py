# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""`model.remat`: what is kept for the backward pass, and where; never what comes out."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config_model import CapacityConfig
from podium.config_remat import LINEAR, tensors
from podium.errors import ConfigError
from podium.models.bind import abstract, bind
from tests.models.families_tiny import random_params, tiny

B, T = 2, 16
QWEN = tiny("qwen_3_8b", num_layers=2)
V3 = tiny("deepseek_v3")  # latent attention, experts, a shared one, a dense prefix
CAPACITY = tiny("mixtral_8x7b", num_layers=2)
CAPACITY = dataclasses.replace(
    CAPACITY, mlp=dataclasses.replace(CAPACITY.mlp, dispatch=CapacityConfig())
)
MODELS = {
    "qwen_3_8b": QWEN,
    "gpt2_124m": tiny("gpt2_124m"),
    "gemma_2_2b": tiny("gemma_2_2b"),  # norms behind each branch, a tail
    "deepseek_v3": V3,
    "capacity": CAPACITY,
}


def objective(cfg):
    rng = np.random.default_rng(1)
    tokens = jnp.asarray(rng.integers(0, cfg.vocab_size, (B, T), np.int32))
    positions = jnp.tile(jnp.arange(T, dtype=jnp.int32), (B, 1))

    def loss(params):
        model = bind(abstract(cfg).graphdef, params)
        hidden = model(tokens, positions, jnp.ones_like(tokens))
        return jnp.mean(model.logits(hidden) ** 2)

    return jax.value_and_grad(loss)


def with_remat(cfg, remat, **changes):
    return dataclasses.replace(cfg, remat=remat, **changes)


@pytest.fixture(scope="module")
def plain():
    found = {}

    def of(name):
        if name not in found:
            params = random_params(MODELS[name])
            found[name] = params, jax.jit(objective(MODELS[name]))(params)
        return found[name]

    return of


def assert_nothing_changes(cfg, params, want):
    got = jax.jit(objective(cfg))(params)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        got[1],
        want[1],
    )


@pytest.mark.parametrize("layer_loop", ["scan", "unroll"])
@pytest.mark.parametrize(
    "remat",
    [
        "none",
        "full",
        "dots",
        "qkv",
        "attention_out",
        "qkv_on_host",
        "dots,block_input:host",
        "dots,gate:host",
        "query,attention_out:host,block_input:host",
    ],
)
def test_remat_and_the_layer_loop_change_nothing(remat, layer_loop, plain):
    cfg = with_remat(QWEN, remat, layer_loop=layer_loop)
    assert_nothing_changes(cfg, *plain("qwen_3_8b"))


@pytest.mark.parametrize("where", ["", ":host"])
@pytest.mark.parametrize("name", MODELS)
def test_no_tensor_changes_anything_wherever_it_waits(name, where, plain):
    cfg = MODELS[name]
    every = ",".join(tensor + where for tensor in tensors(cfg))
    assert_nothing_changes(with_remat(cfg, every), *plain(name))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_tensors_that_it_says(name):
    cfg = MODELS[name]
    jaxpr = str(jax.make_jaxpr(objective(cfg))(random_params(cfg)))
    found = set(re.findall(r"\bname\[name=(\w+)\]", jaxpr))
    assert found - {LINEAR} == set(tensors(cfg))


def kept_bytes(cfg, remat):
    """Bytes of what the forward pass hands to the backward pass."""
    cfg = with_remat(cfg, remat)
    params = random_params(cfg)
    tokens = jnp.zeros((B, T), jnp.int32)
    positions = jnp.tile(jnp.arange(T, dtype=jnp.int32), (B, 1))

    def loss(params):
        model = bind(abstract(cfg).graphdef, params)
        return jnp.sum(model(tokens, positions, jnp.ones_like(tokens)))

    _, vjp = jax.vjp(loss, params)
    return sum(x.nbytes for x in jax.tree.leaves(vjp) if hasattr(x, "nbytes"))


def test_remat_keeps_what_its_name_says():
    cfg = tiny("llama_3_8b")
    kept = {
        remat: kept_bytes(cfg, remat)
        for remat in ("none", "full", "dots", "qkv", "attention_out", "gate,up")
    }
    a, activation = cfg.attention, 4 * cfg.num_layers * B * T
    more = {remat: kept[remat] - kept["full"] for remat in kept}
    # the output once, and one number a head of the softmax
    assert more["attention_out"] == activation * a.num_heads * (a.head_dim + 1)
    assert more["qkv"] == activation * (a.num_heads + 2 * a.num_kv_heads) * a.head_dim
    assert more["gate,up"] == activation * 2 * cfg.mlp.dim
    assert 0 < more["qkv"] < more["dots"]
    assert kept["full"] < kept["none"]


def on_host(cfg, remat):
    """Shapes of a layer's tensors that the program for a TPU sends to its host."""
    step = jax.jit(objective(with_remat(cfg, remat)))
    traced = step.trace(random_params(cfg))
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    sent = re.findall(
        r'@annotate_device_placement\(.*_xla_buffer_placement = "pinned_host".*'
        r"-> tensor<([\dx]+)xf32>",
        text,
    )
    return sorted(sent)


def test_what_is_offloaded_lies_in_the_hosts_memory_in_the_program():
    a, D, F = QWEN.attention, QWEN.embed_dim, QWEN.mlp.dim
    assert on_host(QWEN, "full") == []
    assert on_host(QWEN, "block_input:host") == [f"{B}x{T}x{D}"]
    assert on_host(QWEN, "gate:host,up") == [f"{B}x{T}x{F}"]
    q, kv = (f"{B}x{T}x{n}x{a.head_dim}" for n in (a.num_heads, a.num_kv_heads))
    assert on_host(QWEN, "qkv:host") == on_host(QWEN, "qkv_on_host")
    assert on_host(QWEN, "qkv:host") == sorted([q, kv, kv])


@pytest.mark.parametrize(
    ("remat", "message"),
    [
        ("blok_input:host", r"'blok_input'.* Did you mean 'block_input'\?"),
        ("ful", r"Did you mean 'full'\?"),
        ("expert_gate", r"does not have\. Did you mean 'gate'\?"),
        ("gate:hots", r"'gate:hots'.* Did you mean 'gate'\?"),
        ("", "names ''"),
        ("none,block_input:host", "stands alone"),
        ("none:host", "stands alone"),
        ("qkv,query:host", "names 'query' twice"),
    ],
)
def test_a_name_that_the_model_does_not_have_is_an_error_with_the_nearest(
    remat, message
):
    with pytest.raises(ConfigError, match=message) as error:
        with_remat(QWEN, remat)
    assert "\n" not in str(error.value)
