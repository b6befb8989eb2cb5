# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.families import FAMILIES
from podium.config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    OptimConfig,
)
from podium.config_model import AttentionConfig, MlpConfig, ModelConfig, RMSNormConfig
from podium.config_width import MupConfig
from podium.errors import ConfigError
from podium.models import bind
from podium.models.width import (
    Ratios,
    at_width,
    based_on_itself,
    fans,
    query_scale,
    ratios,
)
from podium.trainer.optimizer import make_optimizer
from tests.models.families_tiny import tiny

BASE = ModelConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=32,
    dtype="float32",
    attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8),
    mlp=MlpConfig(dim=64),
)
TWICE = Ratios(embed=2.0, mlp=4.0, heads=3.0)  # all different: none stands for another
OPTIMIZERS = (AdamWConfig(), LionConfig(), AdafactorConfig(), MuonConfig())
DENSE = [name for name, make in FAMILIES.items() if make().attention.kind == "grouped"]


def wide(cfg: ModelConfig, **changes) -> ModelConfig:
    """A model on a base of half the width, a quarter of the MLP's."""
    mup = MupConfig(
        base_embed_dim=cfg.embed_dim // 2, base_mlp_dim=cfg.mlp.dim // 4, **changes
    )
    return dataclasses.replace(cfg, width_transfer=mup)


def by_path(tree) -> dict[str, tuple]:
    flat = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda x: isinstance(x, tuple)
    )
    return {jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in flat}


@pytest.mark.parametrize("name", DENSE)
def test_every_weight_of_a_family_has_the_factor_of_its_kind(name):
    for path, axes in by_path(bind.abstract(wide(tiny(name))).axes).items():
        leaf = path.rpartition("/")[2]
        factor = fans(TWICE, axes)[0]
        if leaf in ("query", "key", "value", "gate", "up", "kernel"):
            assert factor == 2.0, path
        elif leaf == "down":
            assert factor == 4.0, path
        elif leaf == "out":
            assert factor == 3.0, path
        else:  # tables, head, norms, biases
            assert leaf in ("table", "positions", "head", "scale") or "bias" in leaf
            assert fans(TWICE, axes) == (1.0, 1.0) or leaf == "positions", path
            assert factor == 1.0, path


@pytest.mark.parametrize("name", ["gpt2_124m", "mixtral_8x7b"])
def test_kernels_start_smaller_by_the_root_of_what_they_sum_over(name):
    plain = tiny(name, vocab_size=256, embed_dim=64, init_std=0.02)
    mlp = dataclasses.replace(plain.mlp, dim=64)
    plain = dataclasses.replace(plain, mlp=mlp)
    want, got = (
        by_path(jax.tree.map(np.std, bind.init_params(cfg, jax.random.key(0))))
        for cfg in (plain, wide(plain))
    )
    by = {"down": 4**-0.5, "out": 2**-0.5, "kernel": 0.5}
    by |= dict.fromkeys(("query", "key", "value", "gate", "up"), 2**-0.5)
    for path in want:
        np.testing.assert_allclose(
            got[path], want[path] * by.get(path.rpartition("/")[2], 1.0), rtol=1e-5
        )


def params_and_axes() -> tuple[dict, dict]:
    rng = np.random.default_rng(0)
    model = bind.abstract(BASE)
    return (
        jax.tree.map(
            lambda s: jnp.asarray(rng.standard_normal(s.shape), jnp.float32),
            model.shapes,
        ),
        model.axes,
    )


