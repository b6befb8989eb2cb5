# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A run that trains adapters: its checkpoints, its base, and what reads them."""

import json
import shutil

import jax
import numpy as np
import pytest

from podium import cli, convert, evaluate, sample, train
from podium.checkpoint import restore_params
from podium.preparation.spec import PrepareSpec
from podium.prepare import prepare
from podium.pretrained.safetensors_files import read_folder
from podium.tokenizer import train_bpe
from podium.trainer.metrics import read_metrics
from profiling import replay
from tests.pretrained.folders import GOLDEN, make_folder

VOCAB = 300
TEXT = "It was the best of times, it was the worst of times, and nobody knew which. "
SIZES = {"model.embed_tokens.weight": [VOCAB, 24], "lm_head.weight": [VOCAB, 24]}
FLAGS = (
    "--config.data.seq_len=32",
    "--config.optim.peak_lr=1e-2",
    "--config.optim.schedule.kind=constant",
    "--config.optim.schedule.warmup_steps=0",
    "--config.checkpoint.every_steps=2",
    "--config.watchdog=None",
    "--config.lora.kind=dora",
    "--config.lora.rank=2",
    "--config.lora.base_dtype=int8",
)


@pytest.fixture(scope="module", autouse=True)
def _standard_promotion_in_every_thread():
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


def run(main, *argv, can_continue=False) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run(main, [str(a) for a in argv], can_continue=can_continue)
    return ended.value.code or 0


def tune(home, name, num_steps, *more) -> int:
    return run(
        train.main,
        f"--config={home / 'run' / 'config.json'}",
        f"--config.data.paths={home / 'gold'}",
        f"--workdir={home / name}",
        f"--config.num_steps={num_steps}",
        *FLAGS,
        *more,
        can_continue=True,
    )


def bring_in(home, family):
    """`home/run`, a tiny model of that family with a tokenizer of our text."""
    config = {"vocab_size": VOCAB, "eos_token_id": 0}
    folder = make_folder(family, home / "hf", tensors=SIZES, config=config)
    train_bpe([TEXT * 20], VOCAB, is_at_most=True).save(folder)
    flags = ["--from=hf", f"--input={folder}", f"--output={home / 'run'}"]
    assert convert.main(flags) == 0


