# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The planner through its command line, with the real TPU compiler on a tiny model."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from podium.aot import compile as aot
from podium.aot.chips import parse_slice
from podium.config import TrainConfig
from podium.errors import ConfigError
from profiling.plan import _price, _verification

# libtpu takes 700 MB, so it is an extra; .ci/run installs it for these tests.
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="extra tpu is not installed"
)
CONFIG = """
from podium.config_dict import to_config_dict
from podium.config import TrainConfig

def get_config():
    cfg = to_config_dict(TrainConfig())
    cfg.num_steps = 1000
    cfg.global_batch_seqs = 8
    cfg.data.seq_len = 256
    cfg.model.vocab_size = 512
    cfg.model.num_layers = {layers}
    cfg.model.embed_dim = 512
    cfg.model.attention.num_heads = 4
    cfg.model.attention.num_kv_heads = 4
    cfg.model.attention.head_dim = 128
    cfg.model.mlp.dim = {mlp_dim}
    cfg.model.remat = "full"
    return cfg
"""


def plan(tmp_path, *args, layers=3, mlp_dim=1024, **env) -> subprocess.CompletedProcess:
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(layers=layers, mlp_dim=mlp_dim))
    return subprocess.run(
        [sys.executable, "-m", "profiling.plan", f"--config={config}", *args],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), **env},
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan")
    done = plan(path, "--topology=v5e-4", "--tokens=1e9", "--json")
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


@needs_compiler
def test_a_plan_says_whether_it_fits_how_fast_and_what_it_costs(small):
    _, found = small
    assert found["fits"]
    assert 0 < found["hbm_bytes_per_chip"] < found["hbm_capacity_bytes"]
    assert sum(found["hbm_bytes"].values()) == found["hbm_bytes_per_chip"]
    assert 0 < found["mfu_bound"] < 1
    assert found["step_secs"] > 0
    tokens = 8 * 256 / 4 / found["step_secs"]
    assert found["tokens_per_sec_per_chip"] == pytest.approx(tokens)
    hours = 1e9 / (8 * 256) * found["step_secs"] / 3600
    assert found["usd_per_billion_tokens"] == pytest.approx(hours * 4 * 1.2)


@needs_compiler
def test_another_environment_with_the_same_packages_does_not_compile_again(
    small, tmp_path
):
    """uv run --isolated makes a new one each time; Pallas kernels know their files."""
    path, _ = small
    packages = tmp_path / "site-packages"
    packages.symlink_to(Path(jax.__file__).parents[1])
    done = plan(path, "--topology=v5e-4", PYTHONPATH=f"{packages}:.")
    assert done.returncode == 0
    assert "compiling" not in done.stderr


