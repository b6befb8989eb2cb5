# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MeshConfig,
    MuonConfig,
    OptimConfig,
    ScheduleConfig,
    ShardingConfig,
)
from podium.errors import ConfigError, ShardingError
from podium.trainer.setup import setup
from podium.trainer.step import batch_sharding
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")
OPTIMIZERS = [AdamWConfig(), AdafactorConfig(), LionConfig(), MuonConfig()]


@pytest.fixture(scope="module")
def one_device(standard_promotion):
    return tiny.train(tiny.config(), steps=3)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (1, 4, 2), (2, 2, 2)])
def test_loss_and_weights_are_the_same_on_every_mesh(one_device, shape):
    data, fsdp, tensor = shape
    want, want_state = one_device
    got, state = tiny.train(
        tiny.config(MeshConfig(data=data, fsdp=fsdp, tensor=tensor)), 3
    )
    for w, g in zip(want, got, strict=True):
        assert g == pytest.approx(w, rel=1e-5)
    jax.tree.map(
        # Adam divides by the root of tiny second moments: rounding grows there.
        lambda w, g: np.testing.assert_allclose(g, w, rtol=1e-3, atol=2e-4),
        want_state.params,
        state.params,
    )


def test_accumulated_gradients_equal_the_big_batch(one_device):
    want, _ = one_device
    got, _ = tiny.train(tiny.config(grad_accum_steps=4), 3)
    for w, g in zip(want, got, strict=True):
        assert g == pytest.approx(w, rel=1e-5)


def test_accumulation_on_a_mesh_equals_the_big_batch(one_device):
    want, _ = one_device
    got, _ = tiny.train(tiny.config(tiny.EIGHT, grad_accum_steps=2), 3)
    for w, g in zip(want, got, strict=True):
        assert g == pytest.approx(w, rel=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
def test_every_optimizer_learns_one_batch(optimizer):
    rate = 2e-3 if optimizer.kind == "lion" else 1e-2
    cfg = tiny.config(
        optim=OptimConfig(
            optimizer=optimizer,
            peak_lr=rate,
            schedule=ScheduleConfig(kind="constant", warmup_steps=0),
        )
    )
    parts, state = tiny.start(cfg)
    one = jax.device_put(tiny.batch(0), batch_sharding(parts.rules))
    losses = []
    for _ in range(40):
        state, metrics = parts.train_step(state, one)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
def test_optimizer_moments_lie_as_their_parameter_does(optimizer):
    optim = dataclasses.replace(tiny.config().optim, optimizer=optimizer)
    parts = setup(tiny.config(tiny.EIGHT, optim=optim))
    kernel = parts.layout.shardings.params["stack"]["block_0"]["mlp"]["up"]
    assert kernel.spec == jax.P(None, "fsdp", "tensor")
    shape = parts.layout.shapes.params["stack"]["block_0"]["mlp"]["up"].shape
    found = [
        sharding.spec
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(parts.layout.shapes.opt_state),
            jax.tree.leaves(parts.layout.shardings.opt_state),
            strict=True,
        )
        if "up" in jax.tree_util.keystr(path) and leaf.shape == shape
    ]
    assert all(spec == kernel.spec for spec in found)
    assert found or optimizer.kind == "adafactor"


def test_weight_decay_leaves_norms_alone():
    def weights(decay):
        optim = OptimConfig(
            peak_lr=1e-2,
            weight_decay=decay,
            schedule=ScheduleConfig(kind="constant", warmup_steps=0),
        )
        return tiny.train(tiny.config(optim=optim), 1)[1].params

    without, with_decay = weights(0.0), weights(0.5)
    block, decayed = without["stack"]["block_0"], with_decay["stack"]["block_0"]
    np.testing.assert_array_equal(
        block["mlp_norm"]["scale"], decayed["mlp_norm"]["scale"]
    )
    start = tiny.start(tiny.config())[1].params["stack"]["block_0"]["mlp"]["up"]
    np.testing.assert_allclose(
        decayed["mlp"]["up"], block["mlp"]["up"] - 1e-2 * 0.5 * start, atol=1e-6
    )


def test_twenty_steps_compile_once():
    parts, state = tiny.start(tiny.config(tiny.EIGHT))
    for i in range(20):
        rows = jax.device_put(tiny.batch(i), batch_sharding(parts.rules))
        state, _ = parts.train_step(state, rows)
    assert parts.train_step._cache_size() == 1  # pyright: ignore


def test_the_old_state_is_donated():
    parts, state = tiny.start(tiny.config())
    rows = jax.device_put(tiny.batch(0), batch_sharding(parts.rules))
    parts.train_step(state, rows)
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


def test_parameters_are_created_sharded():
    _, state = tiny.start(tiny.config(MeshConfig(data=1, fsdp=8, tensor=1)))
    table = state.params["embed"]["table"]
    assert table.sharding.shard_shape(table.shape) == (64, 4)


def test_averaged_weights_follow_the_weights():
    optim = dataclasses.replace(tiny.config().optim, ema_decay=0.75)
    parts, state = tiny.start(tiny.config(optim=optim))
    want = jax.tree.map(np.asarray, state.params)
    for i in range(3):
        rows = jax.device_put(tiny.batch(i), batch_sharding(parts.rules))
        state, _ = parts.train_step(state, rows)
        want = jax.tree.map(
            lambda e, p: 0.75 * e + 0.25 * np.asarray(p), want, state.params
        )
    jax.tree.map(
        lambda w, g: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-7),
        want,
        state.ema,
    )


def test_clipping_bounds_the_update_but_reports_the_true_norm():
    loose, _ = tiny.train(tiny.config(), 1)
    optim = dataclasses.replace(tiny.config().optim, clip_norm=1e-3)
    tight, _ = tiny.train(tiny.config(optim=optim), 1)
    assert tight[0]["grad_norm"] == pytest.approx(loose[0]["grad_norm"])


def test_a_batch_that_does_not_divide_is_an_error_with_the_fix():
    cfg = tiny.config(MeshConfig(data=1, fsdp=8, tensor=1), global_batch_seqs=12)
    with pytest.raises(
        ConfigError, match=r"12 rows do not divide .* 8 .*batch_seqs=16"
    ):
        setup(cfg)


def test_attention_that_cannot_run_on_the_mesh_is_an_error():
    attention = dataclasses.replace(tiny.MODEL.attention, implementation="splash")
    model = dataclasses.replace(tiny.MODEL, attention=attention)
    with pytest.raises(ConfigError, match=r"'splash' does not support platform 'cpu'"):
        setup(tiny.config(tiny.EIGHT, model=model))


def test_a_mesh_axis_that_splits_no_work_is_an_error():
    with pytest.raises(ShardingError, match=r"'fsdp' .2. splits no work"):
        setup(tiny.config(tiny.EIGHT, sharding=ShardingConfig(batch=("data",))))


def test_the_step_runs_in_bfloat16_with_float32_state():
    model = dataclasses.replace(tiny.MODEL, dtype="bfloat16")
    want, _ = tiny.train(tiny.config(), 3)
    got, state = tiny.train(tiny.config(model=model), 3)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    for w, g in zip(want, got, strict=True):
        assert g["loss"] == pytest.approx(w["loss"], rel=2e-2)