def update(optimizer, wider: Ratios | None, decay: float = 0.1) -> dict:
    """What two steps with random gradients do to random weights."""
    params, axes = params_and_axes()
    grads = jax.tree.map(lambda p: jnp.sin(7.0 * p), params)
    cfg = OptimConfig(optimizer=optimizer, weight_decay=decay, clip_norm=None)
    tx = make_optimizer(cfg, optax.constant_schedule(1e-2), axes, wider)
    state, start = tx.init(params), params
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return by_path(jax.tree.map(lambda new, old: new - old, params, start))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
@pytest.mark.usefixtures("standard_promotion")
def test_at_the_base_width_the_update_is_the_same_to_the_bit(optimizer):
    want, got = update(optimizer, None), update(optimizer, Ratios())
    for path in want:
        np.testing.assert_array_equal(got[path], want[path], err_msg=path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
@pytest.mark.usefixtures("standard_promotion")
def test_steps_shrink_with_what_a_kernel_sums_over(optimizer):
    want, got = update(optimizer, None, 0.0), update(optimizer, TWICE, 0.0)
    block = "stack/block_0/"
    by = {"attention/query": 2.0, "attention/out": 3.0, "mlp/up": 2.0, "mlp/down": 4.0}
    if isinstance(optimizer, MuonConfig):
        # sqrt(out / in) of the ratios, over the root of the larger side's growth.
        by = {
            "attention/query": (2 / 3 * 2) ** 0.5,
            "attention/out": (3 / 2 * 2) ** 0.5,
        }
        by |= {"mlp/up": (2 / 4 * 4) ** 0.5, "mlp/down": (4 / 2 * 4) ** 0.5}
    for path, factor in by.items():
        np.testing.assert_allclose(
            got[block + path] * factor, want[block + path], rtol=2e-3, atol=1e-5
        )
    for path in ("embed/table", "final_norm/scale", block + "mlp_norm/scale"):
        np.testing.assert_allclose(got[path], want[path], rtol=2e-3, atol=1e-5)


@pytest.mark.usefixtures("standard_promotion")
def test_decay_does_not_fade_with_width():
    with_, without = (update(AdamWConfig(), TWICE, decay) for decay in (0.1, 0.0))
    start = by_path(params_and_axes()[0])
    for name in (
        "embed/table",
        "stack/block_0/mlp/down",
        "stack/block_0/attention/out",
    ):
        shrunk = with_[name] - without[name]
        np.testing.assert_allclose(
            shrunk, -2 * 1e-3 * start[name], rtol=2e-2, atol=1e-4
        )


@pytest.mark.parametrize("ties", [True, False])
def test_logits_and_gemma_embeddings_are_those_of_the_base(ties):
    changes = {"tie_embeddings": ties, "embed_scale": "sqrt_dim", "vocab_size": 16}
    plain = dataclasses.replace(BASE, **changes)
    params = bind.init_params(plain, jax.random.key(0))
    hidden = jnp.ones((2, 32))
    tokens = jnp.zeros((1, 3), jnp.int32)
    of_plain, of_wide = (
        bind.bind(bind.abstract(cfg).graphdef, params) for cfg in (plain, wide(plain))
    )
    np.testing.assert_allclose(
        of_wide.logits(hidden), of_plain.logits(hidden) / 2, rtol=1e-6
    )
    np.testing.assert_allclose(
        of_wide.embed(tokens, tokens),
        of_plain.embed(tokens, tokens) / 2**0.5,
        rtol=1e-6,
    )


def test_wider_heads_divide_scores_by_their_width():
    for given in (None, 0.3):
        attention = dataclasses.replace(BASE.attention, query_scale=given)
        plain = dataclasses.replace(BASE, attention=attention)
        at = {n: query_scale(wide(plain, base_head_dim=n)) for n in (8, 2)}
        assert at[8] == query_scale(plain)
        at_two = 2**-0.5 if given is None else given
        np.testing.assert_allclose(at[2], at_two / 4)


def test_zero_init_starts_queries_and_head_at_zero():
    cfg = dataclasses.replace(BASE, tie_embeddings=False)
    cfg = wide(cfg, zero_init=("query", "head"))
    params = bind.init_params(cfg, jax.random.key(0))
    assert not np.any(params["head"])
    assert not np.any(params["stack"]["block_0"]["attention"]["query"])
    assert np.any(params["stack"]["block_0"]["attention"]["key"])


def test_a_model_at_another_width_grows_in_proportion_or_says_what_cannot():
    cfg = at_width(BASE, 128)
    assert (cfg.attention.num_heads, cfg.attention.num_kv_heads) == (16, 8)
    assert (cfg.attention.head_dim, cfg.mlp.dim, cfg.embed_dim) == (8, 256, 128)
    assert ratios(at_width(based_on_itself(BASE), 128)) == Ratios(4.0, 4.0, 4.0, 1.0)
    wider = at_width(wide(BASE, base_head_dim=8), 128)
    assert (wider.attention.num_heads, wider.attention.head_dim) == (4, 32)
    with pytest.raises(
        ConfigError, match=r"num_kv_heads would be 1\.5; use multiples of 16"
    ):
        at_width(BASE, 24)


def test_what_has_no_rule_is_refused_in_a_line():
    def refused(match: str, zero_init=(), **changes):
        with pytest.raises(ConfigError, match=match):
            wide(dataclasses.replace(BASE, **changes), zero_init=zero_init)

    latent = FAMILIES["deepseek_v3"]().attention
    refused("no rule for model.attention.kind='latent'", attention=latent)
    refused("under model.tie_embeddings is the embedding", ("head",))
    normed = dataclasses.replace(BASE.attention, qk_norm=RMSNormConfig())
    refused("cannot normalise zeros", ("query",), attention=normed)
