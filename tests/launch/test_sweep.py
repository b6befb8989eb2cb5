# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Sweeps for real: tiny runs, Optuna, a kill in the middle."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from launch import sweep, sweep_report
from launch.sweep_local import metric_rows
from podium import cli
from podium.config_sweep import Choice, MedianStopping, Range, SweepConfig, check_space
from podium.errors import ConfigError
from tests.test_bad_input import CONFIG

SWEEP = """
from podium.config_sweep import Choice, MedianStopping, Range, SweepConfig

def get_sweep():
    return SweepConfig(
        space={"optim.peak_lr": Range(1e-4, 3e-2, scale="log"),
               "model.num_layers": Range(1, 2),
               "optim.weight_decay": Choice((0.0, 0.1))},
        num_trials=4, parallel=2, stopping=MedianStopping(after_trials=2))
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "text").mkdir()
    for i in range(30):
        (tmp_path / "text" / f"{i}.txt").write_text(f"{i}: " + "to be or not " * i)
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "sweep.py").write_text(SWEEP)
    return tmp_path


def command(home, *more):
    return [
        f"--config={home / 'config.py'}",
        f"--sweep={home / 'sweep.py'}",
        f"--workdir={home / 'D'}",
        f"--config.data.text={home / 'text'}",
        "--config.data.tokenizer=bytes",
        "--config.data.eval_fraction=0.2",
        "--config.eval.every_steps=4",
        "--config.checkpoint.every_steps=4",
        *more,
    ]


def results(home):
    with (home / "D" / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_killed_goes_on_and_says_the_best(home, capfd):
    words = [sys.executable, "-m", "launch.sweep", *command(home)]
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list((home / "D").glob("trials/*/config.json")):
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 75, err
    assert "the same command continues" in err

    assert sweep.main(command(home)) == 0
    out, err = capfd.readouterr()
    rows = results(home)
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["end"] for row in rows} <= {"done", "ended early"}
    done = [row for row in rows if row["end"] == "done"]
    assert {row["step"] for row in done} == {"12"}
    least = min(done, key=lambda row: float(row["value"]))
    best = out.strip().splitlines()[-1]
    assert best == (
        f"best: --config.optim.peak_lr={least['optim.peak_lr']} "
        f"--config.model.num_layers={least['model.num_layers']} "
        f"--config.optim.weight_decay={least['optim.weight_decay']}"
    )
    assert (home / "D" / "sweep.png").stat().st_size > 10_000
    for row in rows:  # each trial is the run that its settings say
        config = json.loads(
            (home / "D" / "trials" / f"{int(row['trial']):03}/config.json").read_text()
        )
        assert config["model"]["num_layers"] == int(row["model.num_layers"])
        assert config["optim"]["peak_lr"] == float(row["optim.peak_lr"])
        assert config["data"]["paths"] == [str(home / "D" / "data")]

    assert sweep.main(command(home, "--report")) == 0  # tries nothing more
    assert "trial 4" not in capfd.readouterr().err
    with pytest.raises(ConfigError, match="a sweep with another config"):
        sweep.main(command(home, "--config.seed=3"))


def test_a_mistake_of_all_trials_ends_the_sweep_with_its_words(home):
    (home / "text").rename(home / "elsewhere")
    with pytest.raises(ConfigError, match=r"--config\.data\.text=.* does not exist"):
        sweep.main(command(home))
    (home / "D" / "data").mkdir()
    (home / "D" / "data" / "manifest.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"failed \(2\): DataError: .*not a manifest"):
        sweep.main(command(home))


def test_rows_are_the_metric_by_step_whatever_a_kill_left(tmp_path):
    assert metric_rows(tmp_path, "eval_loss") == []
    lines = ['{"step": 1, "loss": 5}', '{"step": 2, "eval_loss": 4}', '{"step": 3, "ev']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert metric_rows(tmp_path, "eval_loss") == [(2, 4.0)]


def row(number, value, end="done"):
    return sweep_report.Row(number, {"optim.peak_lr": 0.1}, value, 9, end)


@pytest.mark.parametrize(("goal", "number"), [("minimize", 2), ("maximize", 0)])
def test_the_best_is_one_that_came_to_its_end(goal, number):
    space = {"optim.peak_lr": Range(0.0, 1.0)}
    rows = [row(0, 3.0), row(1, 1.0, "ended early"), row(2, 2.0), row(3, None, "")]
    best = sweep_report.best(rows, SweepConfig(space=space, goal=goal))
    assert best
    assert best.number == number
    assert sweep_report.best(rows[1:2], SweepConfig(space=space)) is None


BASE = "configs/quickstart.py"


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"optim.peak_lrr": Range(1, 2)}, "Did you mean 'optim.peak_lr'?"),
        ({"optim.peak_lr": Range(-1, 2)}, "space: optim.peak_lr is -1.0; expected"),
        (
            {"model.mlp.kind": Choice(("swiglu", "swish"))},
            "'swish'; expected one of 'swiglu'",
        ),
        ({"model.mlp.kind": Range(1, 2)}, "expected a Choice, not a Range"),
    ],
)
def test_a_space_that_no_trial_can_have_is_refused(space, says):
    with pytest.raises(ConfigError) as error:
        check_space(SweepConfig(space=space), cli.load_config(BASE))
    assert says in str(error.value)


def test_values_that_clash_with_others_only_are_left_to_the_trials():
    space = {"model.attention.num_heads": Choice((3, 4))}  # num_kv_heads may follow
    check_space(SweepConfig(space=space), cli.load_config(BASE))
    with pytest.raises(ConfigError, match="eval is None"):
        check_space(SweepConfig(space=space), cli.load_config(BASE, {"eval": "None"}))


HEAD = "from podium.config_sweep import *\ndef get_sweep():\n    return SweepConfig("


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(): pass", r"sweep\.py: has no get_sweep\(\)"),
        ("def get_sweep(): return 3", "returned int; expected a SweepConfig"),
        (f"{HEAD}space={{'seed': Range(2, 1)}})", r"sweep\.py:3: Range\(2, 1\)"),
        (f"{HEAD}space={{'seed': 3}})", "expected a Range or a Choice"),
    ],
)  # fmt: skip
def test_a_sweep_file_that_is_wrong_is_one_line(tmp_path, text, says):
    (tmp_path / "sweep.py").write_text(text)
    with pytest.raises(ConfigError, match=says):
        sweep.load_sweep(os.fspath(tmp_path / "sweep.py"))
    with pytest.raises(ConfigError, match=r"none\.py does not exist"):
        sweep.load_sweep(os.fspath(tmp_path / "none.py"))


def test_the_shipped_sweep_is_one_of_its_config():
    found = sweep.load_sweep("configs/sweeps/quickstart.py")
    check_space(found, cli.load_config(BASE))
    assert found.stopping == MedianStopping()


def test_what_differs_from_the_sweep_before_is_named(tmp_path):
    search = sweep.load_sweep("configs/sweeps/quickstart.py")
    cfg = cli.load_config("configs/quickstart.py")
    sweep._check_same(search, cfg, tmp_path, is_report=False)
    now = dataclasses.replace(cfg, num_steps=31)
    with pytest.raises(ConfigError, match="config: num_steps was 500, is 31; use"):
        sweep._check_same(search, now, tmp_path, is_report=False)
    other = dataclasses.replace(search, metric="loss")
    with pytest.raises(ConfigError, match="sweep: metric was eval_loss, is loss; use"):
        sweep._check_same(other, cfg, tmp_path, is_report=False)


def test_labels_of_a_narrow_search_do_not_lie_on_one_another(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.pyplot.close", drawn.append)
    found = SweepConfig(space={"optim.peak_lr": Range(5e-4, 2e-2, scale="log")})
    rates = enumerate((0.0038, 0.00373, 0.0025))
    rows = [
        sweep_report.Row(i, {"optim.peak_lr": lr}, 5.0 + i, 30, "done")
        for i, lr in rates
    ]
    sweep_report.plot(rows, found, tmp_path / "sweep.png")
    trials, rate = drawn[0].axes
    assert all(float(tick).is_integer() for tick in trials.get_xticks())
    low, high = rate.get_xlim()
    labels = [
        x for x in rate.get_xticklabels(which="both") if low <= x.get_position()[0]
    ]
    boxes = [
        x.get_window_extent().transformed(drawn[0].dpi_scale_trans.inverted())
        for x in labels
        if x.get_text() and x.get_position()[0] <= high
    ]
    assert len(boxes) > 2
    assert all(box.y1 - box.y0 > 0.2 for box in boxes)  # inches: turned by 45 degrees
