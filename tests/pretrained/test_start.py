# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""An imported model is sampled, evaluated, trained on and taken out again."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from podium import cli, convert, sample
from podium.checkpoint import restore_params
from podium.preparation.spec import PrepareSpec
from podium.prepare import prepare
from podium.starts import check_start
from podium.tokenizer import train_bpe
from tests.pretrained.folders import check_equal, make_folder

VOCAB = 300
TEXT = "It was the best of times, it was the worst of times, and nobody knew which. "
SIZES = {"model.embed_tokens.weight": [VOCAB, 24], "lm_head.weight": [VOCAB, 24]}


def run(module: str, *flags: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", f"podium.{module}", *flags]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model folder with a tokenizer, its run folder, and data of the same tokens."""
    home = tmp_path_factory.mktemp("start")
    folder = make_folder(
        "llama_3_8b",
        home / "hf",
        dtype="BF16",
        tensors=SIZES,
        config={"vocab_size": VOCAB, "dtype": "bfloat16", "eos_token_id": 0},
    )
    train_bpe([TEXT * 20], VOCAB, is_at_most=True).save(folder)
    chat = {"eos_token": "<|endoftext|>", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(chat))
    (folder / "generation_config.json").write_text(
        '{"eos_token_id": [0, 7], "top_k": 3}'
    )
    flags = ["--from=hf", f"--input={folder}", f"--output={home / 'run'}"]
    assert convert.main(flags) == 0
    text = home / "text"
    text.mkdir()
    for i in range(8):
        (text / f"{i}.txt").write_text(f"{i}. " + TEXT * 4)
    prepare(
        PrepareSpec(
            inputs=(str(text),),
            output=str(home / "gold"),
            tokenizer=str(home / "run" / "tokenizer.json"),
            eval_fraction=0.25,
            num_workers=1,
        )
    )
    return home


def test_it_is_sampled_with_its_own_tokenizer(home, capsys):
    flags = [f"--workdir={home / 'run'}", "--prompt=It was", "--num_tokens=4"]
    assert sample.main([*flags, "--temperature=0", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["tokens"]) <= 4
    assert shown["prompt"] == "It was"


def test_sampling_ends_at_any_token_that_the_generation_config_names(home):
    assert sample.end_ids(home / "run", 0) == {0, 7}


def test_it_is_evaluated_on_data_of_its_tokenizer(home):
    flags = (f"--workdir={home / 'run'}", f"--data={home / 'gold'}", "--batch_seqs=1")
    done = run("evaluate", *flags, "--json")
    assert done.returncode == 0, done.stderr
    loss = json.loads(done.stdout)["eval_loss"]
    assert 4.0 < loss < 12.0  # a random model of 300 tokens


def test_training_starts_from_its_weights_and_goes_out_with_its_files(home):
    """At a learning rate of 0 what comes out is what came in."""
    flags = (
        f"--config={home / 'run' / 'config.json'}",
        f"--config.data.paths={home / 'gold'}",
        "--config.data.seq_len=32",
        "--config.num_steps=1",
        "--config.optim.schedule.warmup_steps=0",
        "--config.optim.peak_lr=0",
        "--config.optim.ema_decay=0.5",
    )
    done = run("train", *flags, f"--workdir={home / 'tuned'}")
    assert done.returncode == 0, done.stderr
    _, before = restore_params(home / "run")
    _, after = restore_params(home / "tuned")
    jax.tree.map(np.testing.assert_array_equal, before, after)
    out = home / "out"
    assert (
        convert.main(["--to=hf", f"--input={home / 'tuned'}", f"--output={out}"]) == 0
    )
    check_equal(home / "hf", out)
    for name in (
        *("config.json", "tokenizer.json", "tokenizer_config.json"),
        "generation_config.json",
    ):
        assert json.loads((out / name).read_text()) == json.loads(
            (home / "hf" / name).read_text()
        )
    again = run("train", *flags, f"--workdir={home / 'run'}")
    assert again.returncode == 2
    assert "holds an imported model; train in another folder" in again.stderr


def test_a_start_that_is_not_there_or_of_other_tokens_is_refused(home):
    flags = (
        f"--config={home / 'run' / 'config.json'}",
        f"--workdir={home / 'new'}",
        "--config.data.seq_len=32",
    )
    done = run("train", *flags, f"--config.init_from={home / 'gold'}")
    assert done.returncode == 2
    assert "init_from" in done.stderr
    assert "holds no checkpoints" in done.stderr
    bytes_gold = home / "bytes"
    spec = PrepareSpec(
        inputs=(str(home / "text"),),
        output=str(bytes_gold),
        tokenizer="bytes",
        eval_fraction=0.25,
        num_workers=1,
    )
    prepare(spec)
    done = run("train", *flags, f"--config.data.paths={bytes_gold}")
    assert done.returncode == 2
    assert "has tokenizer bytes" in done.stderr
    assert not (home / "new").exists()


def test_data_of_more_tokens_than_the_model_has_names_its_tokenizer(home, tmp_path):
    tokenizer = train_bpe([TEXT * 20 + "".join(map(chr, range(900, 1900)))], 400)
    tokenizer.save(tmp_path)
    prepare(
        PrepareSpec(
            inputs=(str(home / "text"),),
            output=str(tmp_path / "gold"),
            tokenizer=str(tmp_path / "tokenizer.json"),
            num_workers=1,
        )
    )
    done = run(
        "train",
        f"--config={home / 'run' / 'config.json'}",
        f"--workdir={tmp_path / 'tuned'}",
        f"--config.data.paths={tmp_path / 'gold'}",
        "--config.eval=None",
    )
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert f"model.vocab_size is {VOCAB}, but {tmp_path / 'gold'} has token ids" in said
    assert f"podium.prepare --tokenizer={home / 'run'}/tokenizer.json" in said


def test_rows_longer_than_the_model_was_made_for_are_noted(home):
    published = json.loads((home / "hf" / "config.json").read_text())
    longest = published["max_position_embeddings"]
    cfg = cli.load_config(str(home / "run" / "config.json"))
    for seq_len, is_said in ((longest, False), (2 * longest, True)):
        said = []
        data = dataclasses.replace(cfg.data, seq_len=seq_len)
        check_start(dataclasses.replace(cfg, data=data), said.append)
        assert any(f"made for rows of {longest}" in line for line in said) == is_said


def test_a_model_of_ours_goes_out_with_a_config_and_tokenizer_of_its_own(home):
    flags = (
        f"--config={home / 'run' / 'config.json'}",
        f"--config.data.paths={home / 'gold'}",
        "--config.data.seq_len=32",
        "--config.num_steps=1",
        "--config.optim.schedule.warmup_steps=0",
        "--config.init_from=None",
        "--config.model.vocab_multiple=64",
    )
    done = run("train", *flags, f"--workdir={home / 'ours'}")
    assert done.returncode == 0, done.stderr
    out = home / "ours-hf"
    assert convert.main(["--to=hf", f"--input={home / 'ours'}", f"--output={out}"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"]) == ("llama", VOCAB)
    assert config["eos_token_id"] == 0
    again = ["--from=hf", f"--input={out}", f"--output={home / 'again'}"]
    assert convert.main(again) == 0
    _, before = restore_params(home / "ours")
    _, after = restore_params(home / "again")
    assert before["embed"]["table"].shape == (320, 24)  # padded to a multiple of 64
    np.testing.assert_array_equal(
        before["embed"]["table"][:VOCAB], after["embed"]["table"]
    )
    np.testing.assert_array_equal(
        before["stack"]["block_0"]["attention"]["out"],
        after["stack"]["block_0"]["attention"]["out"],
    )
    assert (out / "tokenizer.json").read_bytes() == (
        home / "hf" / "tokenizer.json"
    ).read_bytes()
