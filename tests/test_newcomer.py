# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a first hour: one line that says what to do, and nothing lost."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from podium import (
    checksums,
    cli,
    data_ledger,
    evaluate,
    run_folder,
    sample,
    sharding_report,
    train,
)
from podium.config import DataConfig, MeshConfig, TrainConfig
from podium.config_model import AttentionConfig, ModelConfig
from podium.errors import ConfigError
from podium.prepare import PrepareSpec, prepare
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from podium.sharding_tables import print_report
from podium.storage import open_folder
from podium.trainer import setup
from podium.trainer.metrics import read_metrics
from podium.trainer.profile import TraceWindow
from profiling import replay
from tests.test_train import CONFIG

SHORT = (
    "--config.num_steps=4",
    "--config.checkpoint.every_steps=2",
    "--config.eval.every_steps=2",
    "--config.mesh.fsdp=-1",
    "--config.log_every_steps=2",
)


@pytest.fixture(scope="module", autouse=True)
def _standard_promotion_in_every_thread():
    """The step is compiled in a thread of its own, where a context does not reach."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "text").mkdir()
    (folder / "other").mkdir()
    for i in range(24):
        text = f"document {i}: " + "to be or not to be, " * (i + 3)
        (folder / "text" / f"{i}.txt").write_text(text)
        (folder / "other" / f"{i}.txt").write_text(text[::-1])
    (folder / "text" / "picture.png").write_bytes(b"\0")
    (folder / "config.py").write_text(CONFIG)
    return folder


class Run:
    """A command line, run in this process."""

    def __init__(self, capsys):
        self._capsys = capsys

    def __call__(self, main, *argv) -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.run(main, [str(a) for a in argv], can_continue=main is train.main)
        shown = self._capsys.readouterr()
        assert "Traceback" not in shown.err
        return stop.value.code, shown.out, shown.err


@pytest.fixture
def run(capsys) -> Run:
    return Run(capsys)


def arguments(home, name, *more):
    return (
        f"--config={home / 'config.py'}",
        f"--workdir={home / name}",
        f"--config.data.text={home / 'text'}",
        *SHORT,
        *more,
    )


@pytest.fixture(scope="module")
def done(home):
    """A finished run, and what it said on standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = train.main(
            arguments(
                home,
                "done",
                "--config.sample.prompt=to be",
                "--config.sample.num_tokens=3",
                "--config.eval.ngram_baselines=true",
            )
        )
    assert code == 0, err.getvalue()
    return home / "done", (out.getvalue(), err.getvalue())


@pytest.fixture
def copy(done, tmp_path):
    """A copy of the finished run, to be damaged."""
    return pathlib.Path(shutil.copytree(done[0], tmp_path / "copy"))


def test_a_run_says_what_it_runs_on_and_where_all_lies(done):
    folder, (out, err) = done
    assert "parameters on cpu x 8 (mesh data=2 x fsdp=4);" in err
    assert "4 steps x 256 tokens" in err
    assert "compiling" in err
    assert "not used: 1 binary" in err
    for name in ("checkpoints/", "data/", "plots/loss.png"):
        assert f"  {name}" in out
    row = next(r for r in read_metrics(folder) if "loss" in r)
    assert isinstance(row["tokens"], int)


def test_another_text_is_refused_and_the_config_stays(home, done, run):
    before = (done[0] / "config.json").read_text()
    code, _, err = run(
        train.main,
        *arguments(home, "done", "--config.num_steps=6"),
        f"--config.data.text={home / 'other'}",
    )
    assert code == 2
    assert "data.text: saved" in err
    assert "another --workdir" in err
    assert (done[0] / "config.json").read_text() == before


def test_a_finished_run_writes_its_missing_plot_and_nothing_else(home, copy, run):
    (copy / "plots" / "loss.png").unlink()
    before = (copy / "config.json").read_text()
    code, _, err = run(
        train.main,
        *arguments(home, "done")[:1],
        f"--workdir={copy}",
        *arguments(home, "done")[2:],
        "--config.model.attention.implementation=splash",
    )
    assert code == 0
    assert "all 4 steps are done" in err
    assert (copy / "plots" / "loss.png").exists()
    assert (copy / "config.json").read_text() == before


def test_a_model_that_cannot_run_here_leaves_no_config(home, run):
    splash = "--config.model.attention.implementation=splash"
    code, _, err = run(train.main, *arguments(home, "splash", splash))
    assert code == 2
    assert "does not support platform 'cpu'" in err
    assert "compiling" not in err
    assert not (home / "splash" / "config.json").exists()


