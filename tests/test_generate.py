# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Generation: greedy equals the full forward; draws follow the distribution asked for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import MeshConfig, ShardingConfig
from podium.config_model import CapacityConfig
from podium.config_positions import LearnedPositionConfig
from podium.decoding import (
    FINISHED,
    decode_program,
    draw,
    prefill_program,
    weights_apart,
)
from podium.errors import ConfigError
from podium.generate import Generator, Sampling, bucket, generate
from podium.models.bind import abstract, bind
from podium.serving_mesh import choose_mesh, serving_rules
from podium.sharding.mesh import make_mesh
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
    prompts = [*PROMPTS, [7, 8] * 35]  # alone, the others are padded to less
    together = generate(cfg, params, prompts, num_tokens=5, sampling=GREEDY)
    for prompt, tokens in zip(prompts, together, strict=True):
        alone = generate(cfg, params, [prompt], num_tokens=5, sampling=GREEDY)
        assert alone == [tokens]


def test_draws_of_a_prompt_do_not_depend_on_its_batch_and_equal_prompts_differ():
    cfg = tiny("llama_3_1_8b")
    params = random_params(cfg)
    hot = Sampling(temperature=2.0, top_k=40, top_p=0.99)
    batch = [PROMPTS[1], PROMPTS[0], PROMPTS[2], PROMPTS[0]]
    together = generate(cfg, params, batch, num_tokens=9, sampling=hot, seed=3)
    alone = generate(cfg, params, PROMPTS[:1], num_tokens=9, sampling=hot, seed=3)
    assert alone == [together[1]]
    assert together[3] != together[1]


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        ("llama_3_1_8b", {"data": 4, "tensor": 2}),
        ("llama_3_1_8b", {"fsdp": 2, "context": 2, "tensor": 2}),
        ("gemma_3_1b", {"stage": 2, "fsdp": 4}),
        ("mixtral_8x7b", {"expert": 4, "tensor": 2}),
        ("deepseek_v3", {"fsdp": 4, "tensor": 2}),
    ],
)
def test_a_mesh_generates_what_one_device_does(name, mesh):
    cfg = tiny(name, vocab_multiple=8)
    params = random_params(cfg)
    want = generate(cfg, params, PROMPTS, num_tokens=6, sampling=GREEDY)
    devices = make_mesh(MeshConfig(**{"fsdp": 1, **mesh}), jax.devices())
    rules = serving_rules(ShardingConfig(), devices)
    generator = Generator(cfg, params, rules)
    assert generator.generate(PROMPTS, num_tokens=6, sampling=GREEDY) == want


def test_without_a_mesh_heads_are_split_as_far_as_they_divide():
    sizes = choose_mesh(tiny("llama_3_1_8b"), ShardingConfig(), None).mesh.shape
    assert sizes["tensor"] == 1  # a vocabulary of 61 divides by nothing
    cfg = tiny("llama_3_1_8b", vocab_multiple=8)
    sizes = choose_mesh(cfg, ShardingConfig(), None).mesh.shape
    assert (sizes["tensor"], sizes["fsdp"]) == (2, 4)  # of two kv heads


def test_the_cache_is_split_over_rows_and_kv_heads():
    cfg = tiny("llama_3_1_8b", vocab_multiple=8)
    mesh = make_mesh(MeshConfig(data=4, fsdp=1, tensor=2), jax.devices())
    rules = serving_rules(ShardingConfig(), mesh)
    weights = weights_apart(cfg, random_params(cfg), rules)
    prefill = prefill_program(cfg, rules, GREEDY, (4, 64, 128), 1)
    tokens = np.ones((4, 64), np.int32)
    draws, ends = np.zeros(4, np.uint32), np.zeros(1, np.int32)
    inputs = (tokens, 0 * tokens, draws, np.zeros(4, bool), np.uint32(0), ends)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = prefill(weights, *jax.device_put(inputs, everywhere))
    K, H = cfg.attention.num_kv_heads, cfg.attention.head_dim
    for kept in jax.tree.leaves(state.cache.blocks):
        assert kept.shape == (4, 128, K, H)
        assert kept.sharding.shard_shape(kept.shape) == (1, 128, K // 2, H)


def test_experts_with_a_capacity_serve_every_token_whatever_the_padding():
    cfg = tiny("mixtral_8x7b")
    scarce = dataclasses.replace(cfg.mlp, dispatch=CapacityConfig(factor=0.3))
    params = random_params(cfg)
    want = generate(cfg, params, PROMPTS, num_tokens=5, sampling=GREEDY)
    cfg = dataclasses.replace(cfg, mlp=scarce)
    assert generate(cfg, params, PROMPTS, num_tokens=5, sampling=GREEDY) == want


def test_lengths_of_one_bucket_share_the_programs_and_long_texts_grow_the_cache():
    cfg = tiny("llama_2_7b", num_layers=1)
    generator = Generator(cfg, random_params(cfg))
    prefill_program.cache_clear()
    decode_program.cache_clear()
    for length, num_tokens in ((3, 5), (60, 60), (64, 1), (17, 33)):
        generator.generate([[1] * length], num_tokens=num_tokens, sampling=GREEDY)
    assert prefill_program.cache_info().currsize == 1
    assert decode_program.cache_info().currsize == 1
    (long,) = generator.generate([PROMPTS[0]], num_tokens=300, sampling=GREEDY)
    assert decode_program.cache_info().currsize == 3  # of 128, 192 and 384 slots
    assert long == argmax_of_full_forwards(cfg, random_params(cfg), PROMPTS[0], 300)


def test_the_speed_of_a_batch_counts_its_tokens_and_not_its_padding():
    cfg = tiny("llama_2_7b")
    generator = Generator(cfg, random_params(cfg))
    rows = generator.generate(PROMPTS, num_tokens=7, sampling=GREEDY)
    assert generator.speed.prompt_tokens == sum(map(len, PROMPTS))
    assert generator.speed.new_tokens == sum(map(len, rows)) - len(rows)
    assert generator.speed.prefill_tokens_per_sec > 0
    assert generator.speed.decode_tokens_per_sec > 0


@pytest.mark.parametrize(
    ("num", "want"),
    [(1, 64), (64, 64), (65, 128), (512, 512), (1025, 1152), (2049, 2304)],
)
def test_buckets_are_at_most_64_or_an_eighth_longer(num, want):
    assert bucket(num) == want


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
    first = free[0].index(eos)
    for at_once in (1, 3, 64):
        stream = Generator(cfg, params).stream(
            PROMPTS[:2],
            num_tokens=8,
            sampling=GREEDY,
            end_ids={eos},
            most_at_once=at_once,
        )
        rows = np.concatenate(list(stream), axis=1)
        assert rows[0].tolist() == free[0][: first + 1] + [FINISHED] * (7 - first)
        assert rows[1].tolist() == free[1]
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
    keys = jax.random.split(jax.random.key(0), n)
    tokens = jax.jit(draw, static_argnums=2)(logits, keys, sampling)
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
