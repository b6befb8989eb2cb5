# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every config that names a slice: it can be laid out there, and its head says its plan."""

import json

import pytest

from benchmarks.shipped_plans import KEPT, ROOT, headline, shipped
from podium import cli
from podium.models.flops import param_count

PLANS = json.loads(KEPT.read_text())


@pytest.mark.parametrize("name", shipped())
def test_the_head_says_what_the_compiler_planned(name):
    head = (ROOT / "configs" / f"{name}.py").read_text()
    assert headline(PLANS[name]) in head
    assert PLANS[name]["fits"]


@pytest.mark.parametrize("name", shipped())
def test_the_plan_is_of_the_config_as_it_is(name):
    cfg, plan = cli.load_config(str(ROOT / "configs" / f"{name}.py")), PLANS[name]
    assert plan["tokens_per_step"] == cfg.global_batch_seqs * cfg.data.seq_len
    assert plan["params"] == param_count(cfg.model)
    assert plan["remat"] == cfg.model.remat
    assert plan["grad_accum_steps"] == cfg.grad_accum_steps
    sizes = {k: v for k, v in vars(cfg.mesh).items() if isinstance(v, int) and v > 1}
    assert plan["mesh"] == sizes


def test_the_hundred_billion_config_keeps_its_promises():
    plan = PLANS["dense_100b_v4_256"]
    assert plan["params"] >= 100e9
    assert plan["tokens_per_step"] >= 1e6
    assert plan["hbm_bytes_per_chip"] <= 0.9 * 32 * 2**30
