# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts against a plain loop over tokens, in NumPy float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from podium.config_model import (
    AuxLossConfig,
    BiasConfig,
    CapacityConfig,
    ModelConfig,
    MoeConfig,
)
from podium.errors import ConfigError
from podium.models.moe import MoeMlp, balance_weight

B, T, D, E, F = 2, 12, 16, 8, 24
MIXTRAL = MoeConfig(num_experts=E, experts_per_token=2, dim=F)
DEEPSEEK = MoeConfig(
    num_experts=E,
    experts_per_token=3,
    dim=F,
    num_shared_experts=2,
    score="sigmoid",
    weight_scale=2.5,
    num_groups=4,
    groups_per_token=2,
    balance=BiasConfig(),
)
QWEN = dataclasses.replace(MIXTRAL, experts_per_token=4, normalize=False)


def make(moe: MoeConfig):
    cfg = ModelConfig(embed_dim=D, mlp=moe, init_std=0.4, dtype="float32")
    module = MoeMlp(cfg, moe, rngs=nnx.Rngs(0))
    if module.router.choice_bias is not None:
        bias = np.random.default_rng(3).normal(0, 0.2, E).astype(np.float32)
        module.router.choice_bias.set_value(jnp.asarray(bias))
    x = np.random.default_rng(1).standard_normal((B, T, D)).astype(np.float32)
    return module, jnp.asarray(x)


def value(param) -> np.ndarray:
    return np.asarray(param.get_value(), np.float64)


def silu(x):
    return x / (1 + np.exp(-x))


def gated(x, gate, up, down):
    return (silu(x @ gate) * (x @ up)) @ down


def choose(moe: MoeConfig, module, x):
    """(expert, weight) of one token."""
    logits = x @ value(module.router.kernel)
    if moe.score == "softmax":
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
    else:
        scores = 1 / (1 + np.exp(-logits))
    ranked = scores.copy()
    if module.router.choice_bias is not None:
        ranked += value(module.router.choice_bias)
    if moe.num_groups > 1:
        groups = ranked.reshape(moe.num_groups, -1)
        best = np.sort(groups, axis=1)[:, -2:].sum(axis=1)
        out = np.argsort(best)[: -moe.groups_per_token]
        groups[out] = -np.inf
        ranked = groups.reshape(-1)
    chosen = np.argsort(-ranked)[: moe.experts_per_token]
    weights = scores[chosen]
    if moe.normalize:
        weights = weights / weights.sum()
    return list(zip(chosen, weights * moe.weight_scale, strict=True))


def oracle(moe: MoeConfig, module, x_BTD, capacity: int | None = None):
    x_BTD = np.asarray(x_BTD, np.float64)
    kernels = [value(w) for w in (module.gate, module.up, module.down)]
    out = np.zeros_like(x_BTD)
    load = np.zeros(E)
    for b in range(B):
        sent = [
            (e, w, t) for t in range(T) for e, w in choose(moe, module, x_BTD[b, t])
        ]
        for e in range(E):
            queue = sorted(((w, t) for f, w, t in sent if f == e), reverse=True)
            load[e] += len(queue)
            for w, t in queue[:capacity]:
                out[b, t] += w * gated(x_BTD[b, t], *(k[e] for k in kernels))
    if module.shared is not None:
        s = module.shared
        out += gated(x_BTD, value(s.gate), value(s.up), value(s.down))
    return out, load


@pytest.mark.parametrize(
    "moe", [MIXTRAL, DEEPSEEK, QWEN], ids=["mixtral", "deepseek", "qwen"]
)
def test_experts_equal_a_loop_over_tokens(moe):
    module, x = make(moe)
    got, routing = jax.jit(lambda x: module(x, None))(x)
    want, load = oracle(moe, module, x)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(routing.load_E, load)


@pytest.mark.parametrize("factor", [0.5, 1.0, 8.0])
def test_a_full_expert_takes_the_best_scored_tokens_of_each_row(factor):
    moe = dataclasses.replace(MIXTRAL, dispatch=CapacityConfig(factor=factor))
    module, x = make(moe)
    got, _ = jax.jit(lambda x: module(x, None))(x)
    capacity = min(T, int(np.ceil(factor * 2 * T / E)))
    want, _ = oracle(moe, module, x, capacity)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


def test_dropless_and_ample_capacity_have_the_same_gradients():
    def grads(dispatch):
        module, x = make(dataclasses.replace(MIXTRAL, **dispatch))
        graph, state = nnx.split(module)

        def loss(params, x):
            return jnp.sum(jnp.sin(nnx.merge(graph, params)(x, None)[0]))

        return jax.tree.leaves(
            jax.jit(jax.grad(loss, (0, 1)))(nnx.to_pure_dict(state), x)
        )

    ample = {"dispatch": CapacityConfig(factor=100.0)}
    for a, b in zip(grads({}), grads(ample), strict=True):
        assert float(jnp.abs(b).max()) > 0
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_balance_is_one_when_even_and_counts_no_padding():
    module, x = make(MIXTRAL)
    module.router.kernel.set_value(jnp.zeros((D, E)))
    _, routing = module(x, None)
    # Equal scores: probability is even whatever the ties chose.
    assert float(routing.balance) == pytest.approx(B * T)
    segments = jnp.asarray(np.arange(T) < 7, jnp.int32)[None].repeat(B, 0)
    _, routing = module(x, segments)
    assert float(routing.load_E.sum()) == B * 7 * 2
    assert float(routing.balance) == pytest.approx(B * 7)


def test_contradictions_are_refused():
    with pytest.raises(ConfigError, match="is more than the 2 experts a token can"):
        MoeConfig(num_experts=8, num_groups=4, experts_per_token=3)
    with pytest.raises(ConfigError, match="must divide num_experts"):
        MoeConfig(num_experts=8, num_groups=3)
    assert AuxLossConfig().weight > 0


def test_the_bias_can_have_a_loss_beside():
    def weight(moe):
        return balance_weight(ModelConfig(mlp=moe))

    assert weight(DEEPSEEK) == 0.0
    beside = BiasConfig(loss_weight=1e-4)
    assert weight(dataclasses.replace(DEEPSEEK, balance=beside)) == 1e-4
    assert weight(MIXTRAL) == AuxLossConfig().weight
