# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The closed forms against real parameter trees and against XLA's own count."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.families import FAMILIES
from podium.config_model import (
    AttentionConfig,
    DensePrefixConfig,
    LatentAttentionConfig,
    MlpConfig,
    ModelConfig,
)
from podium.models import flops
from podium.models.bind import abstract, bind
from tests.models.families_tiny import tiny


@pytest.mark.parametrize("name", FAMILIES)
def test_param_count_is_that_of_the_real_tree(name):
    for cfg in (tiny(name), FAMILIES[name]()):
        shapes = abstract(cfg).shapes
        assert flops.param_count(cfg) == sum(x.size for x in jax.tree.leaves(shapes))


def test_parts_add_up_to_the_tree():
    cfg = tiny("gemma_3_1b")
    counts, shapes = flops.count_params(cfg), abstract(cfg).shapes
    assert counts.embedding == sum(x.size for x in jax.tree.leaves(shapes["embed"]))
    blocks = [*shapes["stack"].values(), *shapes["tail"].values()]
    for part, want in (("attention", counts.attention), ("mlp", counts.mlp)):
        leaves = jax.tree.leaves([block[part] for block in blocks])
        assert want == sum(x.size for x in leaves)
    assert counts.head == 0


def config_for_xla(**changes):
    """Wide enough that matmuls are nearly everything that XLA counts."""
    cfg = ModelConfig(
        vocab_size=512,
        num_layers=2,
        embed_dim=256,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=64),
        mlp=MlpConfig(kind="swiglu", dim=512),
        dtype="float32",
        layer_loop="unroll",
    )
    return dataclasses.replace(cfg, **changes)


def xla_flops(cfg, T, *, train):
    graphdef, shapes, _ = abstract(cfg)
    tokens = jnp.zeros((2, T), jnp.int32)

    def logits_sum(params):
        model = bind(graphdef, params)
        return jnp.sum(model.logits(model(tokens, tokens, None)) ** 2)

    fn = jax.grad(logits_sum) if train else logits_sum
    cost = jax.jit(fn).lower(shapes).compile().cost_analysis()
    return cost["flops"] / tokens.size


def full_square(cfg, T):
    """What a dense implementation does above the convention: the masked half too."""
    a = cfg.attention
    channels = a.head_dim + getattr(a, "v_head_dim", a.head_dim)
    dense = 2.0 * channels * a.num_heads * T * cfg.num_layers
    return dense - flops.attention_flops_per_token(cfg, T)


LATENT = LatentAttentionConfig(
    num_heads=4,
    q_lora_rank=192,
    kv_lora_rank=128,
    qk_nope_head_dim=64,
    qk_rope_head_dim=32,
    v_head_dim=48,
)
PREFIX = DensePrefixConfig(num_layers=1, mlp=MlpConfig(dim=768))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "changes", [{}, {"attention": LATENT, "dense_prefix": PREFIX}], ids=["", "latent"]
)
def test_flops_agree_with_xla(train, changes):
    cfg, T = config_for_xla(**changes), 128
    passes = 3 if train else 1
    ours = flops.train_flops_per_token if train else flops.forward_flops_per_token
    want = ours(cfg, T) + passes * full_square(cfg, T)
    # XLA also counts the element-wise work: a few percent at this width.
    np.testing.assert_allclose(xla_flops(cfg, T, train=train), want, rtol=0.04)


def test_one_more_layer_costs_in_xla_what_the_closed_form_says():
    shallow, deep = config_for_xla(num_layers=1), config_for_xla(num_layers=3)
    T = 64
    got = xla_flops(deep, T, train=False) - xla_flops(shallow, T, train=False)
    want = flops.forward_flops_per_token(deep, T) + full_square(deep, T)
    want -= flops.forward_flops_per_token(shallow, T) + full_square(shallow, T)
    np.testing.assert_allclose(got, want, rtol=0.04)


@pytest.mark.parametrize("window", [None, 1, 3, 7, 8, 20])
def test_visible_pairs_counts_the_mask(window):
    T = 8
    mask = np.tril(np.ones((T, T), bool))
    if window is not None:
        mask &= ~np.tril(np.ones((T, T), bool), -window)
    assert flops.visible_pairs(T, window) == mask.sum()


def test_local_layers_count_their_window():
    cfg = tiny("gemma_3_1b")  # 8 layers: one global
    T, window, per_pair = 64, 5, 4 * 4 * 16
    pairs = 1 * T * (T + 1) / 2 + 7 * (
        window * (window + 1) / 2 + (T - window) * window
    )
    assert flops.attention_flops_per_token(cfg, T) == per_pair * pairs / T


def test_decoding_the_last_token_of_a_row_costs_its_share_of_the_row():
    cfg = tiny("gemma_2_2b")
    T = 12
    alone = [flops.decode_flops_per_token(cfg, t) for t in range(1, T + 1)]
    np.testing.assert_allclose(sum(alone), T * flops.forward_flops_per_token(cfg, T))


def test_a_cached_token_of_latent_attention_costs_its_latent_and_rope_channels():
    cfg = config_for_xla(attention=LATENT)
    longer, shorter = (flops.decode_flops_per_token(cfg, t) for t in (101, 100))
    per_pair = 2 * (128 + 32) + 2 * 128  # a score, and a value that is the latent
    assert longer - shorter == cfg.num_layers * 4 * per_pair


def test_counting_needs_no_jax():
    code = "import podium.models.flops, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