def test_a_run_trained_elsewhere_is_evaluated_and_sampled_here(copy, run):
    for path in (copy / "config.json", *copy.glob("checkpoints/*/run/*")):
        path.write_text(
            path.read_text().replace('"auto"', '"splash"')
            if path.suffix != ".zarray"
            else path.read_text()
        )
    assert '"splash"' in (copy / "config.json").read_text()
    for step in (copy / "checkpoints").iterdir():
        checksums.write(open_folder(step), has_late=False)
    code, out, _ = run(evaluate.main, f"--workdir={copy}", "--json")
    assert code == 0
    assert isinstance(json.loads(out)["eval_tokens"], int)
    shutil.rmtree(copy / "data")  # the tokenizer came along
    code, out, err = run(
        sample.main, f"--workdir={copy}", "--prompt=x", "--num_tokens=40"
    )
    assert code == 0
    assert out.startswith("x")
    assert "note: prompt and new tokens are 41, rows in training were 32 long" in err


@pytest.fixture(scope="module")
def others(home) -> dict[str, pathlib.Path]:
    """Gold data of other text: with the run's tokenizer, and with another one."""
    folders = {"bytes": home / "gold_bytes", "bpe:280": home / "gold_bpe"}
    for tokenizer, folder in folders.items():
        prepare(
            PrepareSpec(
                inputs=(str(home / "other"),),
                output=str(folder),
                tokenizer=tokenizer,
                eval_fraction=0.25,
            )
        )
    return folders


def test_a_loss_under_another_tokenizer_is_refused(home, done, others, run):
    code, _, err = run(
        evaluate.main, f"--workdir={done[0]}", f"--data={others['bpe:280']}"
    )
    assert code == 2
    assert "gold_bpe has tokenizer bpe" in err
    assert "was trained with bytes" in err
    assert "--tokenizer=bytes" in err
    code, _, err = run(evaluate.main, f"--workdir={done[0]}", f"--data={home}/text")
    assert code == 2
    assert "text holds no manifest.json" in err


def test_data_that_was_replaced_is_refused_by_all_that_read_it(home, copy, others, run):
    shutil.rmtree(copy / "data")
    shutil.copytree(others["bpe:280"], copy / "data")
    config, _, *rest = arguments(home, "done", "--config.num_steps=8")
    for main, *argv in (
        (train.main, config, *rest),
        (evaluate.main,),
        (data_ledger.main, "--step=2"),
    ):
        code, out, err = run(main, f"--workdir={copy}", *argv)
        assert code == 2
        assert not out
        assert err.count("\n") == 1
        assert f"{copy} was trained on " in err
        assert "; there now is" in err
    assert run(evaluate.main, f"--workdir={copy}", f"--data={others['bytes']}")[0] == 0


