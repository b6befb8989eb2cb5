# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every family in and out again, to the bit; and out of a model that never came in."""

import json

import jax
import numpy as np
import pytest

from podium.checkpoint import restore_params
from podium.pretrained.configs import comparable, read_config, write_config
from podium.pretrained.from_hf import import_hf, read_hf
from podium.pretrained.safetensors_files import INDEX, read_folder
from tests.golden import hf_weights
from tests.pretrained.folders import (
    GOLDEN,
    check_equal,
    exported,
    imported,
    make_folder,
)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_model_comes_out_as_it_came_in(name, tmp_path):
    last = list(GOLDEN[name]["tensors"])[-1]
    run = imported(
        name,
        tmp_path,
        dtype="BF16",
        others={last: "F32"},
        max_shard_bytes=20_000,
        config={"dtype": "bfloat16"},
    )
    out = exported(run, tmp_path / "out", max_shard_bytes=20_000)
    check_equal(tmp_path / "hf", out)
    came, went = (
        json.loads((d / "config.json").read_text()) for d in (tmp_path / "hf", out)
    )
    assert came == went
    assert len(list(out.glob("*.safetensors"))) > 1
    placed = json.loads((out / INDEX).read_text())["weight_map"]
    assert {k: s.path.name for k, s in read_folder(out).items()} == placed


def test_float16_comes_out_as_it_came_in(tmp_path):
    run = imported("llama_3_8b", tmp_path, dtype="F16")
    check_equal(tmp_path / "hf", exported(run, tmp_path / "out"))


@pytest.mark.parametrize("name", ["gpt2_124m", "llama_2_7b"])
def test_names_without_the_head_s_prefix_come_out_so(name, tmp_path):
    prefix = "transformer." if name == "gpt2_124m" else "model."
    run = imported(name, tmp_path, rename=lambda key: key.removeprefix(prefix))
    out = exported(run, tmp_path / "out")
    check_equal(tmp_path / "hf", out)
    want = make_folder(name, tmp_path / "whole")
    values, wanted = read_folder(out), read_folder(want)
    for key, tensor in values.items():
        full = key if key == "lm_head.weight" else prefix + key
        assert tensor.read().tobytes() == wanted[full].read().tobytes()


def test_buffers_and_a_second_copy_of_a_tied_head_are_left_out(tmp_path):
    table = "transformer.wte.weight"
    shape = tuple(GOLDEN["gpt2_124m"]["tensors"][table])
    extra = {
        "lm_head.weight": hf_weights.weight("gpt2_124m", table, shape),
        "transformer.h.0.attn.bias": np.ones((1, 1, 9, 9), np.float32),
    }
    run = imported("gpt2_124m", tmp_path, extra=extra)
    out = exported(run, tmp_path / "out")
    check_equal(out, make_folder("gpt2_124m", tmp_path / "plain"))


def test_layers_that_predict_further_tokens_are_left_out_and_named(tmp_path):
    key = "model.layers.3.eh_proj.weight"
    folder = make_folder(
        "deepseek_v3",
        tmp_path / "hf",
        config={"num_nextn_predict_layers": 1},
        extra={key: np.ones((2, 2), np.float32)},
    )
    found = read_hf(folder)
    assert [key in note for note in found.notes] == [True]
    import_hf(found, tmp_path / "run")
    out = exported(tmp_path / "run", tmp_path / "out")
    check_equal(out, make_folder("deepseek_v3", tmp_path / "plain"))
    tree = json.loads((out / "config.json").read_text())
    assert tree["num_nextn_predict_layers"] == 0


def test_the_export_of_another_dtype_rounds_to_nearest(tmp_path):
    run = imported("qwen_3_0_6b", tmp_path)
    out = exported(run, tmp_path / "out", dtype="bfloat16")
    came, went = read_folder(tmp_path / "hf"), read_folder(out)
    for key, tensor in went.items():
        assert tensor.dtype == "BF16"
        assert (
            tensor.read().tobytes()
            == came[key].read().astype(tensor.read().dtype).tobytes()
        )
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", GOLDEN)
def test_a_config_is_said_in_the_fields_of_its_family_and_read_back(name):
    _, cfg = read_config(GOLDEN[name]["config"])
    tree = write_config(cfg, 512)
    assert tree["model_type"] == GOLDEN[name]["config"]["model_type"]
    _, again = read_config(tree)
    assert comparable(again) == comparable(cfg)


def test_an_imported_run_gives_its_weights_to_whoever_restores_them(tmp_path):
    run = imported("llama_3_8b", tmp_path)
    cfg, params = restore_params(run)
    assert cfg.model.dtype == "float32"
    stored = read_folder(tmp_path / "hf")
    want = stored["model.layers.1.mlp.up_proj.weight"].read().T
    np.testing.assert_array_equal(params["stack"]["block_0"]["mlp"]["up"][1], want)
    assert jax.tree.leaves(params)[0].dtype == np.float32
