# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The sharding report through its command line."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest
from rich.console import Console

from podium import cli, sharding_report, sharding_tables
from podium.errors import ConfigError

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
    cfg.model.num_layers = 3
    cfg.model.embed_dim = 512
    cfg.model.attention.num_heads = 4
    cfg.model.attention.num_kv_heads = 4
    cfg.model.attention.head_dim = 128
    cfg.model.mlp.dim = 1024
    cfg.model.remat = "full"
    return cfg
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "config.py"
    path.write_text(CONFIG)
    return f"--config={path}"


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # devices are there

    def main(*argv):
        with jax.numpy_dtype_promotion("standard"):
            code = sharding_report.main(argv)
        return code, capsys.readouterr().out

    return main


def test_json_holds_tensors_activations_and_collectives(config, run):
    code, out = run(config, "--devices=8", "--config.mesh.tensor=2", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["compiled_for"] == "8 virtual CPU devices"
    (h,) = (a for a in found["activations"] if a["part"] == "GatedMlp")
    assert h["spec"] == ["fsdp", None, "tensor"]
    assert h["bytes"] == 8 // 4 * 256 * 1024 // 2 * 2  # bfloat16
    assert h["forward"] == h["recompute"] == 3
    gathers = [
        row
        for row in found["collectives"]
        if (row["part"], row["kind"]) == ("GatedMlp", "all-gather")
    ]
    assert {row["mesh_axes"] for row in gathers} >= {"fsdp"}
    assert all(row["overlap"] == "exposed" for row in found["collectives"])
    assert all(row["secs"] is None for row in found["collectives"])
    # remat=full keeps the input of every layer, nothing else
    (kept,) = found["kept_for_backward"]
    assert kept["bytes"] == 3 * 2 * 256 * 512 // 2 * 2
    sizes = found["bytes_per_device"]
    assert sizes.pop("total") == sum(sizes.values())


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_the_terminal(config, run, width, monkeypatch):
    monkeypatch.setattr(
        sharding_tables, "console", lambda: Console(width=width, force_terminal=False)
    )
    _, out = run(config, "--devices=8", "--config.mesh.tensor=2")
    assert max(map(len, out.splitlines())) <= width
    for heading in ("axis:split by", "GatedMlp h_BTF", "all-gather", "synchronous"):
        assert heading in out


def test_without_compiling_activations_are_still_there(config, run):
    _, out = run(config, "--devices=8", "--no_compile", "--json")
    found = json.loads(out)
    assert found["activations"]
    assert "collectives" not in found


@pytest.mark.parametrize("flags", [(), ("--devices=8", "--topology=v4-8")])
def test_devices_or_a_topology_is_named_and_not_both(config, flags, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(sharding_report.main, [config, *flags])
    assert stop.value.code == 2
    assert "one of --devices=8" in capsys.readouterr().err


def test_a_topology_without_the_compiler_says_what_to_install(config, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--extra tpu"):
        sharding_report.main([config, "--topology=v5e-8"])


@needs_compiler
@pytest.mark.parametrize(
    ("topology", "mesh", "over_dcn"),
    [("v5e-8", "fsdp=8", set()), ("v5e-4x2", "data=2", {"data"})],
)
def test_the_tpu_compiler_says_what_is_overlapped(config, topology, mesh, over_dcn):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "podium.sharding_report", config, "--json"),
            *(f"--topology={topology}", f"--config.mesh.{mesh}"),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": os.path.dirname(config.partition("=")[2])},
    )
    found = json.loads(done.stdout)
    rows = found["collectives"]
    assert found["compiled_for"] == topology
    assert {row["mesh_axes"] for row in rows if row["network"] == "DCN"} == over_dcn
    assert {row["mesh_axes"] for row in rows if row["network"] == "ICI"} <= {
        *("fsdp", "data", "data+fsdp")
    }
    for row in rows:
        assert row["secs"] >= 0
        if row["overlap"] == "overlapped":
            assert row["is_async"]
            assert row["between_secs"] > 0
            assert row["exposed_secs"] <= 0.01 * row["secs"]
    assert any(row["count"] % 3 == 0 for row in rows)  # once a layer
    assert any(row["overlap"] != "exposed" for row in rows)
