# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny model learns a batch by heart with eight-bit matmuls as it does without."""

import dataclasses

import jax
import pytest

from podium.config_quantization import Fp8Config, Int8Config
from podium.trainer.step import batch_sharding
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")


def losses(quantization, steps: int = 30, **model) -> list[float]:
    cfg = tiny.config()
    changed = dataclasses.replace(cfg.model, quantization=quantization, **model)
    parts, state = tiny.start(dataclasses.replace(cfg, model=changed))
    batch = jax.device_put(tiny.batch(0), batch_sharding(parts.rules))
    found = []
    for _ in range(steps):
        state, metrics = parts.train_step(state, batch)
        found.append(float(metrics["loss"]))
    return found


@pytest.fixture(scope="module")
def floats(standard_promotion):
    found = losses(None)
    assert found[-1] < 0.8 * found[0]
    return found


@pytest.mark.parametrize(
    "quantization",
    [Int8Config(), Int8Config(backward="all"), Fp8Config(), Fp8Config(backward="all")],
    ids=lambda q: f"{q.kind}_{q.backward}",
)
def test_it_learns_as_without(floats, quantization):
    found = losses(quantization)
    assert found != floats
    assert found[-1] == pytest.approx(floats[-1], rel=0.05)


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_what_is_computed_again_is_rounded_alike(remat):
    want = losses(Int8Config(), steps=3)
    assert losses(Int8Config(), steps=3, remat=remat) == pytest.approx(want, rel=1e-3)
