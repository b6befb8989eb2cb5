# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The layout never changes the result: every axis, pairs of axes, and features."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.families import FAMILIES
from podium import cli
from podium.config import (
    DataConfig,
    MeshConfig,
    OptimConfig,
    ShardingConfig,
    TrainConfig,
)
from podium.config_model import (
    BiasConfig,
    CapacityConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    PipelineConfig,
)
from podium.config_quantization import Fp8Config, Int8Config
from podium.errors import ConfigError
from podium.models import attention_ring
from profiling import parity
from profiling.shrink import parts_for, shrink

pytestmark = pytest.mark.usefixtures("standard_promotion")


def shallow(cfg: TrainConfig, num_layers: int = 2) -> TrainConfig:
    """Of few layers: on a CPU every token meets every expert, and a step takes seconds."""
    model = dataclasses.replace(cfg.model, num_layers=num_layers)
    return dataclasses.replace(cfg, model=model)


DENSE = shrink(TrainConfig())
GEMMA = shrink(TrainConfig(model=FAMILIES["gemma_2_2b"]()))
LATENT = shallow(shrink(TrainConfig(model=FAMILIES["deepseek_v3"]())), num_layers=3)
MIXTRAL = shallow(shrink(TrainConfig(model=ModelConfig(mlp=MoeConfig()))))
DEEPSEEK = MoeConfig(
    num_experts=16,
    num_shared_experts=1,
    experts_per_token=4,
    score="sigmoid",
    num_groups=4,
    groups_per_token=2,
    balance=BiasConfig(update_rate=0.01),
)
MODELS = {"dense": DENSE, "moe": MIXTRAL}


def with_experts(moe: MoeConfig, **changes) -> TrainConfig:
    return shallow(shrink(TrainConfig(model=ModelConfig(mlp=moe), **changes)))


def with_pipeline(pipeline: PipelineConfig) -> TrainConfig:
    return shrink(TrainConfig(model=ModelConfig(num_layers=8, pipeline=pipeline)))


CAPACITY = with_experts(MoeConfig(dispatch=CapacityConfig()))
CASES = {
    "int8_with_accumulation": shrink(
        TrainConfig(
            grad_accum_steps=2,
            global_batch_seqs=8,
            model=ModelConfig(num_layers=2, quantization=Int8Config(backward="all")),
        )
    ),
    "fp8_in_a_pipeline": shrink(
        TrainConfig(model=ModelConfig(quantization=Fp8Config()))
    ),
    "experts_with_capacity": CAPACITY,
    "experts_with_capacity_over_four": CAPACITY,
    "experts_with_capacity_in_split_rows": CAPACITY,
    "experts_with_capacity_on_repeated_rows": dataclasses.replace(
        CAPACITY, sharding=ShardingConfig(batch=("data", "fsdp"))
    ),
    "experts_balanced_by_bias": with_experts(DEEPSEEK),
    "experts_and_accumulation": with_experts(
        MoeConfig(), grad_accum_steps=2, global_batch_seqs=8
    ),
    "grad_accumulation": shrink(TrainConfig(grad_accum_steps=2, global_batch_seqs=8)),
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
    "all_to_all": dataclasses.replace(
        GEMMA,
        model=dataclasses.replace(
            GEMMA.model,
            attention=dataclasses.replace(GEMMA.model.attention, context="all_to_all"),
        ),
    ),
    "ring_of_eight_with_windows": GEMMA,
    "pipeline_that_goes_round": with_pipeline(PipelineConfig(repeats=2)),
    "pipeline_with_accumulation": shrink(
        TrainConfig(grad_accum_steps=2, global_batch_seqs=8)
    ),
    "pipeline_of_latent_attention_and_experts": LATENT,
    "latent_attention_and_a_dense_prefix": LATENT,
    "tensor_without_split_residuals": dataclasses.replace(
        DENSE, sharding=ShardingConfig(act_length=("context",))
    ),
}
ON = {
    "fp8_in_a_pipeline": "stage2.fsdp2",
    "experts_with_capacity": "fsdp2.expert2.tensor2",
    "experts_with_capacity_over_four": "data2.expert4",
    "experts_with_capacity_in_split_rows": "fsdp2.expert2.context2",
    "experts_with_capacity_on_repeated_rows": "fsdp2.expert2.tensor2",
    "experts_balanced_by_bias": "expert4.tensor2",
    "experts_and_accumulation": "data2.expert2.context2",
    "all_to_all": "context4.tensor2",
    "latent_attention_and_a_dense_prefix": "expert2.context2.tensor2",
    "ring_of_eight_with_windows": "context8",
    "zero_1": "data4.fsdp2",
    "pipeline_that_goes_round": "stage2.data2.fsdp2",
    "pipeline_with_accumulation": "stage2.context2",
    "pipeline_of_latent_attention_and_experts": "stage2.expert2",
    "uneven_vocabulary": "tensor8",
    "local_windows_and_post_norms": "fsdp2.context2.tensor2",
}


