# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The planner is asked before a slice is paid for."""

import importlib.util

import pytest

from launch import plans, vertex
from podium import cli
from podium.errors import ConfigError
from profiling import plan_cache

CONFIG = "configs/quickstart.py"
FITS = {
    "fits": True,
    "hbm_bytes_per_chip": 2**30,
    "hbm_capacity_bytes": 15.75 * 2**30,
    "step_secs": 0.0123,
    "tokens_per_sec_per_chip": 12_345.6,
    "mfu_bound": 0.456,
}
DOES_NOT = {
    "fits": False,
    "hbm_bytes_per_chip": 20 * 2**30,
    "hbm_capacity_bytes": 15.75 * 2**30,
    "proposal": {"change": "--config.model.remat=full"},
}
# libtpu takes 700 MB, so it is an extra; .ci/run installs it for these tests.
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="extra tpu is not installed"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def dry_run(*flags):
    launch = ["--config.launch.project=my-project", "--config.launch.bucket=gs://my-b"]
    return vertex.main([f"--config={CONFIG}", "--dry_run", *launch, *flags])


def test_a_cached_plan_is_told(capsys):
    plan_cache.save(cli.load_config(CONFIG), "v5e-8", FITS)
    assert dry_run("--slice=v5e-8") == 0
    assert (
        "plan      fits, 1.00 GiB of 15.75 GiB a chip; a step of at least 12.30 ms, at "
        "most 12,346 tokens/s a chip, MFU 46%\n" in capsys.readouterr().err
    )


def test_a_run_that_cannot_fit_is_refused_with_what_does(capsys):
    plan_cache.save(cli.load_config(CONFIG), "v5e-8", DOES_NOT)
    with pytest.raises(ConfigError) as error:
        dry_run("--slice=v5e-8", "--config.num_steps=3000")  # no step depends on it
    assert str(error.value) == (
        "this run does not fit v5e-8: a chip needs 20.00 GiB of 15.75 GiB; this fits: "
        "--config.model.remat=full"
    )
    assert not capsys.readouterr().out


@pytest.mark.parametrize("other", ["--slice=v5e-4", "--config.model.num_layers=5"])
def test_a_plan_of_another_slice_or_model_says_nothing(other, capsys):
    plan_cache.save(cli.load_config(CONFIG), "v5e-8", DOES_NOT)
    flags = [other] if "slice" in other else ["--slice=v5e-8", other]
    assert dry_run(*flags) == 0
    assert "plan      none was made" in capsys.readouterr().err


def test_a_plan_of_other_sources_says_nothing(monkeypatch, tmp_path):
    cfg = cli.load_config(CONFIG)
    plan_cache.save(cfg, "v5e-8", DOES_NOT)
    assert plan_cache.load(cfg, "v5e-8") == DOES_NOT
    monkeypatch.setattr(plan_cache, "__file__", str(tmp_path / "profiling" / "x.py"))
    assert plan_cache.load(cfg, "v5e-8") is None


def test_a_damaged_plan_is_none():
    cfg = cli.load_config(CONFIG)
    for text in ("{", "[]", "{}", '{"fits": 1}'):
        plan_cache.save(cfg, "v5e-8", FITS)
        plan_cache._path(cfg, "v5e-8").write_text(text)
        assert plan_cache.load(cfg, "v5e-8") is None


def test_a_planner_that_fails_is_no_answer(capfd):
    flags = [f"--config={CONFIG}", "--config.model.num_layers=0"]
    with pytest.raises(ConfigError, match=r"gave no answer \(exit code 2"):
        plans.consult(cli.load_config(CONFIG), "v5e-8", flags, is_made=True)


@needs_compiler
def test_a_plan_is_made_where_it_is_asked_for_and_found_again(capfd):
    small = ["--config.model.num_layers=1", "--config.data.seq_len=128"]
    assert dry_run("--slice=v5e-8", "--plan", *small) == 0
    assert "plan      fits, " in capfd.readouterr().err
    assert dry_run("--slice=v5e-8", *small) == 0
    assert "plan      fits, " in capfd.readouterr().err


@needs_compiler
def test_a_run_that_the_compiler_refuses_is_refused(capfd):
    huge = [
        "--config.model.embed_dim=8192",
        "--config.model.attention.num_heads=64",
        "--config.model.attention.num_kv_heads=64",
        "--config.model.mlp.dim=32768",
        "--config.model.num_layers=64",
        "--config.optim.optimizer.kind=adamw",
    ]
    with pytest.raises(ConfigError, match="this run does not fit v5e-1: a chip needs"):
        dry_run("--slice=v5e-1", "--plan", *huge)