def test_a_loss_that_is_no_number_ends_the_run_before_a_save(home, run):
    code, _, err = run(
        train.main, *arguments(home, "nan", "--config.optim.peak_lr=1e30"),
        "--config.optim.optimizer.kind=lion", "--config.num_steps=100",
        "--config.checkpoint.every_steps=50", "--config.log_every_steps=10",
    )  # fmt: skip
    assert code == 1
    last = err.splitlines()[-1]
    assert re.match(r"DivergedError: \w+ is (nan|inf) at step 1; last good", last)
    assert "checkpoint: none. Lower optim.peak_lr (1e+30)" in last
    assert "NaN or Inf" not in err
    assert "learnt from all the same; recorded in" in err
    code, out, _ = run(replay.main, f"--workdir={home / 'nan'}", "--step=1")
    assert code == 0
    assert out.startswith("step 1: numerics: ")
    assert not list((home / "nan").glob("checkpoints/*"))
    text = (home / "nan" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert None in json.loads(text.splitlines()[-1]).values()


def test_after_the_last_step_nothing_fails_but_with_a_line(
    home, others, run, monkeypatch
):
    from podium.input import ngram
    from podium.trainer import report

    def damaged(*_):
        raise OSError("a damaged record")

    monkeypatch.setattr(ngram, "ngram_losses", damaged)
    monkeypatch.setattr(report, "plot_loss", damaged)
    monkeypatch.setattr(report, "sample_text", damaged)
    code, out, err = run(
        train.main, *arguments(home, "bare", "--config.sample.prompt=x"),
        "--config.eval.ngram_baselines=true",
        f"--config.data.paths={others['bytes']}",
    )  # fmt: skip
    assert code == 0
    assert "data.text is not read: data.paths is given" in err
    for what in ("n-gram baselines", "loss curve", "sample"):
        assert f"warning: no {what}: OSError: a damaged record" in err
    assert "held-out loss" in out
    assert "Everything lies in" in out


def test_a_longer_run_stretches_the_schedule_and_says_so(home, copy, run, monkeypatch):
    traced = []
    monkeypatch.setattr(TraceWindow, "before", lambda self, step: traced.append(step))
    config, _, *rest = arguments(home, "done", "--config.num_steps=8")
    code, _, err = run(train.main, config, f"--workdir={copy}", *rest)
    assert code == 0
    assert traced == [5, 6, 7, 8]  # profile.steps counts as metrics.jsonl does
    assert read_metrics(copy)[-1]["step"] == 8
    assert "note: num_steps was 4, now 8: the schedule stretches" in err
    assert "jumps from" in err


def test_a_damaged_checkpoint_is_passed_over_and_named(home, copy, run):
    step = copy / "checkpoints" / "4"
    for path in step.rglob("*"):
        if path.is_file() and path.name != checksums.NAME:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for main, *argv in ((evaluate.main,), (sample.main, "--prompt=x")):
        code, _, err = run(main, f"--workdir={copy}", *argv)
        assert code == 0
        assert f"checkpoint 4 is damaged ({step}/" in err
        assert err.splitlines()[0].endswith("using 2")
        code, _, err = run(main, f"--workdir={copy}", *argv, "--step=4")
        assert code == 2
        assert err.startswith("CheckpointError: checkpoint 4 is damaged")
        assert "use another of [2, 4]" in err
    config, _, *rest = arguments(home, "done", "--config.num_steps=8")
    code, _, err = run(train.main, config, f"--workdir={copy}", *rest)
    assert code == 0
    assert "continuing from 2" in err
    assert step.with_name("4.damaged").is_dir()
    assert step.is_dir()  # the new one


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.sample.prompt="], "sample.prompt is empty"),
        (["--config.data.text=nothere"], "--config.data.text=nothere does not exist"),
        (["--config.data.paths=docs"], "--input=docs --output="),
        (["--config.mesh.data=3"], "add --config.mesh.fsdp=1 for 3"),
        (["--config.data.paths=nothere"], "data.paths: nothere does not exist"),
        (
            ["--config.checkpoint.folder=/dev/null/x"],
            "checkpoint.folder=/dev/null/x: /dev/null is no folder",
        ),
        (["--config.checkpoint.folder=s3://x/y"], "checkpoint.folder: s3://x/y"),
        (["--workdir=/dev/null/x"], "--workdir=/dev/null/x lies under /dev/null"),
        (
            ["--config.checkpoint.every_steps=auto"],
            "expected a whole number, or None (found from what a save costs",
        ),
        (
            ["--config.mesh.data=1", "--config.mesh.slices.data=3"],
            "into them. On a CPU, a mesh written out in full makes virtual devices: add "
            "--config.mesh.data=3 --config.mesh.fsdp=1 for 3.",
        ),
        (
            [
                "--config.mesh.data=1",
                "--config.mesh.fsdp=1",
                "--config.mesh.expert=8",
                "--config.global_batch_seqs=4",
            ],
            "Use global_batch_seqs=8, or a smaller mesh.expert.",
        ),
    ],
)
def test_a_first_mistake_says_what_to_type(home, run, flags, message):
    code, _, err = run(train.main, *arguments(home, "first", *flags))
    assert code == 2
    assert message in err


def test_a_start_that_fails_leaves_nothing_behind(home, run, tmp_path):
    flags = arguments(home, "", "--config.data.text=nothere")
    (tmp_path / "mine").mkdir()
    for folder in ("new/run", "mine"):
        assert run(train.main, *flags, f"--workdir={tmp_path / folder}")[0] == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]
    assert not list((tmp_path / "mine").iterdir())


def test_a_run_that_went_further_says_how_far(home, done, run):
    code, _, err = run(train.main, *arguments(home, "done", "--config.num_steps=3"))
    assert code == 0
    assert "done: has 4 steps, num_steps=3 asks for no more" in err


def test_one_document_that_is_not_held_out_says_how_to_go_on(home, tmp_path, run):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("to be or not to be " * 50)
    flags = (f"--config.data.text={tmp_path / 'text'}", f"--workdir={tmp_path / 'run'}")
    code, _, err = run(train.main, *arguments(home, ""), *flags)
    assert code == 2
    assert "set --config.eval=None, or prepare it with" in err
    assert "--max_document_bytes=65536" in err


def test_a_vocabulary_far_beyond_the_tokenizer_is_a_warning(home, capsys):
    prepare(
        PrepareSpec(
            inputs=(str(home / "text"),), output=str(home / "gold"), tokenizer="bytes"
        )
    )
    gold = {"data.paths": str(home / "gold"), "eval": "None"}
    config = str(home / "config.py")
    for size, warns in (("300", False), ("8192", True)):
        cfg = cli.load_config(config, {**gold, "model.vocab_size": size})
        capsys.readouterr()
        train.check_data(cfg, train.load_data(cfg.data.paths))
        assert (
            "--config.model.vocab_size=257 is enough" in capsys.readouterr().err
        ) == (warns)


