# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from podium.config import LossConfig
from podium.trainer import loss
from podium.trainer.loss import loss_sums, scored_tokens

B, T, D, V = 3, 7, 5, 11


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(D, V)), jnp.float32)
    targets = jnp.asarray(rng.integers(-1, V, (B, T)), jnp.int32)
    return hidden, head, targets


def mean_loss(hidden, head, targets, cfg):
    sums = loss_sums(lambda h: jnp.einsum("BTD,DV->BTV", h, head), hidden, targets, cfg)
    return sums.objective(cfg.z_loss, scored_tokens(targets)), sums


def test_it_is_optax_cross_entropy_over_the_scored_tokens(example):
    hidden, head, targets = example
    logits = jnp.einsum("BTD,DV->BTV", hidden, head)
    with jax.numpy_dtype_promotion("standard"):
        each = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.maximum(targets, 0)
        )
    want = np.mean(np.asarray(each)[np.asarray(targets) >= 0])
    got, sums = mean_loss(hidden, head, targets, LossConfig())
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert float(sums.tokens) == np.sum(np.asarray(targets) >= 0)


@pytest.mark.parametrize("chunk_tokens", [1, 4, 6, 9, 20])
def test_chunks_change_neither_the_loss_nor_its_gradient(example, chunk_tokens):
    hidden, head, targets = example

    def run(cfg):
        return jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True)(
            hidden, head, targets, cfg
        )

    want = run(LossConfig(z_loss=1e-2, chunk_tokens=10_000))
    got = run(LossConfig(z_loss=1e-2, chunk_tokens=chunk_tokens))
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-7), got, want
    )


@pytest.mark.parametrize("chunk_tokens", [6, 10_000])
def test_one_pass_over_the_logits_changes_neither(example, chunk_tokens, monkeypatch):
    hidden, head, targets = example
    hidden = hidden.at[0, 0].set(300.0 * hidden[0, 0])  # a row of far-apart logits
    cfg = LossConfig(z_loss=1e-2, chunk_tokens=chunk_tokens)

    def run(platform):
        monkeypatch.setattr(loss, "current_platform", lambda: platform)
        return jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True)(
            hidden, head, targets, cfg
        )

    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5),
        run("gpu"),
        run("cpu"),
    )


def test_whole_logits_never_exist_when_chunked(example):
    hidden, head, targets = example
    cfg = LossConfig(chunk_tokens=B)

    def fn(hidden, head):
        return mean_loss(hidden, head, targets, cfg)[0]

    text = str(jax.make_jaxpr(jax.grad(fn, argnums=(0, 1)))(hidden, head))
    assert f"f32[{B},1,{V}]" in text
    assert f"f32[{B},{T},{V}]" not in text
    assert f"f32[{T},{B},1,{V}]" not in text  # nor stacked for the backward pass


def test_z_loss_is_the_squared_log_normaliser(example):
    hidden, head, targets = example
    plain, sums = mean_loss(hidden, head, targets, LossConfig())
    with_z, _ = mean_loss(hidden, head, targets, LossConfig(z_loss=0.5))
    lse = jax.nn.logsumexp(jnp.einsum("BTD,DV->BTV", hidden, head), axis=-1)
    want = 0.5 * jnp.sum(jnp.where(targets >= 0, jnp.square(lse), 0.0)) / sums.tokens
    np.testing.assert_allclose(with_z - plain, want, rtol=1e-5)


def test_a_batch_without_targets_has_loss_zero_not_nan(example):
    hidden, head, targets = example
    loss, _ = mean_loss(hidden, head, jnp.full_like(targets, -1), LossConfig())
    assert loss == 0.0
