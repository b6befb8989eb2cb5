# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A chat model from an import to preferences, by the commands."""

import json
import math
import shutil
import subprocess
import sys

import pytest

from podium import convert, train
from podium.config import DataConfig, DpoConfig, EvalConfig, TrainConfig
from podium.config_model import ModelConfig
from podium.errors import ConfigError
from podium.input.manifest import load_manifest
from podium.prepare import PrepareSpec, prepare
from podium.starts import check_reference, reference_step
from podium.tokenizer import train_bpe
from podium.trainer.metrics import read_metrics
from tests.pretrained.folders import make_folder

VOCAB = 300
SIZES = {"model.embed_tokens.weight": [VOCAB, 24], "lm_head.weight": [VOCAB, 24]}
TEMPLATE = """\
{% for m in messages %}{{ m.role + ': ' + m.content }}\
{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"""


def run(module: str, *flags: str) -> subprocess.CompletedProcess:
    module = module if "." in module else f"podium.{module}"
    words = [sys.executable, "-m", module, *flags]
    return subprocess.run(words, capture_output=True, text=True)


def asked(i: int, *answers: str) -> list[list[dict[str, str]]]:
    user = {"role": "user", "content": f"number {i}"}
    return [[user, {"role": "assistant", "content": a}] for a in answers]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An imported chat model; gold/chats, gold/texts and gold/pairs of its tokens."""
    home = tmp_path_factory.mktemp("chat")
    folder = make_folder(
        "llama_3_8b",
        home / "hf",
        dtype="F32",
        tensors=SIZES,
        config={"vocab_size": VOCAB, "dtype": "float32", "eos_token_id": 0},
    )
    train_bpe(
        ["user: number 1\nassistant: good bad\n" * 20], VOCAB, is_at_most=True
    ).save(folder)
    chat = {"eos_token": "<|endoftext|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(chat))
    flags = ["--from=hf", f"--input={folder}", f"--output={home / 'run'}"]
    assert convert.main(flags) == 0
    pairs = [asked(i, f"good {i}", f"bad {i}") for i in range(24)]
    lines = {
        "chats": [{"messages": good} for good, _ in pairs],
        "texts": [{"text": f"number {i} is good"} for i in range(24)],
        "pairs": [
            {"prompt": good[:1], "chosen": good[1:], "rejected": bad[1:]}
            for good, bad in pairs[::2]
        ]
        + [{"chosen": good, "rejected": bad} for good, bad in pairs[1::2]],
    }
    kinds = {"chats": "conversations", "pairs": "preferences", "texts": None}
    for name, each in lines.items():
        path = home / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in each))
        prepare(
            PrepareSpec(
                inputs=(str(path),),
                output=str(home / "gold" / name),
                tokenizer=str(home / "run" / "tokenizer.json"),
                eval_fraction=0.25,
                num_workers=1,
                chat=kinds[name],
            )
        )
    return home


def flags_of(home, start, *data):
    paths = ",".join(str(home / "gold" / name) for name in data)
    return (
        f"--config={home / 'run' / 'config.json'}",
        f"--config.init_from={home / start}",
        f"--config.data.paths={paths}",
        "--config.data.seq_len=128",
        "--config.data.packing=best_fit",
        "--config.global_batch_seqs=2",
        "--config.optim.schedule.warmup_steps=0",
        "--config.optim.peak_lr=1e-3",
        "--config.checkpoint.every_steps=1",
    )


def test_a_chat_model_is_tuned_and_then_held_to_preferences(home):
    done = run(
        *("train", *flags_of(home, "run", "chats", "texts"), "--config.num_steps=2"),
        f"--workdir={home / 'sft'}",
    )
    assert done.returncode == 0, done.stderr
    assert (home / "sft" / "pretrained" / "tokenizer_config.json").exists()

    flags = (*flags_of(home, "sft", "pairs"), "--config.dpo.beta=0.2")
    flags = (*flags, f"--workdir={home / 'dpo'}")
    done = run("train", *flags, "--config.num_steps=2")
    assert done.returncode == 0, done.stderr
    assert "of pairs the right way round" in done.stderr
    first, second = (r for r in read_metrics(home / "dpo") if "loss" in r)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert second["reward_margin"] > 0
    note = json.loads((home / "dpo" / "reference.json").read_text())
    assert note == {"init_from": str(home / "sft"), "step": 2}

    done = run("train", *flags, "--config.num_steps=3")  # continues
    assert done.returncode == 0, done.stderr
    rows = read_metrics(home / "dpo")
    assert [r["step"] for r in rows if "loss" in r] == [1, 2, 3]
    (held_out,) = [r for r in rows if "eval_loss" in r and r["step"] == 3]
    assert held_out["eval_reward_margin"] > 0
    done = run("evaluate", f"--workdir={home / 'dpo'}", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["eval_loss"] == pytest.approx(held_out["eval_loss"], rel=1e-4)
    assert found["eval_reward_accuracy"] == held_out["eval_reward_accuracy"]
    replay_says(home, "sound")
    # Against another reference the step is another one.
    note["step"] = 1
    (home / "dpo" / "reference.json").write_text(json.dumps(note))
    replay_says(home, "hardware")


def replay_says(home, verdict: str) -> None:
    done = run("profiling.replay", f"--workdir={home / 'dpo'}", "--step=3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == verdict


def test_pairs_and_objective_go_together(home):
    pairs, chats = (load_manifest(home / "gold" / n) for n in ("pairs", "chats"))
    train.check_objective(True, "P", pairs)
    train.check_objective(False, "P", chats)
    with pytest.raises(ConfigError, match=r"P has pairs .* --config.dpo.beta=0.1"):
        train.check_objective(False, "P", pairs)
    with pytest.raises(ConfigError, match=r"no pairs of answers; .*--chat=preferences"):
        train.check_objective(True, "P", chats)


def test_chats_have_no_ngram_baselines(home):
    data = DataConfig(paths=(str(home / "gold" / "chats"),))
    cfg = TrainConfig(
        data=data,
        model=ModelConfig(vocab_size=VOCAB),
        eval=EvalConfig(ngram_baselines=True),
    )
    with pytest.raises(ConfigError, match=r"counts texts, and .* has conversations"):
        train.check_data(cfg, [load_manifest(home / "gold" / "chats")])


def test_a_run_that_is_continued_needs_its_reference(home, tmp_path):
    source = tmp_path / "start"
    shutil.copytree(home / "run", source)
    data = DataConfig(packing="best_fit")
    cfg = TrainConfig(init_from=str(source), dpo=DpoConfig(), data=data)
    with pytest.raises(ConfigError, match=r"reference.json should name the checkpoint"):
        check_reference(tmp_path, cfg)
    assert reference_step(tmp_path, cfg, is_new=True, is_first=True) == 0
    check_reference(tmp_path, cfg)
    shutil.rmtree(source)
    with pytest.raises(ConfigError, match=r"is the reference of this run"):
        check_reference(tmp_path, cfg)
