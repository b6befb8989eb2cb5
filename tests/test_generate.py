# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Generation: greedy equals the full forward; draws follow the distribution asked for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config_positions import LearnedPositionConfig
from podium.errors import ConfigError
from podium.generate import FINISHED, Sampling, draw, generate, stream
from podium.models.bind import abstract, bind
from tests.models.families_tiny import random_params, tiny

GREEDY = Sampling(temperature=0)
PROMPTS = [[5, 3, 8, 8, 1, 40, 2, 17], [9, 9], [60]]


def argmax_of_full_forwards(cfg, params, prompt, num_tokens):
    """The next token again and again, each by a forward over the whole row."""
    model = bind(abstract(cfg).graphdef, params)
    T = len(prompt) + num_tokens

    @jax.jit
    def logits(tokens):
        positions = jnp.arange(T, dtype=jnp.int32)[None]
        return model.logits(model(tokens, positions, None))[0]

    row = np.zeros((1, T), np.int32)
    row[0, : len(prompt)] = prompt
    for t in range(len(prompt), T):
        row[0, t] = np.argmax(logits(row)[t - 1])
    return row[0, len(prompt) :].tolist()


@pytest.mark.parametrize(
    "name",
    ["gpt2_124m", "gemma_3_1b", "qwen_2_0_5b", "deepseek_v2_lite", "deepseek_v3"],
)
def test_greedy_output_is_the_argmax_of_the_full_forward(name):
    cfg = tiny(name)
    params = random_params(cfg)
    got = generate(cfg, params, PROMPTS, num_tokens=9, sampling=GREEDY)
    for prompt, tokens in zip(PROMPTS, got, strict=True):
        assert tokens == argmax_of_full_forwards(cfg, params, prompt, 9)


def test_a_prompt_continues_the_same_alone_and_in_a_batch():
    cfg = tiny("llama_3_1_8b")
    params = random_params(cfg)
    together = generate(cfg, params, PROMPTS, num_tokens=5, sampling=GREEDY)
    for prompt, tokens in zip(PROMPTS, together, strict=True):
        alone = generate(cfg, params, [prompt], num_tokens=5, sampling=GREEDY)
        assert alone == [tokens]


def test_bfloat16_weights_cast_once_generate_the_same():
    cfg = tiny("gemma_2_2b", dtype="bfloat16")
    params = jax.tree.map(lambda x: 0.5 * x, random_params(cfg))
    got = generate(cfg, params, PROMPTS[:1], num_tokens=4, sampling=GREEDY)
    cache_free = argmax_of_full_forwards(cfg, params, PROMPTS[0], 4)
    assert got == [cache_free]


def test_a_row_stops_at_its_end_and_the_others_go_on():
    cfg = tiny("llama_2_7b")
    params = random_params(cfg)
    free = generate(cfg, params, PROMPTS[:2], num_tokens=8, sampling=GREEDY)
    eos = free[0][2]
    assert eos not in free[1]
    steps = list(
        stream(cfg, params, PROMPTS[:2], num_tokens=8, sampling=GREEDY, end_ids={eos})
    )
    first = free[0].index(eos)
    assert [int(s[0]) for s in steps] == free[0][: first + 1] + [FINISHED] * (7 - first)
    assert [int(s[1]) for s in steps] == free[1]
    alone = generate(
        cfg, params, PROMPTS[:1], num_tokens=8, sampling=GREEDY, end_ids={eos}
    )
    assert alone == [free[0][: first + 1]]


def test_the_seed_decides_the_draws():
    cfg = tiny("llama_2_7b")
    params = random_params(cfg)
    hot = Sampling(temperature=3.0)
    a, b, c = (
        generate(cfg, params, PROMPTS[:1], num_tokens=12, sampling=hot, seed=seed)
        for seed in (1, 1, 2)
    )
    assert a == b
    assert a != c


LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))


@pytest.mark.parametrize(
    ("sampling", "want"),
    [
        (Sampling(temperature=1.0), [0.5, 0.25, 0.15, 0.1]),
        (
            Sampling(temperature=0.5),
            [0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345],
        ),
        (Sampling(temperature=1.0, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(temperature=1.0, top_k=9), [0.5, 0.25, 0.15, 0.1]),
        (Sampling(temperature=1.0, top_p=0.6), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(temperature=1.0, top_p=0.01), [1, 0, 0, 0]),
        (Sampling(temperature=1.0, top_k=3, top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
    ],
)
def test_draws_follow_temperature_top_k_and_top_p(sampling, want):
    n = 20_000
    logits = jnp.broadcast_to(jnp.asarray(LOGITS), (n, 4))
    tokens = jax.jit(draw, static_argnums=2)(logits, jax.random.key(0), sampling)
    share = np.bincount(tokens, minlength=4) / n
    np.testing.assert_allclose(share, want, atol=0.015)
    np.testing.assert_array_equal(share == 0, np.array(want) == 0)


@pytest.mark.parametrize(
    ("prompts", "num_tokens", "message"),
    [
        ([], 4, "at least one token in every prompt"),
        ([[1], []], 4, "at least one token in every prompt"),
        ([[61]], 4, "token 61, but the model has vocab_size=61"),
        ([[1, 2]], 0, "num_tokens is 0"),
        ([[1] * 6], 3, r"6 tokens and 3 new ones are beyond .* \(8\)"),
    ],
)
def test_a_prompt_the_model_cannot_hold_is_refused(prompts, num_tokens, message):
    cfg = tiny("gpt2_124m", position=LearnedPositionConfig(max_tokens=8))
    with pytest.raises(ConfigError, match=message):
        generate(
            cfg, random_params(cfg), prompts, num_tokens=num_tokens, sampling=GREEDY
        )


def test_a_prompt_that_just_fits_the_learned_positions_is_taken():
    cfg = tiny("gpt2_124m", position=LearnedPositionConfig(max_tokens=8))
    params = random_params(cfg)
    got = generate(cfg, params, [[1] * 6], num_tokens=2, sampling=GREEDY)
    assert got == [argmax_of_full_forwards(cfg, params, [1] * 6, 2)]


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_sampling_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        dataclasses.replace(Sampling(), **wrong)
