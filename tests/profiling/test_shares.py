# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Closed forms of what one device holds."""

import pytest

from podium.config import TrainConfig
from podium.config_mesh import MESH_AXES
from podium.config_model import CapacityConfig, DroplessConfig, ModelConfig, MoeConfig
from profiling.shares import Shares


@pytest.mark.parametrize(
    ("dispatch", "times"),
    [
        (DroplessConfig(), 4),  # tokens of the group's four devices are gathered
        (CapacityConfig(factor=1.25), 1.25),  # slots are exchanged
        (CapacityConfig(factor=100.0), 16 / 2),  # no more slots than tokens
    ],
)
def test_rows_that_reach_the_experts_of_a_device(dispatch, times):
    moe = MoeConfig(num_experts=16, experts_per_token=2, dispatch=dispatch)
    cfg = TrainConfig(model=ModelConfig(mlp=moe), global_batch_seqs=8)
    shares = Shares(cfg, dict.fromkeys(MESH_AXES, 1) | {"expert": 4})
    tokens = 2 * cfg.data.seq_len
    assert shares.sent == tokens * 2 * times
