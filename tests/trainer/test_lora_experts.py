# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters on experts: begun, trained, merged; on one device and on meshes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config_lora import DoraConfig, LoraConfig
from podium.config_model import CapacityConfig, MoeConfig
from podium.models import adapters, bind
from podium.trainer.setup import setup
from podium.trainer.state import weights
from podium.trainer.step import batch_sharding, make_eval_step
from profiling.parity import parse_meshes
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")

MOE = MoeConfig(num_experts=4, experts_per_token=2, dim=16, num_shared_experts=1)
HOW = {
    "lora, dropless": (LoraConfig(rank=4, targets=("mlp/*",)), {}),
    "dora, capacity": (
        DoraConfig(rank=4, targets=("mlp/*",), base_dtype="int8"),
        {"dispatch": CapacityConfig(factor=1.0)},
    ),
}


def config(how, mesh=tiny.ONE_DEVICE):
    lora, changes = HOW[how]
    model = dataclasses.replace(tiny.MODEL, mlp=dataclasses.replace(MOE, **changes))
    return tiny.config(mesh, model=model, lora=lora, init_from="base")


def train(how, mesh):
    """Four steps on one batch."""
    parts, state = tiny.start(config(how, mesh))
    batch = jax.device_put(tiny.batch(0), batch_sharding(parts.rules))
    losses = []
    for _ in range(4):
        state, metrics = parts.train_step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses, state


def eval_loss(cfg, parts, whole, batch):
    step = make_eval_step(cfg, parts.model, parts.rules, None)
    sums = step(whole, batch, np.zeros_like(batch.targets))
    return float(sums.cross_entropy_G[0] / sums.tokens_G[0])


def test_adapters_begin_as_the_base_learn_and_merge_into_it():
    how = "dora, capacity"
    cfg = config(how)
    parts, first = tiny.start(cfg)
    batch = jax.device_put(tiny.batch(0), batch_sharding(parts.rules))
    losses, state = train(how, tiny.ONE_DEVICE)
    before = eval_loss(cfg, parts, first.frozen, batch)
    assert losses[0] == pytest.approx(before, rel=1e-5)
    mlp = state.params["stack"]["block_0"]["mlp"]
    assert set(mlp) == {"gate", "up", "down", "shared"}  # not the router
    assert mlp["down"]["a"].shape == (2, 4, 16, 4)  # layers, experts, F, r
    assert mlp["down"]["b"].shape == (2, 4, 4, 32)
    for name in ("gate", "up", "down"):  # every expert learns
        assert float(jnp.abs(mlp[name]["b"]).max((0, 2, 3)).min()) > 1e-3
    whole = weights(cfg, state)
    after = eval_loss(cfg, parts, whole, batch)
    assert after < before - 0.01
    merged = adapters.merge(bind.abstract(cfg.model), whole)
    assert after == pytest.approx(eval_loss(cfg, parts, merged, batch), rel=1e-4)
    jax.tree.map(np.testing.assert_array_equal, first.frozen, state.frozen)


def test_the_mesh_does_not_change_the_result():
    how = "lora, dropless"
    (sizes,) = parse_meshes("expert2.tensor2")
    want, want_state = train(how, tiny.ONE_DEVICE)
    got, state = train(how, sizes)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
        jax.device_get(want_state.params),
        jax.device_get(state.params),
    )


def test_adapters_lie_as_the_experts_that_they_change():
    (mesh,) = parse_meshes("fsdp2.expert2.tensor2")
    mlp = setup(config("dora, capacity", mesh)).layout.shardings.params
    mlp = mlp["stack"]["block_0"]["mlp"]
    assert tuple(mlp["up"]["a"].spec) == (None, "expert", "fsdp", None)
    assert tuple(mlp["up"]["b"].spec) == (None, "expert", None, "tensor")
    assert tuple(mlp["up"]["magnitude"].spec) == (None, "expert", "tensor")
    assert tuple(mlp["down"]["a"].spec) == (None, "expert", "tensor", None)
    assert tuple(mlp["down"]["b"].spec) == (None, "expert", None, "fsdp")
