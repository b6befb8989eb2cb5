# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF files in: the model that transformers computes, its tokenizer, one-line errors."""

import json
import sys

import gguf
import jax
import numpy as np
import pytest
import tokenizers

from podium import cli, convert, sample
from podium.checkpoint import restore_params
from podium.pretrained.from_gguf import import_gguf, read_gguf
from podium.pretrained.gguf_file import GgufTensor
from podium.pretrained.side_files import read_tokenizer
from tests.pretrained.folders import (
    GOLDEN,
    answers,
    check_equal,
    exported,
    imported,
    make_folder,
)
from tests.pretrained.gguf_files import END, TURN, write_gguf


def brought_in(tmp_path, **changes):
    """The run folder of a tiny GGUF."""
    file = write_gguf(tmp_path / "tiny.gguf", **changes)
    import_gguf(read_gguf(file), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["llama_2_7b", "llama_3_8b"])
def test_logits_and_greedy_tokens_are_those_of_transformers(name, tmp_path):
    """Rows of queries and keys lie in another order in a GGUF, by rotary pairs."""
    want = GOLDEN[name]
    got, greedy = answers(brought_in(tmp_path, name=name), len(want["greedy"]))
    logits = np.array(want["logits"])
    np.testing.assert_allclose(got[-len(logits) :], logits, rtol=0, atol=1e-4)
    assert greedy == want["greedy"]


def test_the_weights_are_those_of_the_same_model_in_safetensors(tmp_path):
    _, there = restore_params(imported("llama_3_8b", tmp_path / "a"))
    _, here = restore_params(brought_in(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, there, here)


def test_it_goes_out_as_the_model_folder_that_it_was_made_of(tmp_path):
    out = exported(brought_in(tmp_path), tmp_path / "out")
    check_equal(make_folder("llama_3_8b", tmp_path / "hf"), out)
    names = {path.name for path in out.iterdir()}
    files = {"config.json", "generation_config.json", "tokenizer_config.json"}
    assert names == files | {"model.safetensors", "tokenizer.json", "podium.json"}
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["torch_dtype"]) == ("llama", "float32")
    assert config["eos_token_id"] == [0, 1]
    chat = json.loads((out / "tokenizer_config.json").read_text())
    assert (chat["chat_template"], chat["eos_token"]) == ("{{ messages }}", END)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_half_precision_goes_out_in_its_type(kind, tmp_path):
    kind = gguf.GGMLQuantizationType[kind]
    out = exported(brought_in(tmp_path, kind=kind), tmp_path / "out")
    norms = [key for key in GOLDEN["llama_3_8b"]["tensors"] if "norm" in key]
    others = dict.fromkeys(norms, "F32")
    mixed = make_folder("llama_3_8b", tmp_path / "m", dtype=kind.name, others=others)
    check_equal(mixed, out)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "Q6_K"])
def test_blocks_of_rows_are_dequantised_to_what_the_package_says(
    kind, tmp_path, monkeypatch
):
    qtype = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    rng = np.random.default_rng(0)
    halves = rng.integers(0, 60, (37, 3 * size), np.uint8)  # no float16 is inf or nan
    (tmp_path / "raw").write_bytes(b"head" + halves.tobytes())
    monkeypatch.setattr("podium.pretrained.gguf_file._BLOCK_BYTES", 4 * 5 * 3 * block)
    tensor = GgufTensor(tmp_path / "raw", kind, (37, 3 * block), 4, halves.nbytes)
    np.testing.assert_array_equal(tensor.read(), gguf.quants.dequantize(halves, qtype))


def test_the_scaling_of_llama_3_1_is_known_by_its_factors(tmp_path):
    i = np.arange(0, 16, 2)
    wave = 2 * np.pi * 500_000.0 ** (i / 16)
    smooth = (8192 / wave - 1) / 3
    factors = np.where(smooth < 0, 8.0, np.where(smooth > 1, 1.0, 0))
    middle = factors == 0
    assert middle.any()
    factors[middle] = 1 / ((1 - smooth[middle]) / 8 + smooth[middle])
    extra = {"rope_freqs.weight": factors.astype(np.float32)}
    found = read_gguf(write_gguf(tmp_path / "a.gguf", extra=extra))
    scaling = found.source.cfg.position.scaling
    assert (scaling.factor, scaling.original_max_tokens) == (8.0, 8192)
    assert (scaling.low_freq_factor, scaling.high_freq_factor) == (1.0, 4.0)


def test_yarn_and_linear_scaling_are_taken(tmp_path):
    scaling = {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 64,
    }
    found = read_gguf(write_gguf(tmp_path / "a.gguf", metadata=scaling))
    assert found.source.cfg.position.scaling.original_max_tokens == 64
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    found = read_gguf(write_gguf(tmp_path / "b.gguf", metadata=scaling))
    assert found.source.cfg.position.scaling.factor == 2.0


# --- the tokenizer -------------------------------------------------------------------


