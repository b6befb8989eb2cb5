# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""`optim.state_memory="host"`: the same run, its moments in the host's memory."""

import dataclasses

import jax
import numpy as np
import pytest

from podium.checkpoint import Checkpoints
from podium.config import (
    AdafactorConfig,
    AdamWConfig,
    CheckpointConfig,
    LionConfig,
    MeshConfig,
    MuonConfig,
    OptimConfig,
    TrainConfig,
)
from podium.config_model import AttentionConfig, PipelineConfig
from podium.errors import ConfigError
from podium.trainer.setup import setup
from podium.trainer.step import batch_sharding
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")
STEPS = 3


@pytest.fixture(autouse=True)
def _kernels_of_a_run(monkeypatch):
    """Those that tests are compiled with (conftest.py) round otherwise where XLA fused
    otherwise, and here it is to be the same to the bit."""
    options = {"xla_cpu_use_fusion_emitters": True}
    monkeypatch.setattr("podium.trainer.setup.compiler_options", lambda mesh: options)


def config(memory, optimizer=None, mesh=tiny.ONE_DEVICE, **model) -> TrainConfig:
    cfg = tiny.config(mesh)
    optim = dataclasses.replace(
        cfg.optim, optimizer=optimizer or AdamWConfig(), state_memory=memory
    )
    return dataclasses.replace(
        cfg, optim=optim, model=dataclasses.replace(cfg.model, **model)
    )


def moments(parts, tree) -> list:
    """Leaves of an optimizer state that are of a kernel's size."""
    params = jax.tree_util.tree_leaves_with_path(parts.layout.shapes.params)
    sizes = {s.shape for path, s in params if path[-1].key not in ("scale", "bias")}
    shapes = jax.tree.leaves(parts.layout.shapes.opt_state)
    leaves = jax.tree.leaves(tree)
    return [x for s, x in zip(shapes, leaves, strict=True) if s.shape in sizes]


def assert_same(got, want, **tolerance):
    (got_rows, got_state), (want_rows, want_state) = got, want
    pairs = zip(jax.tree.leaves(got_state), jax.tree.leaves(want_state), strict=True)
    for g, w in pairs:
        np.testing.assert_allclose(g, w, **tolerance)
    for g, w in zip(got_rows, want_rows, strict=True):
        assert g == pytest.approx(w, rel=tolerance["rtol"], abs=0)


LOCAL = AttentionConfig(
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    pattern=("local", "global"),
    window_tokens=8,
)


@pytest.mark.parametrize(
    ("optimizer", "mesh", "model"),
    [
        (AdamWConfig(), tiny.ONE_DEVICE, {}),
        (AdamWConfig(), tiny.EIGHT, {"num_layers": 5, "attention": LOCAL}),
        (LionConfig(), tiny.EIGHT, {}),
    ],
    ids=["adamw", "adamw with a tail on a mesh", "lion on a mesh"],
)
def test_the_weights_and_moments_are_those_of_a_run_on_the_device_bit_for_bit(
    optimizer, mesh, model
):
    want = tiny.train(config("device", optimizer, mesh, **model), STEPS)
    got = tiny.train(config("host", optimizer, mesh, **model), STEPS)
    assert_same(got, want, rtol=0, atol=0)


def test_muon_orthogonalises_the_same_matrices_layer_by_layer():
    want = tiny.train(config("device", MuonConfig()), STEPS)
    got = tiny.train(config("host", MuonConfig()), STEPS)
    assert_same(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_layers_of_a_pipeline_are_updated_too(repeats):
    model = {
        "num_layers": 4,
        "pipeline": PipelineConfig(repeats=repeats, microbatches=4),
    }
    mesh = MeshConfig(stage=2, fsdp=2)
    want = tiny.train(config("device", mesh=mesh, **model), STEPS)
    got = tiny.train(config("host", mesh=mesh, **model), STEPS)
    assert_same(got, want, rtol=0, atol=0)


def test_moments_are_in_the_hosts_memory_before_and_after_a_step():
    parts, state = tiny.start(config("host", mesh=tiny.EIGHT))
    kinds = {"before": moments(parts, state.opt_state)}
    rows = jax.device_put(tiny.batch(0), batch_sharding(parts.rules))
    state, _ = parts.train_step(state, rows)
    kinds["after"] = moments(parts, state.opt_state)
    for found in kinds.values():
        assert len(found) == 2 * 8  # 7 kernels of a layer, the table
        assert {x.sharding.memory_kind for x in found} == {"pinned_host"}
    assert {x.sharding.memory_kind for x in jax.tree.leaves(state.params)} == {"device"}


@pytest.mark.parametrize(("saved", "resumed"), [("device", "host"), ("host", "device")])
def test_a_run_resumes_with_its_moments_in_another_memory(tmp_path, saved, resumed):
    want_rows, want_state = tiny.train(config(saved), 4)
    _, state = tiny.train(config(saved), 2)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    checkpoints.save(state, step=2, cfg=config(saved), fingerprints=[], eval_loss=None)
    checkpoints.wait()
    cfg = config(resumed)
    parts = setup(cfg, jax.devices()[:1])
    state = checkpoints.restore(2, parts.layout)
    checkpoints.close()
    kind = {"device": "device", "host": "pinned_host"}[resumed]
    found = moments(parts, state.opt_state)
    assert {x.sharding.memory_kind for x in found} == {kind}
    step, rows = parts.compile_step(), []
    for i in (2, 3):
        one = jax.device_put(tiny.batch(i), batch_sharding(parts.rules))
        state, metrics = step(state, one)
        rows.append({k: float(v) for k, v in metrics.items() if v.ndim == 0})
    assert_same((rows, state), (want_rows[2:], want_state), rtol=0, atol=0)


def test_adafactor_has_nothing_to_keep_on_the_host():
    with pytest.raises(ConfigError, match="take no room; use 'device'"):
        OptimConfig(optimizer=AdafactorConfig(), state_memory="host")
