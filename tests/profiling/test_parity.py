# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The layout never changes the result: every axis, pairs of axes, and features."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.families import FAMILIES
from podium.config import (
    DataConfig,
    MeshConfig,
    OptimConfig,
    ShardingConfig,
    TrainConfig,
)
from podium.errors import ConfigError
from profiling import parity
from profiling.shrink import shrink

pytestmark = pytest.mark.usefixtures("standard_promotion")

DENSE = shrink(TrainConfig())
GEMMA = shrink(TrainConfig(model=FAMILIES["gemma_2_2b"]()))
CASES = {
    "grad_accumulation": dataclasses.replace(
        shrink(TrainConfig(grad_accum_steps=2, global_batch_seqs=8))
    ),
    "uneven_vocabulary": shrink(
        TrainConfig(
            data=DataConfig(seq_len=1024),
            model=dataclasses.replace(FAMILIES["gpt2_124m"](), vocab_multiple=8),
        )
    ),
    "local_windows_and_post_norms": GEMMA,
    "zero_1": dataclasses.replace(
        DENSE,
        sharding=ShardingConfig(opt_embed=("fsdp", "context", "data")),
        optim=OptimConfig(ema_decay=0.9, schedule=DENSE.optim.schedule),
    ),
    "tensor_without_split_residuals": dataclasses.replace(
        DENSE, sharding=ShardingConfig(act_length=("context",))
    ),
}
ON = {
    "zero_1": "data4.fsdp2",
    "uneven_vocabulary": "tensor8",
    "local_windows_and_post_norms": "fsdp2.context2.tensor2",
}


def check(cfg, meshes: str):
    for outcome in parity.compare(cfg, parity.parse_meshes(meshes), steps=2):
        assert outcome.skipped is None
        assert outcome.first is None, outcome


@pytest.fixture(scope="module")
def one_device(standard_promotion):
    return parity.run(
        dataclasses.replace(DENSE, mesh=parity.parse_meshes("data1")[0]), 2
    )


@pytest.mark.parametrize("mesh", parity.axes_and_pairs(), ids=parity.name_of)
def test_a_dense_model_on_every_axis_and_every_pair(one_device, mesh):
    got = parity.run(dataclasses.replace(DENSE, mesh=mesh), 2)
    assert parity.difference(one_device, got)[0] is None


@pytest.mark.parametrize("case", CASES)
def test_features_on_a_mesh(case):
    check(CASES[case], ON.get(case, "data2.fsdp2.tensor2"))


def test_zero_1_splits_the_moments_over_the_replicas():
    from podium.trainer.setup import setup

    parts = setup(dataclasses.replace(CASES["zero_1"], mesh=MeshConfig(data=4, fsdp=2)))
    weights = jax.tree.leaves(parts.layout.shardings.params)
    moments = jax.tree.leaves(parts.layout.shardings.opt_state)
    assert not any("data" in str(s.spec) for s in weights)
    assert sum("data" in str(s.spec) for s in moments) >= 2 * len(weights)


def test_a_difference_names_the_tensor_the_step_and_the_dim():
    good = {"embed/table": np.ones((4, 8)), "head": np.ones((8, 4))}
    bad = {**good, "head": good["head"] + np.eye(8, 4) * (np.arange(8) == 2)[:, None]}
    axes = {"embed/table": ("vocab", "embed"), "head": ("embed", "vocab")}
    want = parity.Trace([1.0, 1.0], [good, good], [good, good], axes)
    got = parity.Trace([1.0, 1.0], [good, bad], [good, good], axes)
    first, errors = parity.difference(want, got)
    assert first
    assert (first.step, first.what, first.tensor) == (2, "gradient", "head")
    assert first.dim == "embed"
    assert errors["weight"] == 0.0
    assert errors["gradient"] == pytest.approx(first.error)


def test_a_result_that_is_not_a_number_is_a_difference():
    want = parity.Trace([1.0], [{}], [{}], {})
    first, _ = parity.difference(want, parity.Trace([float("nan")], [{}], [{}], {}))
    assert first
    assert first.what == "loss"


def test_meshes_are_read_and_written_alike():
    meshes = parity.parse_meshes("data2.tensor4,fsdp8")
    assert [parity.name_of(m) for m in meshes] == ["data2.tensor4", "fsdp8"]
    with pytest.raises(ConfigError, match=r"'tensr4' in 'data2.tensr4' is not"):
        parity.parse_meshes("data2.tensr4")


def test_a_mesh_that_does_not_fit_is_skipped_with_the_reason():
    cfg = dataclasses.replace(DENSE, global_batch_seqs=4, grad_accum_steps=1)
    (outcome,) = parity.compare(cfg, parity.parse_meshes("data8"), steps=1)
    assert "do not divide over the 8 devices" in outcome.skipped
