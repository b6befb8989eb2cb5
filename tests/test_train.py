# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The command itself, in processes of its own, killed for real."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from podium.code_commit import commit
from podium.trainer.events import read_events

CONFIG = """
from podium.config import EvalConfig, TrainConfig
from podium.config_dict import to_config_dict

def get_config():
    cfg = to_config_dict(TrainConfig())
    cfg.num_steps = 300
    cfg.global_batch_seqs = 8
    cfg.log_every_steps = 50
    cfg.model.vocab_size = 272
    cfg.model.num_layers = 2
    cfg.model.embed_dim = 32
    cfg.model.attention.num_heads = 4
    cfg.model.attention.num_kv_heads = 2
    cfg.model.attention.head_dim = 8
    cfg.model.mlp.dim = 64
    cfg.model.dtype = "float32"
    cfg.data.tokenizer = "bytes"
    cfg.data.eval_fraction = 0.25
    cfg.data.seq_len = 32
    cfg.optim.peak_lr = 1e-2
    cfg.optim.schedule.warmup_steps = 2
    cfg.checkpoint.every_steps = 50
    cfg.eval.every_steps = 100
    cfg.eval.by = "source"
    cfg.mesh.data = 2
    cfg.mesh.fsdp = 2
    return cfg
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("train")
    text = folder / "text"
    text.mkdir()
    for i in range(24):
        (text / f"{i}.txt").write_text(
            f"document {i}: " + "to be or not to be, " * (i + 3)
        )
    (folder / "config.py").write_text(CONFIG)
    return folder


def command(home: pathlib.Path, run: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "podium.train"),
        f"--config={home / 'config.py'}",
        f"--workdir={home / run}",
        f"--config.data.text={home / 'text'}",
        *more,
    ]


def env(home: pathlib.Path) -> dict[str, str]:
    # One compile cache for all runs here: they differ in nothing that is compiled.
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(home / "cache")}


def train(home: pathlib.Path, run: str, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(home, run, *more), env=env(home), capture_output=True, text=True
    )


def rows(home: pathlib.Path, run: str) -> list[dict]:
    lines = (home / run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def curve(home: pathlib.Path, run: str) -> list[tuple[float, ...]]:
    keys = ("loss", "grad_norm", "param_norm", "eval_loss")
    return [(r["step"], *(r.get(k, 0.0) for k in keys)) for r in rows(home, run)]


def stop_after(home: pathlib.Path, run: str, name: str, number: int) -> int:
    """Starts a run, sends it a signal once a file is there, returns its code."""
    process = subprocess.Popen(
        command(home, run), env=env(home), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (home / run / name).exists():
            break
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    return process.returncode


@pytest.fixture(scope="module")
def unbroken(home):
    result = train(home, "unbroken")
    assert result.returncode == 0, result.stderr
    return result


def test_a_run_leaves_everything_it_promises(home, unbroken):
    folder = home / "unbroken"
    for name in (
        *("config.json", "data.json", "metrics.jsonl", "events.jsonl"),
        *("checkpoints/200", "checkpoints/300", "plots/loss.png", "data/manifest.json"),
    ):
        assert (folder / name).exists(), name
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert "held-out loss" in unbroken.stdout
    assert str(folder) in unbroken.stdout
    steps = [r for r in rows(home, "unbroken") if "loss" in r]
    assert [r["step"] for r in steps] == list(range(1, 301))
    assert steps[-1].keys() >= {
        *("loss", "grad_norm", "param_norm", "learning_rate", "tokens"),
        *("tokens_per_sec", "tokens_per_sec_per_device", "model_flops_per_sec"),
        *("step_secs", "input_wait_secs", "device_memory_bytes"),
    }
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_tensorboard_reads_the_events(home, unbroken):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(home / "unbroken" / "tensorboard"))
    board.Reload()
    assert [e.step for e in board.Scalars("loss")] == [50, 100, 150, 200, 250, 300]
    assert [e.step for e in board.Scalars("eval_loss")] == [100, 200, 300]


def test_every_source_has_a_loss_and_evaluate_finds_it_again(home, unbroken):
    row = [r for r in rows(home, "unbroken") if "eval_loss" in r][-1]
    prefix = "eval_loss/"
    losses = {k.removeprefix(prefix): v for k, v in row.items() if prefix in k}
    command = [sys.executable, "-m", "podium.evaluate", f"--workdir={home}/unbroken"]
    done = subprocess.run(
        [*command, "--json"], env=env(home), capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    groups = found["groups"]
    assert len(groups) > 3
    assert groups.keys() == losses.keys() <= {f"{i}.txt" for i in range(24)}
    for name, group in groups.items():
        assert group["loss"] == pytest.approx(losses[name], rel=1e-5)
    assert sum(g["tokens"] for g in groups.values()) == found["eval_tokens"]
    nats = sum(g["nats"] for g in groups.values())
    assert nats / found["eval_tokens"] == found["eval_loss"]
    assert found["eval_loss"] == pytest.approx(row["eval_loss"], rel=1e-5)
    shown = subprocess.run(
        [*command, "--by=source", "--max_groups=1"],
        env=env(home),
        capture_output=True,
        text=True,
    )
    assert f"loss        {found['eval_loss']:.4f}" in shown.stdout
    assert f"{found['eval_tokens']:,} in rows of {found['seq_len']}" in shown.stdout
    assert re.search(r"evaluate: scoring: done, \d+ batches", shown.stderr)
    assert ".txt" not in shown.stdout
    assert "they would be more than --max_groups=1" in shown.stderr
    shorter = subprocess.run(
        [*command, "--json", "--seq_len=8"],
        env=env(home),
        capture_output=True,
        text=True,
    )
    assert json.loads(shorter.stdout)["seq_len"] == 8
    assert json.loads(shorter.stdout)["eval_loss"] > found["eval_loss"]  # less to go by


def test_a_killed_run_continues_to_the_same_curve_bit_for_bit(home, unbroken):
    code = stop_after(home, "killed", "checkpoints/50", signal.SIGKILL)
    assert code == -signal.SIGKILL
    result = train(home, "killed")
    assert result.returncode == 0, result.stderr
    assert curve(home, "killed") == curve(home, "unbroken")  # to the last bit
    events = (home / "killed" / "events.jsonl").read_text()
    assert events.count('"event": "start"') == 2
    head = commit().removesuffix("-dirty")
    assert events.count(f'"commit": "{head}') == 2
    assert events.count('"event": "restore"') == 1


def goodput(home: pathlib.Path, run: str) -> dict:
    out = subprocess.run(
        [
            sys.executable,
            "-m",
            "profiling.goodput",
            f"--workdir={home / run}",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (home / run / "plots" / "goodput.png").exists()
    found = json.loads(out.stdout)
    parts = found["secs"].values()
    assert sum(round(1000 * n) for n in parts) == round(1000 * found["wall_secs"])
    return found


def wall_secs(home: pathlib.Path, run: str) -> float:
    events = read_events(home / run)
    return events[-1]["time"] - events[0]["began"]


def test_the_ledger_of_an_unbroken_run_has_all_its_time(home, unbroken):
    found = goodput(home, "unbroken")
    # The clocks of `time` and `up` may run a little differently.
    assert found["wall_secs"] == pytest.approx(wall_secs(home, "unbroken"), rel=1e-3)
    secs = found["secs"]
    assert secs["lost"] == secs["down"] == secs["idle"] == secs["restore"] == 0
    for part in ("productive", "initialisation", "compile", "checkpoint", "evaluation"):
        assert secs[part] > 0, part
    in_steps = sum(row.get("step_secs", 0.0) for row in rows(home, "unbroken"))
    assert secs["productive"] + secs["data_wait"] == pytest.approx(in_steps, abs=0.05)


def test_the_ledger_of_a_killed_run_has_what_was_lost_and_the_time_it_was_down(home):
    # Each evaluation makes the ledger speak of the steps before it.
    more = [
        *("--config.num_steps=400", "--config.checkpoint.every_steps=200"),
        *("--config.eval.every_steps=10", "--config.sample=None"),
        *("--config.mesh.data=1", "--config.mesh.fsdp=1"),
    ]
    process = subprocess.Popen(
        command(home, "lost", *more), env=env(home), stderr=subprocess.DEVNULL
    )
    ledger = home / "lost" / "events.jsonl"
    while '"last": 50' not in (ledger.read_text() if ledger.exists() else ""):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert '"event": "save"' not in ledger.read_text()
    before = read_events(home / "lost")
    slept, gone = 3.0, time.time()
    time.sleep(slept)
    result = train(home, "lost", *more)
    assert result.returncode == 0, result.stderr
    found = goodput(home, "lost")
    first, second = found["attempts"]
    assert first["secs"]["productive"] == 0
    done = [e for e in before if e["event"] == "steps"]
    steps_secs = sum(e["secs"] - e["wait_secs"] for e in done)
    assert found["secs"]["lost"] == pytest.approx(steps_secs, abs=0.05)
    down = second["began"] - before[-1]["time"]
    assert down >= slept + gone - before[-1]["time"] - 0.02
    assert found["secs"]["down"] == pytest.approx(down, abs=0.002)
    assert found["wall_secs"] == pytest.approx(wall_secs(home, "lost"), rel=1e-3)


def test_a_damaged_checkpoint_is_passed_over_and_the_curve_is_the_same(home, unbroken):
    assert stop_after(home, "bits", "checkpoints/100", signal.SIGKILL) == -9
    checkpoints = home / "bits" / "checkpoints"
    newest = max(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
    [data, *_] = sorted((checkpoints / str(newest) / "state" / "d").iterdir())
    whole = data.read_bytes()
    data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    result = train(home, "bits")
    assert result.returncode == 0, result.stderr
    assert f"checkpoint {newest} is damaged: {data} has CRC-32C" in result.stderr
    assert f"continuing from {newest - 50}" in result.stderr
    assert (checkpoints / f"{newest}.damaged").is_dir()
    assert curve(home, "bits") == curve(home, "unbroken")
    events = (home / "bits" / "events.jsonl").read_text()
    assert '"what": "damaged checkpoint"' in events


def test_sigterm_saves_and_asks_to_be_run_again(home, unbroken):
    assert stop_after(home, "stopped", "metrics.jsonl", signal.SIGTERM) == 75
    saved = [int(p.name) for p in (home / "stopped" / "checkpoints").iterdir()]
    assert saved
    assert max(saved) < 300
    assert train(home, "stopped").returncode == 0
    assert curve(home, "stopped") == curve(home, "unbroken")


def test_another_mesh_gives_the_same_curve_to_rounding(home, unbroken):
    result = train(
        home, "tensor", "--config.mesh.data=1", "--config.mesh.fsdp=1",
        "--config.mesh.tensor=2",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # Later, rounding has grown into the model: the curves stay near, not equal.
    for want, got in zip(
        rows(home, "unbroken")[:20], rows(home, "tensor"), strict=False
    ):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-3)
        assert got["tokens"] == want["tokens"]


def test_running_a_finished_run_again_changes_nothing_and_succeeds(home, unbroken):
    before = curve(home, "unbroken")
    result = train(home, "unbroken")
    assert result.returncode == 0
    assert "all 300 steps are done" in result.stderr
    assert curve(home, "unbroken") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optim.peek_lr=1"], "Did you mean 'optim.peak_lr'?"),
        (
            ["--config.model.vocab_size=100"],
            "set --config.model.vocab_size=257 or more",
        ),
        (["--config.mesh.data=3"], "do not divide over the 6 devices"),
        (["--config.data.paths=/nowhere"], "/nowhere"),
        (["--config.data.text=/nowhere"], "/nowhere"),
        (["--config.seed=5"], "seed: saved 0, now 5"),
        (["--wrkdir=x"], "unknown argument '--wrkdir=x'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    home, unbroken, arguments, message
):
    run = "unbroken" if "seed" in arguments[0] else "mistakes"
    result = train(home, run, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    lines = [x for x in result.stderr.splitlines() if not x.startswith("prepare: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.stderr