def check(cfg, meshes: str):
    for outcome in parity.compare(cfg, parity.parse_meshes(meshes), steps=2):
        assert outcome.skipped is None
        assert outcome.first is None, outcome


@pytest.fixture(scope="module")
def one_device(standard_promotion):
    """The same steps of each model on one device, run once."""
    (mesh,) = parity.parse_meshes("data1")
    return {
        name: parity.run(dataclasses.replace(cfg, mesh=mesh), 2)
        for name, cfg in MODELS.items()
    }


# One axis over two devices is left to the pairs.
MESHES = {
    parity.name_of(mesh): mesh
    for mesh in parity.axes_and_pairs()
    if parity.size_of(mesh) > 2
}
MATRIX = [("dense", name) for name in MESHES if "expert" not in name]
MATRIX += [("moe", name) for name in MESHES if "expert" in name]


@pytest.mark.parametrize(("model", "mesh"), MATRIX)
def test_a_model_on_every_axis_and_every_pair(one_device, model, mesh):
    got = parity.run(dataclasses.replace(MODELS[model], mesh=MESHES[mesh]), 2)
    assert parity.difference(one_device[model], got)[0] is None


@pytest.mark.parametrize("case", CASES)
def test_features_on_a_mesh(case):
    check(CASES[case], ON.get(case, "data2.fsdp2.tensor2"))


def test_a_broken_layout_is_caught_and_its_axis_named(monkeypatch):
    # Keys that never move on: every device of a ring reads its own again and again.
    monkeypatch.setattr(attention_ring._Ring, "to_next", lambda self, tree: tree)
    (outcome,) = parity.compare(DENSE, parity.parse_meshes("data2.context2"), steps=1)
    assert outcome.first
    assert (outcome.first.step, outcome.first.what) == (1, "loss")
    assert outcome.culprit == "context2"


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


def parity_main(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        cli.run(parity.main, ["--config=configs/base.py", *argv])
    shown = capsys.readouterr()
    return stop.value.code, shown.out, shown.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--meshes=tensor4"], "axis 'kv_heads' (6) does not"),
        (["--meshes=data2.tensor2", "--config.model.vocab_size=349"], "'vocab' (349)"),
        (["--meshes=data8", "--config.global_batch_seqs=4"], "global_batch_seqs (4)"),
        (["--meshes=context2", "--config.data.seq_len=62"], "data.seq_len (62)"),
    ],
)
def test_a_mesh_asked_for_that_cannot_be_built_is_one_line(
    capsys, monkeypatch, flags, message
):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # devices are there
    code, out, err = parity_main(capsys, *flags)
    assert code == 2
    assert err.startswith("ConfigError: --meshes: ")
    assert message in err
    assert not out


@pytest.mark.parametrize("vocab_size", [348, 350, 1024, 50257])
@pytest.mark.parametrize("num_devices", [1, 2, 3, 4, 6, 8, 16])
def test_what_divides_a_vocabulary_divides_the_shrunken_one(vocab_size, num_devices):
    cfg = TrainConfig(model=ModelConfig(vocab_size=vocab_size))
    small = shrink(cfg, parts_for([num_devices])).model.vocab_size
    assert (small % num_devices == 0) == (vocab_size % num_devices == 0)
    assert shrink(cfg).model.vocab_size < 100


def test_six_heads_are_compared_on_three_devices():
    model = ModelConfig(vocab_size=348, mlp=MlpConfig(dim=96))
    cfg = TrainConfig(data=DataConfig(seq_len=24), model=model)
    (mesh,) = parity.parse_meshes("tensor3")
    assert parity.why_not(cfg, mesh) is None
    assert parity.why_not(shrink(cfg, parts_for([3])), mesh) is None


def test_a_mesh_that_does_not_fit_is_skipped_with_the_reason():
    cfg = dataclasses.replace(DENSE, global_batch_seqs=4, grad_accum_steps=1)
    (outcome,) = parity.compare(cfg, parity.parse_meshes("data8"), steps=1)
    assert "do not divide over the 8 devices" in outcome.skipped
