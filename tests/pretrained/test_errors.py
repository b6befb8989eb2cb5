# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What does not fit is named, in one line, and nothing is written."""

import json

import numpy as np
import pytest

from podium import cli, convert, sample
from podium.errors import ConfigError, DataError
from podium.pretrained.configs import read_config, write_config
from podium.pretrained.from_hf import read_hf
from tests.models.families_tiny import tiny
from tests.pretrained.folders import GOLDEN, imported, make_folder

UP = "model.layers.1.mlp.up_proj.weight"


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.run(convert.main, argv)
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    return shown


def test_a_missing_tensor_is_named(tmp_path):
    folder = make_folder("llama_3_8b", tmp_path / "hf", tensors={UP: None})
    with pytest.raises(
        DataError, match=rf"{UP} \[40, 24\] is missing; the config says"
    ):
        read_hf(folder)


def test_a_left_over_tensor_is_named(tmp_path):
    extra = {"model.layers.0.self_attn.sinks": np.zeros((4,), np.float32)}
    folder = make_folder("llama_3_8b", tmp_path / "hf", extra=extra)
    with pytest.raises(DataError, match=r"self_attn\.sinks \[4\] has no place"):
        read_hf(folder)


def test_a_layer_more_than_the_config_has_is_named(tmp_path):
    folder = make_folder("qwen_3_8b", tmp_path / "hf", config={"num_hidden_layers": 2})
    folder_config = json.loads((folder / "config.json").read_text())
    folder_config["layer_types"] = folder_config["layer_types"][:2]
    (folder / "config.json").write_text(json.dumps(folder_config))
    with pytest.raises(DataError, match=r"model\.layers\.2\.\S+ .* \(and 10 more\)"):
        read_hf(folder)


def test_a_tensor_of_another_shape_is_named(tmp_path):
    folder = make_folder("mistral_7b", tmp_path / "hf", tensors={UP: [24, 40]})
    with pytest.raises(DataError, match=rf"{UP} has shape \[24, 40\]; .* \[40, 24\]"):
        read_hf(folder)


def test_a_tensor_of_another_type_is_named(tmp_path):
    folder = make_folder("mistral_7b", tmp_path / "hf")
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header[UP]["dtype"] = "I32"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    with pytest.raises(
        DataError, match=rf"{UP} has type I32; supported: BF16, F16, F32"
    ):
        read_hf(folder)


def test_a_head_that_is_not_the_embedding_though_tied_is_an_error(tmp_path):
    shape = tuple(GOLDEN["qwen_2_0_5b"]["tensors"]["model.embed_tokens.weight"])
    extra = {"lm_head.weight": np.zeros(shape, np.float32)}
    folder = make_folder("qwen_2_0_5b", tmp_path / "hf", extra=extra)
    with pytest.raises(DataError, match=r"lm_head\.weight is not model\.embed_tokens"):
        read_hf(folder)


@pytest.mark.parametrize("damage", ["cut", "header", "index"])
def test_damaged_files_are_named(damage, tmp_path):
    folder = make_folder("llama_2_7b", tmp_path / "hf", max_shard_bytes=20_000)
    first = min(folder.glob("*.safetensors"))
    if damage == "cut":
        first.write_bytes(first.read_bytes()[:-5])
    elif damage == "header":
        first.write_bytes(b"\xff" * 20)
    else:
        first.unlink()
    with pytest.raises(DataError, match=first.name):
        read_hf(folder)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama_3_8b", {"hidden_act": "relu"}, "'hidden_act' is 'relu'.*'silu'"),
        (
            "gpt2_124m",
            {"activation_function": "gelu"},
            "'activation_function' is 'gelu'",
        ),
        ("gemma_2_2b", {"hidden_activation": "gelu"}, "'hidden_activation' is 'gelu'"),
        (
            "llama_3_8b",
            {
                "rope_parameters": None,
                "rope_scaling": {"type": "dynamic", "factor": 2.0},
            },
            "rope_scaling: 'rope_type' is 'dynamic'.*'yarn'",
        ),
        (
            "qwen_3_8b",
            {"rope_parameters": YARN | {"attention_factor": 3.0}},
            "'attention_factor' is 3.0",
        ),
        (
            "qwen_3_8b",
            {"rope_parameters": YARN | {"long_factor": [1.0]}},
            r"rope_parameters: the field 'long_factor' \(\[1.0\]\) is not supported",
        ),
        (
            "qwen_3_8b",  # as model cards advise, where transformers 5 wrote the file
            {"rope_scaling": YARN},
            "'rope_scaling' is .*yarn.* and 'rope_parameters' is .*default.*; put what",
        ),
        ("llama_2_7b", {"partial_rotary_factor": 0.5}, "'partial_rotary_factor'"),
        ("llama_2_7b", {"attn_sinks": 4}, r"the field 'attn_sinks' \(4\)"),
        ("deepseek_v3", {"rope_interleave": False}, "'rope_interleave' is False"),
        ("deepseek_v2_lite", {"topk_method": "group_limited_greedy"}, "'topk_method'"),
        ("qwen_3_30b_a3b", {"mlp_only_layers": [0]}, r"'mlp_only_layers' is \[0\]"),
        ("gemma_3_1b", {"use_bidirectional_attention": True}, "'use_bidirectional_"),
        ("llama_2_7b", {"model_type": "bert"}, "'model_type' is 'bert'.*llama"),
        ("llama_2_7b", {"num_hidden_layers": "3"}, "num_layers is '3'"),
        (
            "qwen_2_7b",
            {"layer_types": ["chunked_attention"] * 3},
            "'chunked_attention'",
        ),
        (
            "deepseek_v3",
            {"quantization_config": {"quant_method": "fp8"}},
            "weights are fp8; they are imported from float32",
        ),
    ],
)
def test_a_config_that_we_do_not_support_is_named(name, change, message):
    with pytest.raises(ConfigError, match=message):
        read_config(GOLDEN[name]["config"] | change)


