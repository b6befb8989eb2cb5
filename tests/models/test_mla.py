# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What is peculiar to latent attention; its result is checked in test_families.py and
test_family_logits.py, decoding in test_transformer.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config_model import LatentAttentionConfig
from podium.config_positions import LearnedPositionConfig, RopeConfig, YarnScaling
from podium.errors import ConfigError
from podium.models import rope
from podium.models.bind import abstract, bind
from tests.models.families_tiny import random_params, tiny

V3 = tiny("deepseek_v3")
A = V3.attention


def test_a_token_leaves_its_latent_and_its_rope_key_in_the_cache():
    model = bind(abstract(V3).graphdef, random_params(V3))
    cache = model.init_cache(batch=2, max_tokens=9)
    shapes = jax.tree.map(jnp.shape, cache.blocks)
    width = A.kv_lora_rank + A.qk_rope_head_dim
    assert shapes["prefix"] == [{"block_0": ((2, 9, width),)}]
    assert shapes["stack"] == [{"block_0": ((2, 9, width),)}] * 2


def test_remat_qkv_keeps_the_compressed_vectors():
    B, T = 2, 16
    tokens = jnp.zeros((B, T), jnp.int32)
    positions = jnp.tile(jnp.arange(T, dtype=jnp.int32), (B, 1))

    def saved_bytes(remat):
        cfg = dataclasses.replace(V3, remat=remat)

        def loss(params):
            model = bind(abstract(cfg).graphdef, params)
            return jnp.sum(model(tokens, positions, jnp.ones_like(tokens)))

        _, vjp = jax.vjp(loss, random_params(cfg))
        return sum(x.nbytes for x in jax.tree.leaves(vjp) if hasattr(x, "nbytes"))

    channels = A.q_lora_rank + A.kv_lora_rank + A.qk_rope_head_dim
    assert saved_bytes("qkv") - saved_bytes("full") == 4 * 3 * B * T * channels


def test_yarn_leaves_fast_pairs_alone_and_divides_slow_ones():
    scaling = YarnScaling(factor=40.0, original_max_tokens=4096)
    plain, yarn = RopeConfig(), RopeConfig(scaling=scaling)
    before = rope.frequencies(plain, 64, is_local=False)
    after = rope.frequencies(yarn, 64, is_local=False)
    turns = 4096 * before / (2 * np.pi)
    np.testing.assert_allclose(after[turns > 40], before[turns > 40])
    np.testing.assert_allclose(after[turns < 0.7], before[turns < 0.7] / 40)
    assert np.all(np.diff(after) < 0)
    np.testing.assert_array_equal(rope.frequencies(yarn, 64, is_local=True), before)


@pytest.mark.parametrize(
    ("scaling", "rotated", "all_scores"),
    [
        # Peng et al., eq. 22: sqrt(1 / t) = 0.1 ln(s) + 1, on the rotated channels.
        (YarnScaling(factor=40.0), 0.1 * np.log(40) + 1, 1.0),
        # DeepSeek-V3: on all channels of query and key, so squared in their score.
        (YarnScaling(factor=40.0, mscale_all_dim=1.0), 1.0, 1.3689 + 0.5048),
        (YarnScaling(factor=1.0, mscale=0.3, mscale_all_dim=2.0), 1.0, 1.0),
        (None, 1.0, 1.0),
    ],
)
def test_yarn_sharpens_scores_where_its_settings_say(scaling, rotated, all_scores):
    cfg = RopeConfig(scaling=scaling)
    assert rope.amplitude(cfg, is_local=False) == pytest.approx(rotated)
    assert rope.amplitude(cfg, is_local=True) == 1.0
    assert rope.score_factor(cfg) == pytest.approx(all_scores, rel=1e-3)
    by = rope.rotation(np.ones(2), jnp.zeros((1, 1), jnp.int32), rotated)
    np.testing.assert_allclose(by.cos, rotated, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda: dataclasses.replace(A, qk_rope_head_dim=7),
            "qk_rope_head_dim .7. must",
        ),
        (
            lambda: dataclasses.replace(V3, position=LearnedPositionConfig()),
            "needs model.position.kind='rope', not 'learned'",
        ),
        (
            lambda: dataclasses.replace(V3, num_layers=1),
            r"dense_prefix.num_layers \(1\) must be below model.num_layers \(1\)",
        ),
        (
            lambda: tiny("gemma_2_2b", dense_prefix=V3.dense_prefix),
            "must be a multiple of the 2 layers of model.attention.pattern",
        ),
        (
            lambda: YarnScaling(beta_fast=1.0, beta_slow=2.0),
            r"beta_fast \(1.0\) must be above beta_slow \(2.0\)",
        ),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        change()


def test_latent_attention_is_chosen_by_its_kind():
    from podium.config import TrainConfig
    from podium.config_dict import from_json_dict, to_json_dict

    cfg = TrainConfig(model=V3)
    tree = to_json_dict(cfg)
    assert tree["model"]["attention"]["kind"] == "latent"
    assert from_json_dict(TrainConfig, tree) == cfg
    assert isinstance(
        from_json_dict(TrainConfig, tree).model.attention, LatentAttentionConfig
    )
