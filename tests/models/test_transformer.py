# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What must hold for any model: causality, packing, decoding, types."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config_model import DensePrefixConfig
from podium.config_positions import LearnedPositionConfig
from podium.errors import ConfigError
from podium.models.bind import abstract, bind, init_params
from podium.models.layer_stack import layer_stacks
from tests.models.families_tiny import random_params, tiny

T = 13


def forward(cfg, params, tokens, positions=None, segments=None):
    B, T = tokens.shape
    if positions is None:
        positions = jnp.tile(jnp.arange(T, dtype=jnp.int32), (B, 1))
    if segments is None:
        segments = jnp.ones((B, T), jnp.int32)

    @jax.jit
    def run(params, tokens, positions, segments):
        model = bind(abstract(cfg).graphdef, params)
        return model.logits(model(tokens, positions, segments))

    return np.asarray(run(params, tokens, positions, segments))


def draw_tokens(cfg, shape, seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, cfg.vocab_size, shape, np.int32))


@pytest.mark.parametrize("name", ["gemma_2_2b", "gpt2_124m", "deepseek_v3"])
def test_token_t_ignores_tokens_after_t(name):
    cfg = tiny(name)
    params = random_params(cfg)
    model = bind(abstract(cfg).graphdef, params)
    tokens = draw_tokens(cfg, (1, T))
    positions = jnp.arange(T, dtype=jnp.int32)[None]
    x_BTD = model.embed(tokens, positions)

    # The embedding is replaced by a table of one row per position, to differentiate by.
    def hidden_at(x_BTD, t):
        table = jnp.pad(x_BTD[0], ((0, cfg.vocab_size - T), (0, 0)))
        table = table / (model.embed.multiplier or 1.0)
        own = jax.tree.map(lambda x: x, params)
        own["embed"] = {"table": table}
        if "positions" in params["embed"]:
            own["embed"]["positions"] = jnp.zeros_like(params["embed"]["positions"])
        net = bind(abstract(cfg).graphdef, own)
        ids = jnp.arange(T, dtype=jnp.int32)[None]
        return net(ids, positions, None)[0, t].sum()

    t = 6
    grad = np.abs(np.asarray(jax.jit(jax.grad(hidden_at))(x_BTD, t))[0]).sum(axis=-1)
    assert np.all(grad[t + 1 :] == 0)
    assert np.all(grad[t - 1 : t + 1] > 0)


@pytest.mark.parametrize("name", ["gpt2_124m", "gemma_3_1b", "deepseek_v3"])
def test_a_packed_row_equals_its_documents_alone(name):
    cfg = tiny(name)
    params = random_params(cfg)
    a, b = draw_tokens(cfg, (1, 7)), draw_tokens(cfg, (1, 5), seed=2)
    padding = np.zeros((1, 4), np.int32)
    packed = forward(
        cfg,
        params,
        np.concatenate([a, b, padding], axis=1),
        np.concatenate([np.arange(7), np.arange(5), np.zeros(4)]).astype(np.int32)[
            None
        ],
        np.array([[1] * 7 + [2] * 5 + [0] * 4], np.int32),
    )
    np.testing.assert_allclose(packed[:, :7], forward(cfg, params, a), atol=3e-5)
    np.testing.assert_allclose(packed[:, 7:12], forward(cfg, params, b), atol=3e-5)


@pytest.mark.parametrize("name", ["gpt2_124m", "gemma_3_1b", "deepseek_v3"])
def test_decoding_equals_the_full_forward(name):
    cfg = tiny(name)
    params = random_params(cfg)
    tokens = draw_tokens(cfg, (2, T))
    want = forward(cfg, params, tokens)
    model = bind(abstract(cfg).graphdef, params)
    cache = model.init_cache(2, T + 3)
    positions = jnp.tile(jnp.arange(T, dtype=jnp.int32), (2, 1))
    decode = jax.jit(
        lambda t, p, c: bind(abstract(cfg).graphdef, params).decode(t, p, c)
    )
    hidden, cache = decode(tokens[:, :8], positions[:, :8], cache)
    got = [hidden]
    for t in range(8, T):
        hidden, cache = decode(tokens[:, t : t + 1], positions[:, t : t + 1], cache)
        got.append(hidden)
    got = np.asarray(model.logits(jnp.concatenate(got, axis=1)))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=3e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_in_a_prompt_is_invisible(side):
    cfg = tiny("gemma_3_1b")
    params = random_params(cfg)
    short = draw_tokens(cfg, (1, 6))
    want = forward(cfg, params, short)
    pad = 4
    at = slice(pad, None) if side == "left" else slice(None, 6)
    tokens = np.full((1, 6 + pad), 7, np.int32)
    positions = np.full((1, 6 + pad), -1, np.int32)
    tokens[:, at], positions[:, at] = short, np.arange(6)
    model = bind(abstract(cfg).graphdef, params)
    hidden, cache = model.decode(
        jnp.asarray(tokens), jnp.asarray(positions), model.init_cache(1, 12)
    )
    np.testing.assert_allclose(model.logits(hidden[:, at]), want, rtol=2e-5, atol=3e-5)
    more = draw_tokens(cfg, (1, 1), seed=5)
    hidden, _ = model.decode(more, jnp.array([[6]], jnp.int32), cache)
    want = forward(cfg, params, np.concatenate([short, more], axis=1))[:, -1:]
    np.testing.assert_allclose(model.logits(hidden), want, rtol=2e-5, atol=3e-5)


