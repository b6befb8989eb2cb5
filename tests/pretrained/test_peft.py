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

from podium import convert
from podium.errors import ConfigError
from podium.pretrained.to_hf import plan_export
from podium.pretrained.to_peft import export_peft, plan_peft
from tests.pretrained.folders import answers, exported, imported
from tests.pretrained.peft_folders import TARGETS, adapted

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / "golden" / "peft.json").read_text()
)["adapters"]


def test_the_golden_file_has_every_family_and_kind():
    assert set(GOLDEN) == {f"{n}.{kind}" for n in TARGETS for kind in ("lora", "dora")}


# Every family once and both kinds; the others of the file took minutes and said no more.
@pytest.mark.parametrize("name", [n for i, n in enumerate(GOLDEN) if i % 4 in (0, 3)])
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
    got, _ = answers(run, 1)  # merged on the device
    np.testing.assert_allclose(got[-len(logits) :], logits, rtol=0, atol=1e-4)


def test_the_merged_export_computes_the_same(tmp_path):
    """Merged on the host share by share, and read as any model."""
    run = adapted("llama_3_8b", "dora", tmp_path, base_dtype="int8")
    want, _ = answers(run, 1)
    exported(run, tmp_path / "out")
    again = tmp_path / "again"
    flags = ["--from=hf", f"--input={tmp_path / 'out'}", f"--output={again}"]
    assert convert.main(flags) == 0
    got, _ = answers(again, 1)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
    plain, _ = answers(tmp_path / "run", 1)
    assert np.abs(plain - want).max() > 0.1


def test_adapters_sit_on_adapters(tmp_path):
    """Their fingerprint covers both; on the host it comes out as on devices."""
    from podium.config_lora import LoraConfig
    from tests.pretrained.peft_folders import write_adapters

    first = adapted("llama_3_8b", "dora", tmp_path)
    second = tmp_path / "second"
    write_adapters(second, first, LoraConfig(rank=2), "second")
    want, _ = answers(second, 1)
    got, _ = answers(imported_again(second, tmp_path), 1)
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


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_adapters_on_shared_experts_are_refused(kind, tmp_path):
    """peft 0.21.2 gives the logits of the model without them, or an error of its own."""
    run = adapted("deepseek_v2_lite", kind, tmp_path, targets=("mlp/shared/*",))
    with pytest.raises(ConfigError, match=r"shared_experts\.\w+, which peft mistakes"):
        plan_peft(plan_export(run, 0))