@needs_compiler
def test_moments_and_block_inputs_on_the_host_are_not_on_the_device(small):
    path, on_device = small
    args = ("--topology=v5e-4", "--tokens=1e9", "--json")
    flags = (
        "--config.optim.state_memory=host",
        "--config.model.remat=block_input:host",
    )
    done = plan(path, *args, *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    moments = on_device["hbm_bytes"]["optimizer"]
    vectors = found["hbm_bytes"]["optimizer"]  # and counts
    assert vectors < moments / 100
    assert found["host_bytes"]["optimizer"] == moments - vectors
    assert found["hbm_bytes"]["activations"] == 0
    inputs = 3 * 2 * 256 * 512 * 2  # layers, rows, tokens, width, bytes
    assert on_device["hbm_bytes"]["activations"] == inputs
    assert found["host_bytes"]["activations"] == pytest.approx(inputs, rel=0.02)
    # The largest stack's moments take longest; of it two layers of three are there.
    assert found["hbm_bytes_per_chip"] < on_device["hbm_bytes_per_chip"] - moments / 4
    assert found["host_copy_bytes"] >= 2 * (moments + inputs)
    text = plan(path, *args[:2], *flags).stdout
    assert "On the host: " in text


@needs_compiler
def test_the_executed_operations_are_those_of_the_layers_with_their_trips(small):
    """Forward, backward twice that, and again forward under remat=full but for what
    nobody needs; XLA's own count holds one layer only."""
    _, found = small
    assert 1.0 < found["flops_executed"] / found["flops_useful"] < 4 / 3


@needs_compiler
def test_collectives_come_with_kind_bytes_network_count_and_what_is_exposed(small):
    _, found = small
    kinds = {row["kind"] for row in found["collectives"]}
    assert "all-gather" in kinds
    assert {row["group_size"] for row in found["collectives"]} <= {1, 2, 4}
    assert not any(row["crosses_slices"] for row in found["collectives"])
    assert any(row["count"] == 3 for row in found["collectives"])  # once a layer


@needs_compiler
def test_no_rounded_copy_of_all_layers_is_kept_through_the_step(small):
    """The loops over the 3 layers carry float32 weights, and block inputs of 256 tokens."""
    path, _ = small
    hlo = path / "step.hlo"
    done = plan(path, "--topology=v5e-4", "--json", f"--hlo={hlo}")
    assert done.returncode == 0, done.stderr
    loops = re.findall(r"= \((.*)\) while\(", hlo.read_text())
    carried = {
        shape for loop in loops for shape in re.findall(r"bf16\[3,[\d,]*\]", loop)
    }
    assert carried == {"bf16[3,2,256,512]"}


@needs_compiler
def test_a_second_plan_is_read_from_the_cache(small):
    path, first = small
    before = {p: p.stat().st_mtime_ns for p in path.glob("podium/plans/*.gz")}
    assert before
    again = plan(path, "--topology=v5e-4", "--tokens=1e9", "--json")
    assert json.loads(again.stdout) == first
    assert before == {p: p.stat().st_mtime_ns for p in path.glob("podium/plans/*.gz")}


@needs_compiler
def test_a_step_that_does_not_fit_exits_with_1_and_says_by_how_much(tmp_path):
    args = ("--topology=v5e-1", "--json", "--no_proposal")
    done = plan(tmp_path, *args, layers=2, mlp_dim=1 << 20)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert not found["fits"]
    assert found["hbm_bytes_per_chip"] > found["hbm_capacity_bytes"]


@needs_compiler
def test_a_search_compiles_the_best_and_prints_what_to_paste(small):
    path, first = small
    png = path / "layouts.png"
    args = ("--topology=v5e-4", "--search", "--compile=1", f"--plot={png}")
    done = plan(path, *args)
    assert done.returncode == 0, done.stderr
    assert "cfg.mesh.fsdp = " in done.stdout or "cfg.mesh.data = " in done.stdout
    assert png.read_bytes().startswith(b"\x89PNG")
    found = json.loads(plan(path, *args[:3], "--json").stdout)
    (best,) = found["compiled"]
    assert best["fits"]
    # the estimate is within a factor of two even of so small a step
    assert (
        0.5 < best["estimated"]["hbm_bytes_per_chip"] / best["hbm_bytes_per_chip"] < 2
    )
    assert best["step_secs"] <= first["step_secs"] * 1.001
    every = found["candidates"]
    assert len(every) == found["num_candidates"] >= found["num_feasible"] > 0
    assert all(row["fits"] or row["reason"] for row in every)
    assert sum(row["candidates"] for row in found["infeasible"]) == sum(
        not row["fits"] for row in every
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--topology=v5e-4", "--plot=x.png"], "belong to --search"),
        ([], "--topology is missing"),
        (["--topology=v9-4"], "unknown TPU"),
        (["--topology=v4-9"], "Nearest: v4-8"),
        (
            ["--topology=v5e-4", "--tokens=-5"],
            "expected a number above 0, such as 2e12",
        ),
        (["--topology=v5e-4", "--usd_per_chip_hour=-1"], "above 0, such as 1.20"),
        (
            ["--topology=v5e-4", "--hlo=/no/x.hlo"],
            "--hlo=/no/x.hlo: there is no folder",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exits_with_2(tmp_path, args, expected):
    done = plan(tmp_path, *args)
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--extra tpu"):
        aot.without_tpus()


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("Used 42.90G of 30.75G hbm. Exceeded hbm capacity by 12.1G", 42.9),
        ("memory required for HLO temporaries (512.00G) exceeds available HBM", 512.0),
        ("something else", 0.0),
    ],
)
def test_the_compilers_refusal_says_how_much_was_needed(message, gib):
    assert aot.needed_bytes(message) == pytest.approx(gib * 2**30, rel=1e-6)


def test_checks_of_the_hardware_are_in_the_price():
    cfg = TrainConfig()
    assert _verification(cfg) == 0.0
    faults = dataclasses.replace(cfg.faults, verify_every_steps=100)
    share = _verification(dataclasses.replace(cfg, faults=faults))
    assert share == 0.02  # two steps of every hundred
    where, step = parse_slice("v5e-4"), {"tokens_per_step": 100, "step_secs": 1.0}
    plain = _price({**step, "verification_share": 0.0}, where, 1e6)
    checked = _price({**step, "verification_share": share}, where, 1e6)
    assert plain["days_for_budget"] == pytest.approx(1e4 / 86400)
    for name in ("days_for_budget", "usd_for_budget", "usd_per_billion_tokens"):
        assert checked[name] == pytest.approx(1.02 * plain[name])