@pytest.mark.parametrize("name", ["gpt2_124m", "gemma_2_2b"])
def test_bfloat16_is_close_to_float32(name):
    cfg = tiny(name)
    params = jax.tree.map(lambda x: 0.5 * x, random_params(cfg))
    tokens = draw_tokens(cfg, (2, T))
    want = forward(cfg, params, tokens)
    half = dataclasses.replace(cfg, dtype="bfloat16")
    got = forward(half, params, tokens)
    assert got.dtype == np.float32
    error = np.sqrt(np.mean((got - want) ** 2)) / np.std(want)
    assert error < 0.03  # 8 significant bits through 3 to 8 layers


def test_initial_values_have_the_stated_spread():
    cfg = tiny("llama_2_7b", embed_dim=64, vocab_size=400, num_layers=8)
    params = jax.jit(init_params, static_argnums=0)(cfg, jax.random.key(0))
    block = params["stack"]["block_0"]
    residual_std = cfg.init_std / np.sqrt(2 * cfg.num_layers)
    for kernel, std in (
        (params["embed"]["table"], cfg.init_std),
        (params["head"], cfg.init_std),
        (block["attention"]["query"], cfg.init_std),
        (block["mlp"]["gate"], cfg.init_std),
        (block["attention"]["out"], residual_std),
        (block["mlp"]["down"], residual_std),
    ):
        assert kernel.dtype == jnp.float32
        np.testing.assert_allclose(np.std(kernel), std, rtol=0.05)
    first, second = block["attention"]["query"][:2]
    assert np.abs(first - second).max() > cfg.init_std  # layers differ
    np.testing.assert_array_equal(block["attention_norm"]["scale"], 1.0)


def test_gemma_norms_start_at_identity():
    cfg = tiny("gemma_2_2b")
    params = init_params(cfg, jax.random.key(0))
    np.testing.assert_array_equal(params["final_norm"]["scale"], 0.0)


def test_abstract_shapes_and_axes_describe_the_real_parameters():
    cfg = tiny("gemma_3_1b")
    shapes, axes = abstract(cfg).shapes, abstract(cfg).axes
    params = init_params(cfg, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda s: (s.shape, s.dtype), shapes
    )

    def check(shape, axis):
        if isinstance(shape, dict):
            assert shape.keys() == axis.keys()
            for name in shape:
                check(shape[name], axis[name])
        else:
            assert isinstance(axis, tuple)
            assert len(axis) == len(shape.shape)

    check(shapes, axes)
    query = axes["stack"]["block_5"]["attention"]["query"]
    assert query == ("layers", "embed", "heads", "head_dim")


def test_a_pattern_that_does_not_divide_the_depth_ends_in_a_tail():
    cfg = tiny("gemma_3_1b", num_layers=26)
    stacks = layer_stacks(cfg)
    local, every = "local", ("local",) * 5 + ("global",)
    assert stacks == {"stack": (every, 4), "tail": ((local, local), 1)}
    dense = DensePrefixConfig(num_layers=6)
    stacks = layer_stacks(dataclasses.replace(cfg, dense_prefix=dense))
    assert stacks == {
        "prefix": (every, 1),
        "stack": (every, 3),
        "tail": ((local, local), 1),
    }
    shallow = tiny("gemma_3_1b", num_layers=2)
    assert layer_stacks(shallow) == {"tail": ((local, local), 1)}


def test_the_program_does_not_grow_with_depth():
    def lines(num_layers):
        cfg = tiny("llama_3_8b", num_layers=num_layers)
        tokens = jnp.zeros((1, 8), jnp.int32)

        def loss(params):
            model = bind(abstract(cfg).graphdef, params)
            return jnp.sum(model(tokens, tokens, tokens))

        lowered = jax.jit(jax.grad(loss)).lower(abstract(cfg).shapes)
        return lowered.as_text().count("\n")

    assert lines(24) == lines(2)


def test_a_row_beyond_the_learned_positions_is_refused():
    cfg = tiny("gpt2_124m", position=LearnedPositionConfig(max_tokens=8))
    with pytest.raises(ConfigError, match=r"9 tokens .*max_tokens=8"):
        forward(cfg, random_params(cfg), draw_tokens(cfg, (1, 9)))