def tokens_of(tmp_path, text: str, **metadata) -> list[str]:
    """Tokens of a text, by the tokenizer of a tiny GGUF."""
    fields = {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    run = brought_in(tmp_path, vocab=264, metadata=fields)
    tok = tokenizers.Tokenizer.from_file(str(run / "tokenizer.json"))
    return tok.encode(text).tokens


def test_smollm_takes_digits_one_by_one(tmp_path):
    text = "the 12 and 12"
    want = ["t", "h", "e", "Ġ", "1", "2", "Ġ", "and", "Ġ", "1", "2"]
    assert tokens_of(tmp_path / "a", text, pre="smollm") == want
    plain = tokens_of(tmp_path / "b", text, pre="gpt-2")
    assert plain == ["t", "h", "e", "Ġ", "12", "Ġ", "and", "Ġ", "12"]


def test_llama_3_begins_with_bos_unless_the_file_says_otherwise(tmp_path):
    assert tokens_of(tmp_path / "a", " the12", pre="llama-bpe") == [END, "Ġthe", "12"]
    shown = tokens_of(tmp_path / "b", " the12", pre="llama-bpe", add_bos_token=False)
    assert shown == ["Ġthe", "12"]


def test_special_tokens_are_special_and_text_comes_back(tmp_path):
    run = brought_in(tmp_path, vocab=264)
    tok = tokenizers.Tokenizer.from_file(str(run / "tokenizer.json"))
    assert tok.encode(f"and{TURN}").ids[-1] == 1
    text = "the 1,204 Größen\n\tand so on …"
    assert tok.decode(tok.encode(text).ids) == text
    ours = read_tokenizer(run / "pretrained")
    assert (ours.eos_id, ours.bos_id, ours.vocab_size) == (0, None, 264)
    assert ours.encode(text) == tok.encode(text).ids
    assert sample.end_ids(run, 0) == {0, 1}


# --- errors --------------------------------------------------------------------------


def refused(capsys, file, tmp_path) -> str:
    """The one line that says why a file is not taken; nothing is left behind."""
    out = tmp_path / "refused"
    with pytest.raises(SystemExit) as stop:
        cli.run(convert.main, ["--from=gguf", f"--input={file}", f"--output={out}"])
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1, shown
    assert not list(tmp_path.glob("refused*"))
    return shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "mamba"}, "general.architecture is 'mamba'"),
        (
            {"extra": {"blk.0.attn_sinks.weight": np.zeros(4, np.float32)}},
            "blk.0.attn_sinks.weight [4] has no place",
        ),
        ({"without": ("blk.2.ffn_up.weight",)}, "blk.2.ffn_up.weight [40, 24] is miss"),
        (
            {"extra": {"rope_freqs.weight": np.linspace(1, 9, 8, dtype=np.float32)}},
            "rope_freqs.weight is a scaling of RoPE that is not supported",
        ),
        (
            {"metadata": {"llama.rope.scaling.type": "longrope"}},
            "'rope.scaling.type' is 'longrope'",
        ),
        ({"metadata": {"llama.expert_count": 8}}, "the field 'expert_count' (8)"),
        (
            {"metadata": {"llama.rope.dimension_count": 8}},
            "'rope.dimension_count' is 8",
        ),
        ({"metadata": {"llama.block_count": None}}, "'block_count' is missing"),
        ({"metadata": {"llama.block_count": 2}}, "blk.2"),
        ({"metadata": {"split.count": 3}}, "is one of 3 parts"),
        ({"metadata": {"tokenizer.ggml.model": "llama"}}, "model is 'llama'"),
        ({"metadata": {"tokenizer.ggml.pre": "deepseek-llm"}}, "pre is 'deepseek-llm'"),
        ({"metadata": {"tokenizer.ggml.merges": ["x q"]}}, "merges do not fit"),
        ({"metadata": {"tokenizer.ggml.tokens": [END, "a"]}}, "2 tokens in tokenizer"),
        ({"metadata": {"tokenizer.ggml.eos_token_id": 99}}, "eos_token_id is 99"),
    ],
)
def test_what_does_not_fit_is_named(changes, message, tmp_path, capsys):
    file = write_gguf(tmp_path / "a.gguf", **changes)
    shown = refused(capsys, file, tmp_path)
    assert message in shown
    assert str(file) in shown


def test_a_quantisation_that_cannot_be_read_is_named(tmp_path, capsys):
    file = write_gguf(tmp_path / "a.gguf")
    raw = bytearray(file.read_bytes())
    at = raw.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8
    for kind, message in (
        (gguf.GGMLQuantizationType.I32, "output_norm.weight has type I32; supported: "),
        (999, "a.gguf has a tensor of a type that the package gguf does not know"),
    ):
        raw[at : at + 4] = int(kind).to_bytes(4, "little")
        file.write_bytes(raw)
        assert message in refused(capsys, file, tmp_path)


def test_damaged_files_are_named(tmp_path, capsys):
    whole = write_gguf(tmp_path / "a.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (6, 40, 900, len(whole) - 40_000, len(whole) - 4):
        cut.write_bytes(whole[:size])
        assert "cut.gguf is cut short at" in refused(capsys, cut, tmp_path)
    cut.write_bytes(b"PK\x03\x04" + whole[4:])
    assert "is no GGUF: it begins with b'PK" in refused(capsys, cut, tmp_path)
    cut.write_bytes(b"")
    assert "is no GGUF" in refused(capsys, cut, tmp_path)
    assert "is no file" in refused(capsys, tmp_path / "none.gguf", tmp_path)


def test_without_the_package_the_extra_is_named(tmp_path, capsys, monkeypatch):
    file = write_gguf(tmp_path / "a.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "uv sync --extra gguf" in refused(capsys, file, tmp_path)