def make_gold(home, text, name, **more):
    """Data of the imported model's tokens."""
    prepare(
        PrepareSpec(
            inputs=(str(text),),
            output=str(home / name),
            tokenizer=str(home / "run" / "tokenizer.json"),
            eval_fraction=0.25,
            num_workers=1,
            **more,
        )
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An imported model, data of its tokens, a whole run and one that was continued."""
    home = tmp_path_factory.mktemp("lora")
    bring_in(home, "llama_3_8b")
    text = home / "text"
    text.mkdir()
    for i in range(8):
        (text / f"{i}.txt").write_text(f"{i}. " + TEXT * 4)
    make_gold(home, text, "gold")
    assert tune(home, "whole", 4) == 0
    assert tune(home, "parts", 2) == 0
    assert tune(home, "parts", 4) == 0
    return home


def saved_run(home, name) -> dict:
    path = home / name / "checkpoints" / "4" / "run" / "metadata"
    return json.loads(path.read_text())


def assert_same_curves(home):
    whole, parts = (read_metrics(home / name) for name in ("whole", "parts"))
    losses = [r["loss"] for r in whole if "loss" in r]
    assert [r["loss"] for r in parts if "loss" in r] == losses
    assert losses[-1] < losses[0]
    assert whole[-1]["eval_loss"] == parts[-1]["eval_loss"]


def test_a_run_that_was_continued_is_the_whole_one(home):
    assert_same_curves(home)
    assert saved_run(home, "whole")["base"] == saved_run(home, "parts")["base"]


def test_its_checkpoints_hold_adapters_alone_and_name_the_base(home):
    base = saved_run(home, "whole")["base"]
    assert base["path"] == str((home / "run").absolute())
    assert base["step"] == 0
    assert len(base["fingerprint"]) == 64
    metadata = home / "whole" / "checkpoints" / "4" / "state" / "_METADATA"
    names = {
        tuple(key["key"] for key in leaf["key_metadata"])
        for leaf in json.loads(metadata.read_text())["tree_metadata"].values()
    }
    assert {name[0] for name in names} == {"step", "params", "opt_state", "recent"}
    params = [name for name in names if name[0] == "params"]
    assert {name[-1] for name in params} == {"a", "b", "magnitude"}
    assert len(params) == 3 * 7  # matmuls of a block, all layers in one array


def test_it_is_evaluated_and_sampled_as_it_was_trained(home, capsys):
    flags = (f"--workdir={home / 'whole'}", "--json")
    assert run(evaluate.main, *flags) == 0
    found = json.loads(capsys.readouterr().out)["eval_loss"]
    losses = [r["eval_loss"] for r in read_metrics(home / "whole") if "eval_loss" in r]
    assert found == pytest.approx(losses[-1], rel=1e-4)
    assert run(evaluate.main, f"--workdir={home / 'run'}", "--json",
               f"--data={home / 'gold'}", "--batch_seqs=8") == 0  # fmt: skip
    assert found < json.loads(capsys.readouterr().out)["eval_loss"]
    assert run(sample.main, *flags, "--prompt=It was", "--num_tokens=4") == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "It was"


def test_preferences_are_measured_against_the_base(home, capsys):
    lines = [
        {"prompt": f"{i}. It was", "chosen": " the best", "rejected": " the worst"}
        for i in range(16)
    ]
    path = home / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    make_gold(home, path, "pairs", chat="preferences")
    flags = ["--config.dpo.beta=0.5", f"--config.data.paths={home / 'pairs'}"]
    flags += ["--config.data.packing=best_fit", "--config.lora.kind=lora"]
    flags += ["--config.lora.targets=mlp/*", "--config.data.seq_len=16"]
    for num_steps in (2, 3):  # begins, and continues
        assert tune(home, "dpo", num_steps, *flags) == 0
    assert not (home / "dpo" / "reference.json").exists()
    rows = read_metrics(home / "dpo")
    losses = [r["loss"] for r in rows if "loss" in r]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-6)
    assert losses[2] < losses[0] - 0.05
    (held_out,) = [r for r in rows if "eval_loss" in r and r["step"] == 3]
    assert held_out["eval_reward_margin"] > 0
    capsys.readouterr()
    assert run(evaluate.main, f"--workdir={home / 'dpo'}", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["eval_loss"] == pytest.approx(held_out["eval_loss"], rel=1e-5)
    assert found["eval_reward_margin"] > 0
    assert run(replay.main, f"--workdir={home / 'dpo'}", "--step=3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "sound"


def test_a_base_that_is_gone_or_changed_is_one_line(home, tmp_path, capsys):
    mine = tmp_path / "home"
    shutil.copytree(home / "run", mine / "run")
    shutil.copytree(home / "gold", mine / "gold")
    shutil.copytree(home / "whole", mine / "whole")
    there = f"--config.init_from={mine / 'run'}"
    assert tune(mine, "whole", 6, there) == 0  # moved, but the same
    capsys.readouterr()

    shutil.rmtree(mine / "run" / "checkpoints")
    print_ = saved_run(home, "whole")["base"]["fingerprint"][:12]
    assert tune(mine, "whole", 8, there) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"fingerprint {print_}, are gone" in error

    # Other weights of the same shapes, drawn by another family's name.
    config = json.loads((home / "hf" / "config.json").read_text())
    other = make_folder(
        "qwen_2_7b", tmp_path / "hf", config=config, tensors=others_of(home / "hf")
    )
    shutil.copy(home / "hf" / "config.json", other / "config.json")
    shutil.copy(home / "hf" / "tokenizer.json", other / "tokenizer.json")
    shutil.rmtree(mine / "run")
    flags = ["--from=hf", f"--input={other}", f"--output={mine / 'run'}"]
    assert convert.main(flags) == 0
    capsys.readouterr()
    out = f"--output={mine / 'out'}"
    for again in (
        lambda: tune(mine, "whole", 8, there),
        lambda: run(convert.main, "--to=hf", f"--input={mine / 'whole'}", out),
    ):
        assert again() == 2
        error = capsys.readouterr().err
        assert "not what the adapters were trained on: it has fingerprint" in error
        assert f"that had {print_}" in error


def others_of(folder) -> dict:
    """The shapes that a golden folder of another family would have to have."""
    wanted = {name: list(t.shape) for name, t in read_folder(folder).items()}
    return {name: wanted.get(name) for name in GOLDEN["qwen_2_7b"]["tensors"]} | wanted


def assert_goes_out_merged(home):
    flags = [f"--input={home / 'whole'}", f"--output={home / 'out'}"]
    assert convert.main(["--to=hf", *flags]) == 0
    again = [f"--input={home / 'out'}", f"--output={home / 'again'}"]
    assert convert.main(["--from=hf", *again]) == 0
    _, want = restore_params(home / "whole")
    _, got = restore_params(home / "again")
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), got, want
    )


def test_it_goes_out_merged_and_to_peft(home, capsys):
    assert_goes_out_merged(home)
    flags = [f"--input={home / 'whole'}", f"--output={home / 'peft'}"]
    assert convert.main(["--to=peft", *flags]) == 0
    assert "trained on weights in int8" in capsys.readouterr().err
    config = json.loads((home / "peft" / "adapter_config.json").read_text())
    assert config["use_dora"]
    assert config["base_model_name_or_path"] == str((home / "hf").absolute())
    modes = [path.stat().st_mode & 0o777 for path in (home / "peft").iterdir()]
    assert len(set(modes)) == 1  # whoever reads one reads all
    imported = home / "run" / "imported.json"
    note = json.loads(imported.read_text())
    imported.write_text(json.dumps(note | {"from": "/models/a.gguf"}))  # not peft's
    flags[-1] = f"--output={home / 'peft-of-gguf'}"
    assert convert.main(["--to=peft", *flags]) == 0
    imported.write_text(json.dumps(note))
    config = json.loads((home / "peft-of-gguf" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    config = json.loads((home / "peft" / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }


def test_adapters_of_experts_continue_and_go_out_merged(home, tmp_path):
    bring_in(tmp_path, "mixtral_8x7b")
    shutil.copytree(home / "gold", tmp_path / "gold")  # the same text, the same tokens
    flags = ("--config.lora.targets=mlp/*", "--config.mesh.expert=2")
    assert tune(tmp_path, "whole", 4, *flags) == 0
    assert tune(tmp_path, "parts", 2, *flags) == 0
    assert tune(tmp_path, "parts", 4, *flags) == 0
    assert_same_curves(tmp_path)
    assert_goes_out_merged(tmp_path)
