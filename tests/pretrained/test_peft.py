# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters out to peft, and merged, against what peft computes with the same files.

The golden file is written by tests/golden/make_peft.py.
"""

import hashlib
import json
import pathlib

import numpy as np
import pytest
import safetensors.numpy

from podium import convert
from podium.errors import ConfigError
from podium.pretrained.to_hf import plan_export
from podium.pretrained.to_peft import export_peft, plan_peft
from tests.pretrained.folders import exported, imported, logits_of
from tests.pretrained.peft_folders import TARGETS, adapted

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / "golden" / "peft.json").read_text()
)["adapters"]


def test_the_golden_file_has_every_family_and_kind():
    assert set(GOLDEN) == set(TARGETS)


# Every family once and both kinds; the others of the file took minutes and said no more.
@pytest.mark.parametrize(
    "name",
    [
        "deepseek_v2_lite.dora",
        "deepseek_v3.lora",
        "gemma_2_2b.lora",
        "gpt2_124m.dora",
        "llama_3_8b.lora",
        "mixtral_8x7b.lora",
    ],
)
def test_logits_are_those_of_peft_on_the_files_that_are_exported(name, tmp_path):
    want, (family, kind) = GOLDEN[name], name.split(".")
    run = adapted(family, kind, tmp_path)
    out = tmp_path / "adapter"
    export_peft(plan_peft(plan_export(run, 0)), out, "F32")
    weights = (out / "adapter_model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == want["sha256"]
    config = json.loads((out / "adapter_config.json").read_text())
    want["config"]["base_model_name_or_path"] = config["base_model_name_or_path"]
    assert config == want["config"]
    logits = np.array(want["logits"])
    got = logits_of(run)  # merged on the device
    np.testing.assert_allclose(got[-len(logits) :], logits, rtol=0, atol=1e-4)


def test_the_merged_export_computes_the_same(tmp_path):
    """Merged on the host share by share, and read as any model."""
    run = adapted("llama_3_8b", "dora", tmp_path, base_dtype="int8")
    want = logits_of(run)
    exported(run, tmp_path / "out")
    again = tmp_path / "again"
    flags = ["--from=hf", f"--input={tmp_path / 'out'}", f"--output={again}"]
    assert convert.main(flags) == 0
    got = logits_of(again)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
    plain = logits_of(tmp_path / "run")
    assert np.abs(plain - want).max() > 0.1


def test_adapters_sit_on_adapters(tmp_path):
    """Their fingerprint covers both; on the host it comes out as on devices."""
    from podium.config_lora import LoraConfig
    from tests.pretrained.peft_folders import write_adapters

    first = adapted("llama_3_8b", "dora", tmp_path)
    second = tmp_path / "second"
    write_adapters(second, first, LoraConfig(rank=2), "second")
    want = logits_of(second)
    got = logits_of(imported_again(second, tmp_path))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def imported_again(run: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    exported(run, tmp_path / "merged")
    flags = [f"--input={tmp_path / 'merged'}", f"--output={tmp_path / 'in'}"]
    assert convert.main(["--from=hf", *flags]) == 0
    return tmp_path / "in"


def test_a_run_without_adapters_has_none_for_peft(tmp_path):
    run = imported("llama_2_7b", tmp_path / "full")
    with pytest.raises(ConfigError, match="no adapters; export it with --to=hf"):
        plan_peft(plan_export(run, 0))


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        (
            "deepseek_v2_lite",
            "mlp/shared/*",
            r"layers\.1\.mlp\.shared_experts\.down_proj",
        ),
        ("mixtral_8x7b", "mlp/up", r"layers\.0\.mlp\.experts\.gate_up_proj"),
    ],
)
def test_peft_has_no_dora_of_parameters(name, target, said, tmp_path):
    run = adapted(name, "dora", tmp_path, targets=(target,))
    with pytest.raises(ConfigError, match=said + ".* lora.kind is 'dora'"):
        plan_peft(plan_export(run, 0))


def test_half_of_a_parameter_of_experts_has_its_own_rank(tmp_path):
    """Up alone: of `gate_up_proj` the first rows stay as they are."""
    run = adapted("qwen_3_30b_a3b", "lora", tmp_path)
    export_peft(plan_peft(plan_export(run, 0)), tmp_path / "out", "F32")
    weights = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    want = GOLDEN["qwen_3_30b_a3b.lora"]
    assert hashlib.sha256(weights).hexdigest() == want["sha256"]
    arrays = safetensors.numpy.load(weights)
    at = "base_model.model.model.layers.1.mlp.experts.lora_{}.weight"
    a, b = (arrays[at.format(name)] for name in "AB")
    assert a.shape == (4 * 3, 24)
    assert b.shape == (2 * 40, 3 * 4)
    assert not b[:40].any()
    assert b[40:].all()
    logits = np.array(want["logits"])
    np.testing.assert_allclose(logits_of(run)[-len(logits) :], logits, atol=1e-4)
