# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import numpy as np
import pytest

from podium.config_width import MupConfig
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")

BASE = MupConfig(base_embed_dim=32, base_mlp_dim=64, base_num_heads=4, base_head_dim=8)
HALF = MupConfig(base_embed_dim=16)


def trained(mup: MupConfig | None, mesh=tiny.ONE_DEVICE, memory="device"):
    cfg = tiny.config(mesh)
    cfg = dataclasses.replace(
        cfg,
        model=dataclasses.replace(cfg.model, width_transfer=mup),
        optim=dataclasses.replace(cfg.optim, state_memory=memory),
    )
    rows, state = tiny.train(cfg, 3)
    return [row["loss"] for row in rows], jax.device_get(state.params)


@pytest.fixture(scope="module")
def of_half(standard_promotion):
    return trained(HALF)


def test_at_the_base_width_training_is_the_same_to_the_bit(of_half):
    (want, params), (got, same) = trained(None), trained(BASE)
    assert got == want
    jax.tree.map(np.testing.assert_array_equal, same, params)
    assert of_half[0] != want  # it was not left out altogether


@pytest.mark.parametrize("changes", [{"mesh": tiny.EIGHT}, {"memory": "host"}])
def test_layout_and_memory_do_not_change_what_width_does(of_half, changes):
    want, params = of_half
    got, same = trained(HALF, **changes)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
        same,
        params,
    )
