# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows that TPUs share in a ring, by the real compiler: no scores lie in memory."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="extra tpu is not installed"
)
# A device has 1536 tokens of a row, in pieces of 768; nothing else is as wide.
CONFIG = """
from podium.config_dict import to_config_dict
from podium.config import TrainConfig

def get_config():
    cfg = to_config_dict(TrainConfig())
    cfg.num_steps = 1000
    cfg.global_batch_seqs = 1
    cfg.data.seq_len = 6144
    cfg.mesh.fsdp = 1
    cfg.mesh.context = 4
    cfg.model.vocab_size = 512
    cfg.model.num_layers = 2
    cfg.model.embed_dim = 512
    cfg.model.attention.num_heads = 4
    cfg.model.attention.num_kv_heads = 2
    cfg.model.attention.head_dim = 128
    cfg.model.mlp.dim = 1024
    cfg.model.remat = "attention_out"
    return cfg
"""
SCORES = re.compile(r"\[(?:\d+,)*(?:1536|768),(?:1536|768)\]")


def plan(tmp_path, *args) -> subprocess.CompletedProcess:
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    command = (sys.executable, "-m", "profiling.plan", f"--config={config}")
    return subprocess.run(
        [*command, "--topology=v5e-4", "--json", *args],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )


def test_a_ring_is_made_of_kernels_while_keys_travel(tmp_path):
    hlo = tmp_path / "step.hlo"
    done = plan(tmp_path, f"--hlo={hlo}")
    assert done.returncode == 0, done.stderr
    text = hlo.read_text()
    for kernel in ("fwd", "dq", "dkv"):
        assert re.search(rf"splash_mha_{kernel}_segmented\S* = .*tpu_custom_call", text)
    assert not SCORES.search(text)
    collectives = json.loads(done.stdout)["collectives"]
    hops = [c for c in collectives if c["kind"] == "collective-permute"]
    assert {hop["is_async"] for hop in hops} == {True}
    wide = [hop for hop in hops if hop["num_bytes"] > 6144 * 4]  # beside segments
    assert len(wide) > 10
    assert all(hop["between_secs"] > 0 for hop in wide)


def test_a_kernel_that_a_ring_cannot_use_is_refused_before_compiling(tmp_path):
    args = ("--config.data.seq_len=6152", "--config.model.attention.implementation")
    done = plan(tmp_path, args[0], f"{args[1]}=splash")
    assert done.returncode == 2
    assert "does not support pieces of 769 tokens" in done.stderr
    assert "compiling" not in done.stderr