def test_a_scaling_that_is_said_twice_is_read_once():
    tree = GOLDEN["qwen_3_8b"]["config"]
    once = tree["rope_parameters"] | YARN
    twice = tree | {"rope_parameters": once, "rope_scaling": YARN}
    assert read_config(twice) == read_config(tree | {"rope_parameters": once})


def test_a_field_that_is_missing_is_named():
    tree = dict(GOLDEN["qwen_2_7b"]["config"])
    del tree["intermediate_size"]
    with pytest.raises(ConfigError, match="'intermediate_size' is missing"):
        read_config(tree)


def test_a_model_that_no_family_has_is_told_what_is_missing():
    with pytest.raises(ConfigError, match=r"llama is nearest.*model\.final_soft_cap"):
        write_config(tiny("llama_3_8b", final_soft_cap=3.0), 128)


def test_a_value_beyond_float16_is_named(tmp_path, capsys):
    key = "model.norm.weight"
    value = np.full((24,), 1e6, np.float32)
    run = imported("llama_3_8b", tmp_path, tensors={key: None}, extra={key: value})
    flags = ("--to=hf", "--dtype=float16", "--no_tokenizer")
    paths = (f"--input={run}", f"--output={tmp_path / 'o'}")
    with pytest.raises(SystemExit) as stop:
        cli.run(convert.main, [*flags, *paths])
    assert stop.value.code == 1
    assert f"tensor {key} has the value 1e+06, beyond F16" in capsys.readouterr().err
    assert not list(tmp_path.glob("o*"))


def test_the_command_line_refuses_in_one_line(tmp_path, capsys):
    folder = make_folder("llama_3_8b", tmp_path / "hf", tensors={UP: None})
    out = f"--output={tmp_path / 'run'}"
    shown = refused(capsys, "--from=hf", f"--input={folder}", out)
    assert UP in shown
    assert "one of --from=hf" in refused(capsys, f"--input={folder}", out)
    assert "goes with --to" in refused(
        capsys, "--from=hf", f"--input={folder}", out, "--step=1"
    )
    assert "no folder" in refused(capsys, "--from=hf", "--input=nowhere", out)
    taken = f"--output={folder}"
    whole = make_folder("llama_3_8b", tmp_path / "whole")
    assert "is there already" in refused(capsys, "--from=hf", f"--input={whole}", taken)
    assert not list(tmp_path.glob("run*"))
    inside = f"--output={whole / 'config.json' / 'run'}"
    shown = refused(capsys, "--from=hf", f"--input={whole}", inside)
    assert f"{whole / 'config.json'} is no folder; choose another place" in shown
    (whole / "tokenizer.json").write_text("{}")
    shown = refused(capsys, "--from=hf", f"--input={whole}", out)
    assert str(whole / "tokenizer.json") in shown
    run = imported("llama_3_8b", tmp_path / "other")
    shown = refused(capsys, "--from=hf", f"--input={run}", out)
    assert "a run folder of Podium's own; --to=hf exports it" in shown


def test_a_model_without_a_tokenizer_says_that_it_takes_no_text(tmp_path, capsys):
    folder = make_folder("llama_3_8b", tmp_path / "hf")
    run = tmp_path / "run"
    assert convert.main(["--from=hf", f"--input={folder}", f"--output={run}"]) == 0
    shown = capsys.readouterr()
    assert "podium.sample" not in shown.out
    assert f"{folder} has no tokenizer" in shown.err
    with pytest.raises(DataError, match=r"imported without a tokenizer; put tokenizer"):
        sample.main([f"--workdir={run}", "--prompt=Once"])
