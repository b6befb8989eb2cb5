# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Declarations decide; falling back is loud; what cannot be done is an error."""

import dataclasses
import logging

import jax
import pytest

from podium.config import MeshConfig, ShardingConfig
from podium.config_model import AttentionConfig, ModelConfig
from podium.errors import ConfigError
from podium.models import attention_dispatch
from podium.models.attention_dispatch import (
    IMPLEMENTATIONS,
    Call,
    check_implementation,
    choose,
)
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules

TPU = Call(
    platform="tpu", dtype="bfloat16", head_dim=128, value_dim=128, num_tokens=2048
)
GPU = dataclasses.replace(TPU, platform="gpu")
CPU = dataclasses.replace(TPU, platform="cpu")


def shared(call: Call, *, devices: int = 8, num_tokens: int = 2048, **changes) -> Call:
    """A call in a ring, of rows in pieces of 128 tokens unless said otherwise."""
    return dataclasses.replace(
        call, ring_devices=devices, num_tokens=num_tokens, **changes
    )


PACKED_AND_CAPPED = {"has_segments": True, "has_soft_cap": True, "value_dim": 64}
EVERYTHING = {"has_segments": True, "has_window": True, "has_soft_cap": True}


@pytest.fixture(autouse=True)
def _fresh_choices():
    choose.cache_clear()


def test_auto_takes_the_fastest_of_each_platform():
    for call, name in ((TPU, "splash"), (GPU, "cudnn"), (CPU, "xla")):
        packed = dataclasses.replace(call, has_segments=True, has_window=True)
        assert choose(packed, "auto").name == name


@pytest.mark.parametrize(
    ("call", "feature"),
    [
        (dataclasses.replace(GPU, has_soft_cap=True), "a score soft-cap"),
        (dataclasses.replace(GPU, dtype="float32"), "dtype float32"),
        (
            dataclasses.replace(GPU, value_dim=64),
            "values of 64 channels under keys of 128",
        ),
        (dataclasses.replace(GPU, head_dim=256), "head_dim 256 (at most 128)"),
        (dataclasses.replace(GPU, head_dim=100), "head_dim 100 (not a multiple of 8)"),
        (
            dataclasses.replace(GPU, has_segments=True, num_tokens=17),
            "rows of 17 tokens (not a multiple of 2)",
        ),
        (shared(GPU), "rows that devices share in a ring"),
        (
            shared(TPU, has_window=True),
            "a sliding window in a ring (under context='all_to_all' it does)",
        ),
        (
            shared(TPU, num_tokens=1024),
            "pieces of 64 tokens of a row of 1024 in a ring of 8 devices (not a multiple "
            "of 128: use rows of a multiple of 2048)",
        ),
    ],
)
def test_falling_back_warns_once_and_names_the_feature(call, feature, caplog):
    with caplog.at_level(logging.WARNING):
        assert choose(call, "auto").name == "xla"
        assert choose(call, "auto").name == "xla"
    assert len(caplog.records) == 1
    assert f"does not support {feature}" in caplog.text


def test_choosing_the_fastest_is_quiet(caplog):
    with caplog.at_level(logging.WARNING):
        choose(CPU, "auto")
        choose(TPU, "auto")
        choose(dataclasses.replace(TPU, is_decode=True), "auto")
        assert choose(shared(TPU, **PACKED_AND_CAPPED), "auto").name == "splash"
    assert not caplog.records


@pytest.mark.parametrize(
    ("call", "name", "feature"),
    [
        (CPU, "splash", "platform 'cpu'"),
        (CPU, "cudnn", "platform 'cpu'"),
        (dataclasses.replace(GPU, has_soft_cap=True), "cudnn", "a score soft-cap"),
        (dataclasses.replace(TPU, is_decode=True), "splash", "decoding from a cache"),
        (shared(TPU, has_window=True), "splash", "a sliding window in a ring"),
        (shared(TPU, num_tokens=1024), "splash", "pieces of 64 tokens"),
        (shared(GPU), "cudnn", "rows that devices share in a ring"),
    ],
)
def test_an_implementation_asked_for_by_name_is_never_replaced(call, name, feature):
    with pytest.raises(ConfigError) as error:
        choose(call, name)
    assert f"implementation={name!r} does not support {feature}" in str(error.value)
    assert "Use 'auto' or 'xla'" in str(error.value)


def test_xla_does_everything_everywhere():
    for platform in ("cpu", "gpu", "tpu"):
        for dtype in ("float32", "bfloat16"):
            call = Call(
                platform=platform,
                dtype=dtype,
                head_dim=17,
                value_dim=19,
                num_tokens=33,
                is_decode=True,
                **EVERYTHING,
            )
            assert choose(call, "xla").name == "xla"


@pytest.mark.parametrize("context", ["ring", "all_to_all"])
def test_what_is_named_and_cannot_share_a_row_is_refused_before_compiling(context):
    mesh = MeshConfig(data=1, fsdp=1, context=8)
    rules = ShardingRules(ShardingConfig(), make_mesh(mesh, jax.devices()))
    attention = AttentionConfig(implementation="splash", context=context)
    # The devices are CPUs; a kernel for them too, so that only the ring is in the way.
    everywhere = dataclasses.replace(IMPLEMENTATIONS[0], platforms=("cpu",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            attention_dispatch, "IMPLEMENTATIONS", (everywhere, *IMPLEMENTATIONS[1:])
        )
        model = ModelConfig(attention=attention)
        check_implementation(model, 2048, rules)
        if context == "all_to_all":
            check_implementation(model, 1024, rules)
            return
        with pytest.raises(ConfigError, match="pieces of 64 tokens"):
            check_implementation(model, 1024, rules)


def test_every_declared_module_has_its_function():
    for implementation in IMPLEMENTATIONS:
        assert callable(implementation.load(CPU))
        if implementation.ring:
            assert callable(implementation.load(shared(CPU)))
