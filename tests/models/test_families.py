# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Each family against an independent NumPy forward, and the published sizes."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import families
from configs.families import FAMILIES
from podium.models import flops
from podium.models.bind import abstract, bind
from tests.models import oracle
from tests.models.families_tiny import HEAD_DIM, random_params, tiny

PLAIN = {theta: oracle.plain_frequencies(theta, HEAD_DIM) for theta in (1e4, 5e5, 1e6)}
LLAMA_3_1 = oracle.llama3_frequencies(5e5, HEAD_DIM, 8.0, 1.0, 4.0, 64)
GEMMA_2 = {
    "is_local": (True, False),
    "window": 5,
    "global_freq": PLAIN[1e4],
    "local_freq": PLAIN[1e4],
    "scale": 0.3,
    "cap": 2.0,
    "final_cap": 3.0,
}
YARN = oracle.yarn_frequencies(1e4, 8, 40.0, 32, 1, 64)
ORACLES = {
    "gpt2_124m": (oracle.gpt2, {}),
    "llama_2_7b": (oracle.llama, {"inv_freq": PLAIN[1e4], "eps": 1e-5}),
    "llama_3_8b": (oracle.llama, {"inv_freq": PLAIN[5e5], "eps": 1e-5}),
    "llama_3_1_8b": (oracle.llama, {"inv_freq": LLAMA_3_1, "eps": 1e-5}),
    "mistral_7b": (oracle.llama, {"inv_freq": PLAIN[1e4], "eps": 1e-5, "window": 5}),
    "qwen_2_0_5b": (oracle.llama, {"inv_freq": PLAIN[1e6], "eps": 1e-6}),
    "qwen_2_7b": (oracle.llama, {"inv_freq": PLAIN[1e6], "eps": 1e-6}),
    "qwen_3_0_6b": (oracle.llama, {"inv_freq": PLAIN[1e6], "eps": 1e-6}),
    "qwen_3_8b": (oracle.llama, {"inv_freq": PLAIN[1e6], "eps": 1e-6}),
    "mixtral_8x7b": (oracle.llama, {"inv_freq": PLAIN[1e6], "eps": 1e-5}),
    "qwen_3_30b_a3b": (oracle.llama, {"inv_freq": PLAIN[1e6], "eps": 1e-6}),
    "deepseek_v2_lite": (
        oracle.deepseek,
        {"inv_freq": YARN, "mscale": 0.707, "choose": oracle.choose_v2},
    ),
    "deepseek_v3": (
        oracle.deepseek,
        {"inv_freq": YARN, "mscale": 1.0, "choose": oracle.choose_v3},
    ),
    "gemma_2_2b": (oracle.gemma, GEMMA_2),
    "gemma_2_9b": (oracle.gemma, GEMMA_2),
    "gemma_3_1b": (
        oracle.gemma,
        {
            "is_local": (True, True, True, True, True, False),
            "window": 5,
            "global_freq": PLAIN[1e6],
            "local_freq": PLAIN[1e4],
            "scale": 0.3,
        },
    ),
}
PUBLISHED_PARAMS = {
    "gpt2_124m": 124_439_808,
    "llama_2_7b": 6_738_415_616,
    "llama_3_8b": 8_030_261_248,
    "llama_3_1_8b": 8_030_261_248,
    "llama_3_1_70b": 70_553_706_496,
    "llama_3_1_405b": 405_853_388_800,
    "mistral_7b": 7_241_732_096,
    "qwen_2_0_5b": 494_032_768,
    "qwen_2_7b": 7_615_616_512,
    "qwen_3_0_6b": 596_049_920,
    "qwen_3_8b": 8_190_735_360,
    "mixtral_8x7b": 46_702_792_704,
    "qwen_3_30b_a3b": 30_532_122_624,
    "deepseek_v2_lite": 15_706_484_224,
    "deepseek_v3": 671_026_419_200,
    "gemma_2_2b": 2_614_341_888,
    "gemma_2_9b": 9_241_705_984,
    "gemma_3_1b": 999_885_952,
}
# What the authors call "active", where they say: arXiv:2401.04088, 2505.09388, 2412.19437.
PUBLISHED_ACTIVE = {
    "mixtral_8x7b": 12.9e9,
    "qwen_3_30b_a3b": 3.3e9,
    "deepseek_v3": 37e9,
}
T = 19
ROWS = (
    # tokens are drawn; positions and segments of: one document; two, then padding
    (np.arange(T), np.ones(T, int)),
    (
        np.concatenate([np.arange(8), np.arange(7), np.arange(4)]),
        np.array([1] * 8 + [2] * 7 + [0] * 4),
    ),
)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_the_numpy_forward(name):
    cfg = tiny(name)
    params = random_params(cfg)
    tokens = np.random.default_rng(1).integers(0, cfg.vocab_size, (2, T))
    positions = np.stack([row[0] for row in ROWS])
    segments = np.stack([row[1] for row in ROWS])

    @jax.jit
    def forward(params, tokens, positions, segments):
        model = bind(abstract(cfg).graphdef, params)
        return model.logits(model(tokens, positions, segments))

    got = forward(params, *(np.int32(x) for x in (tokens, positions, segments)))
    fn, settings = ORACLES[name]
    for row in range(2):
        want = fn(
            params,
            tokens[row],
            positions[row],
            segments[row],
            num_layers=cfg.num_layers,
            **settings,
        )
        # float32 against float64: rounding of about T * D products of size 1
        np.testing.assert_allclose(got[row], want, rtol=2e-5, atol=3e-5)


@pytest.mark.parametrize("name", PUBLISHED_PARAMS)
def test_the_full_size_model_has_as_many_parameters_as_published(name):
    shapes = abstract(getattr(families, name)()).shapes
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert total == PUBLISHED_PARAMS[name]


def test_a_position_scaled_linearly_is_a_position_divided():
    from podium.config_positions import LinearScaling, RopeConfig
    from podium.models.rope import frequencies

    plain = RopeConfig(theta=1e4)
    scaled = dataclasses.replace(plain, scaling=LinearScaling(factor=4.0))
    want = frequencies(plain, 8, is_local=False) / 4
    np.testing.assert_allclose(frequencies(scaled, 8, is_local=False), want)
    local = frequencies(scaled, 8, is_local=True)
    np.testing.assert_allclose(local, frequencies(plain, 8, is_local=True))


@pytest.mark.parametrize("name", PUBLISHED_ACTIVE)
def test_active_parameters_are_the_published_ones(name):
    active = flops.active_param_count(FAMILIES[name]())
    assert active == pytest.approx(PUBLISHED_ACTIVE[name], rel=0.02)