def test_a_second_process_on_a_run_is_refused(home, copy, run):
    config, _, *rest = arguments(home, "done", "--config.num_steps=8")
    with run_folder.lock(copy):
        code, _, err = run(train.main, config, f"--workdir={copy}", *rest)
    assert code == 2
    assert f"is being trained by pid {os.getpid()} on host" in err
    assert len(read_metrics(copy)) == 6


@pytest.mark.parametrize(
    ("main", "flags", "message"),
    [
        (evaluate.main, ["--batch_seqs=0"], "--batch_seqs is 0; expected 1 or more"),
        (evaluate.main, ["--batch_seqs=3"], "--batch_seqs=3 does not divide over 8"),
        (evaluate.main, ["--step=9"], "no checkpoint 9"),
        (sample.main, ["--prompt=x", "--num_tokens=0"], "num_tokens is 0"),
        (sample.main, ["--promt=x"], "did you mean --prompt?"),
        (sample.main, ["--prompt=x", "--step=9"], "no checkpoint 9"),
    ],
)
def test_sample_and_evaluate_check_before_they_start(done, run, main, flags, message):
    code, out, err = run(main, f"--workdir={done[0]}", *flags)
    assert code == 2
    assert message in err
    assert not out
    assert err.count("\n") == 1


def test_sample_answers_a_mistake_without_jax(done):
    code = (
        "import sys; from podium import cli, sample\n"
        f"try: cli.run(sample.main, ['--workdir={done[0]}', '--prompt='])\n"
        "except SystemExit as e: assert e.code == 2\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("mesh", "seq_len", "context", "message"),
    [
        ({"context": 4}, 60, "ring",
         "data.seq_len (60) does not divide into 8 pieces: each of the 4 devices of mesh "
         "axis context, a ring, holds an early and a late one. Use data.seq_len=64, or a "
         "smaller mesh.context"),
        ({"context": 4}, 62, "all_to_all",
         "does not divide into 4 devices of mesh axis context. Use data.seq_len=64"),
        ({"tensor": 4}, 62, "ring",
         "over the 4 devices of mesh axes tensor, which split rows between the blocks' "
         "parts. Use data.seq_len=64, or sharding.act_length=()"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_divide_says_into_what(mesh, seq_len, context, message):
    mesh = MeshConfig(**{"data": 1, "fsdp": 1, **mesh})
    attention = AttentionConfig(context=context)
    cfg = TrainConfig(
        data=DataConfig(seq_len=seq_len), model=ModelConfig(attention=attention)
    )
    rules = ShardingRules(cfg.sharding, make_mesh(mesh, jax.devices()[:4]))
    with pytest.raises(ConfigError) as error:
        setup.check_length(cfg, rules)
    assert message in str(error.value)
    flat = dataclasses.replace(cfg.sharding, act_length=())
    rules = ShardingRules(flat, rules.mesh)
    with (
        contextlib.nullcontext()
        if "act_length" in message
        else pytest.raises(ConfigError)
    ):
        setup.check_length(cfg, rules)


def test_a_layout_is_printed_though_the_batch_does_not_divide(home, run, monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # devices are there
    flags = ("--config.mesh.data=8", "--config.mesh.fsdp=1")
    code, out, err = run(
        sharding_report.main, arguments(home, "")[0], "--devices=8", *flags,
        "--config.global_batch_seqs=12",
    )  # fmt: skip
    assert code == 0
    assert "total but activations" in out
    assert err.startswith("note: no activations: global_batch_seqs (12)")


def test_a_total_without_activations_says_so(capsys):
    report = {"mesh": {"data": 1}, "tensors": [], "activations": [], "params": 1}
    print_report({**report, "bytes_per_device": {"total": 1}})
    assert "total but activations" in capsys.readouterr().out
    print_report({**report, "bytes_per_device": {"activations": 1, "total": 1}})
    assert "total but" not in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_tokenizing_is_one_line_and_75(home, tmp_path, number):
    numbers = np.random.default_rng(0).integers(0, 10**9, 400_000)
    words = " ".join(np.char.mod("%d", numbers))  # all different: many seconds of BPE
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text(words)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "podium.train"),
            *arguments(home, number.name, f"--config.data.text={tmp_path}"),
            *("--config.data.tokenizer=bpe:8192", "--config.model.vocab_size=8192"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (home / number.name / "data.partial").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted; the same command continues"
