# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.config import MeshConfig, TrainConfig
from podium.config_model import ModelConfig, PipelineConfig
from podium.errors import ConfigError, ShardingError
from podium.models.bind import abstract, init_params
from podium.models.pipeline import Schedule, schedule
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from podium.trainer.setup import setup
from profiling.shrink import shrink


@given(stages=st.integers(1, 5), groups=st.integers(1, 4), repeats=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_microbatch_passes_every_stage_in_order(stages, groups, repeats):
    plan = Schedule(stages, stages * groups, repeats)
    # when[microbatch]: (repeat, stage) in the order of time
    when = {m: [] for m in range(plan.microbatches)}
    busy = 0
    for time in range(plan.num_times):
        for stage in range(stages):
            begun = time - stage
            if 0 <= begun < plan.microbatches * repeats:
                microbatch, repeat = plan.at(begun)
                when[microbatch].append((time, repeat, stage))
                busy += 1
    for passes in when.values():
        assert [(r, s) for _, r, s in passes] == [
            (r, s) for r in range(repeats) for s in range(stages)
        ]
        # Without a wait: what one stage ends, the next one takes.
        times = [time for time, _, _ in passes]
        assert times == list(range(times[0], times[0] + stages * repeats))
    idle = 1 - busy / (plan.num_times * stages)
    assert idle == pytest.approx((stages - 1) / plan.num_times)


def rules_of(stage=2, fsdp=4):
    cfg = TrainConfig()
    mesh = make_mesh(MeshConfig(stage=stage, fsdp=fsdp), jax.devices())
    return ShardingRules(cfg.sharding, mesh)


def test_microbatches_are_four_a_stage_or_as_many_as_divide():
    rules = rules_of()
    assert schedule(PipelineConfig(), rules, 64).microbatches == 8
    assert schedule(PipelineConfig(), rules, 24).microbatches == 6
    assert schedule(PipelineConfig(), rules, 8).microbatches == 2
    assert schedule(PipelineConfig(microbatches=4), rules, 64).microbatches == 4
    assert schedule(PipelineConfig(), rules_of(stage=1, fsdp=8), 8) is None


@pytest.mark.parametrize(
    ("asked", "rows", "says"),
    [
        (3, 64, r"microbatches \(3\) must be a multiple of mesh.stage \(2\); use 4"),
        (4, 24, "24 rows do not divide into 4 microbatches over 4 devices .* Use 32"),
        (None, 12, "12 rows do not divide into 2 microbatches over 4 .* Use 16 rows"),
    ],
)
def test_rows_that_do_not_divide_are_named(asked, rows, says):
    with pytest.raises(ConfigError, match=says):
        schedule(PipelineConfig(microbatches=asked), rules_of(), rows)


def test_layers_that_do_not_divide_over_the_stages_are_named():
    cfg = dataclasses.replace(shrink(TrainConfig()), mesh=MeshConfig(stage=2))
    model = dataclasses.replace(cfg.model, num_layers=5)
    with pytest.raises(
        ShardingError, match=r"'layers' \(5\) does not divide by mesh axis"
    ):
        setup(dataclasses.replace(cfg, model=model), jax.devices())


def test_repeats_that_do_not_divide_the_layers_are_named():
    with pytest.raises(ConfigError, match=r"pipeline.repeats \(4\) must divide the 6"):
        ModelConfig(num_layers=6, pipeline=PipelineConfig(repeats=4))


def test_repeats_change_the_shape_of_the_weights_and_not_their_values():
    cfg = shrink(TrainConfig()).model
    runs = dataclasses.replace(cfg, pipeline=PipelineConfig(repeats=2))
    want = init_params(cfg, jax.random.key(0))["stack"]
    got = init_params(runs, jax.random.key(0))["stack"]
    for one, two in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        assert two.shape[:2] == (2, one.shape[0] // 2)
        np.testing.assert_array_equal(two.reshape(one.shape), one)
    block = abstract(runs).axes["stack"]["block_0"]
    assert block["mlp"]["down"] == ("repeats", "layers", "mlp", "embed")


def test_every_stage_holds_its_own_layers_only():
    cfg = dataclasses.replace(shrink(TrainConfig()), mesh=MeshConfig(stage=8, fsdp=1))
    parts = setup(cfg, jax.devices())
    stack = parts.layout.shapes.params["stack"]
    shardings = parts.layout.shardings.params["stack"]
    for leaf, sharding in zip(
        jax.tree.leaves(stack), jax.tree.leaves(shardings), strict=True
    ):
        assert sharding.shard_shape(leaf.shape)[0] == leaf.shape[0] // 8


@pytest.mark.usefixtures("standard_promotion")
def test_only_activations_travel_between_stages():
    """A step's collective permutes are of microbatches, its gathers not of layers."""
    cfg = shrink(TrainConfig())
    cfg = dataclasses.replace(cfg, mesh=MeshConfig(stage=8, fsdp=1))
    hlo = setup(cfg, jax.devices()).compile_step().as_text()
    assert "collective-permute" in hlo
    D, F = cfg.model.embed_dim, cfg.model.mlp.dim
    gathers = [line for line in hlo.splitlines() if " all-gather(" in line]
    assert not [line for line in gathers if f"{D},{F}]" in line or f"{F},{D}]" in line]


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("remat", ["full", "none"])
def test_the_weights_of_a_run_are_not_kept_for_the_backward_pass(remat):
    """They were once: memory of weights times microbatches."""

    def temporary_bytes(repeats: int) -> int:
        cfg = shrink(TrainConfig())
        model = dataclasses.replace(
            cfg.model,
            embed_dim=256,
            remat=remat,
            pipeline=PipelineConfig(repeats=repeats, microbatches=8),
        )
        cfg = dataclasses.replace(cfg, model=model, mesh=MeshConfig(stage=2, fsdp=1))
        compiled = setup(cfg, jax.devices()[:2]).compile_step()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(2) < 1.5 * temporary_bytes(1)
