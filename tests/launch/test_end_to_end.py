# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""launch.vertex, the job's own command on two hosts, machines that go, and the curve."""

import csv
import json
import subprocess
import sys
import threading
import time

import pytest

from launch import compare, sweep, vertex
from podium import storage
from podium.prepare import main as prepare
from podium.resume import whole_steps
from podium.trainer.metrics import read_metrics
from tests.launch.containers import Containers, Trials

pytestmark = pytest.mark.timeout(1500)  # nine processes of jax start one after another
STEPS = 24
TINY = [
    "--config=configs/quickstart.py",
    f"--config.num_steps={STEPS}",
    "--config.optim.optimizer.kind=adamw",
    "--config.optim.peak_lr=1e-2",
    "--config.optim.schedule.warmup_steps=2",
    "--config.log_every_steps=1",
    "--config.checkpoint.every_steps=3",
    "--config.eval.every_steps=10",
    "--config.eval.ngram_baselines=false",
    "--config.sample=None",
    "--config.model.vocab_size=272",
    # Steps of half a second: a checkpoint is seen, and acted on, long before the end.
    "--config.data.seq_len=256",
    "--config.peer_secs=300",
]


@pytest.fixture(scope="module")
def gold(bucket, tmp_path_factory):
    """A small data set, on the disk and in the bucket."""
    folder = tmp_path_factory.mktemp("gold")
    (folder / "text").mkdir()
    for i in range(24):
        text = f"document {i}: " + "to be or not to be, " * (i + 20)
        (folder / "text" / f"{i}.txt").write_text(text)
    out = folder / "gold"
    flags = ["--tokenizer=bytes", "--eval_fraction=0.25", f"--output={out}"]
    assert prepare([f"--input={folder / 'text'}", *flags]) == 0
    there = storage.open_folder("gs://podium-tests/gold")
    here = storage.open_folder(out)
    for name in here.files():
        there.write(name, here.read(name))
    return out


@pytest.fixture(scope="module")
def unbroken_folder(gold, tmp_path_factory):
    """The same run, here and in one go."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run(
        [
            *(sys.executable, "-m", "podium.train", *TINY),
            f"--config.data.paths={gold}",
            f"--workdir={workdir}",
        ],
        check=True,
        capture_output=True,
    )
    return workdir


@pytest.fixture(scope="module")
def unbroken(unbroken_folder):
    """The rows of that run."""
    return read_metrics(unbroken_folder)


@pytest.fixture
def containers(google, gold, tmp_path):
    """Jobs run here, on the data in the bucket."""
    found = Containers(google, tmp_path)
    google.on_job = found.run
    yield found
    found.kill()


CLOUD = [
    *TINY,
    "--config.launch.project=my-project",
    "--config.launch.bucket=gs://podium-tests/e2e",
    "--config.launch.image=us-docker.pkg.dev/p/r/i:t",
    "--config.data.paths=gs://podium-tests/gold",
]


def launch(run, *more):
    return vertex.main([*CLOUD, f"--config.launch.run={run}", "--follow", *more])


GPUS = ["--config.launch.machine=a3-highgpu-1g", "--config.launch.count=2"]
GPUS += ["--config.launch.capacity.kind=spot"]


def rows_of(run, tmp_path):
    """The metrics that the job left in the bucket."""
    folder = storage.open_folder(f"gs://podium-tests/e2e/runs/{run}/run")
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "metrics.jsonl").write_bytes(folder.read("metrics.jsonl"))
    return read_metrics(tmp_path / "found")


def assert_same_curve(rows, unbroken):
    kinds = [
        [(r["step"], "eval_loss" in r) for r in found] for found in (rows, unbroken)
    ]
    assert kinds[0] == kinds[1]
    for row, want in zip(rows, unbroken, strict=True):
        name = "loss" if "loss" in want else "eval_loss"
        assert row[name] == pytest.approx(want[name], rel=1e-5)


def lines_of(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.strip()]


def saved_steps(run):
    folder = storage.open_folder(f"gs://podium-tests/e2e/runs/{run}")
    whole = whole_steps(folder.inside("checkpoints"))
    try:
        last = json.loads(folder.read("run/metrics.jsonl").splitlines()[-1])["step"]
    except (FileNotFoundError, ValueError, IndexError):
        last = 0
    return whole, last


def once(run, at_least, act, problems):
    """Waits until a checkpoint and the metrics up to it are in the bucket; then acts."""

    def wait():
        until = time.monotonic() + 500
        while time.monotonic() < until:
            steps, last = saved_steps(run)
            if steps and STEPS > max(steps) >= at_least and last >= max(steps):
                return act()
            time.sleep(0.2)
        problems.append(f"no checkpoint {at_least}")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


EXPERIMENT = ["--config.launch.experiment=e2e"]


def assert_same_experiment(google, unbroken):
    """What Vertex Experiments has of the run is what the files of the other one say."""
    there = google.experiments
    assert there.context("e2e-broken")["metadata"]["_state"] == "COMPLETE"
    assert len([n for n in there.found if "/contexts/e2e-" in n]) == 1
    for metric in ("loss", "eval_loss"):
        want = {row["step"]: row[metric] for row in unbroken if metric in row}
        assert there.curve("broken", metric) == pytest.approx(want, rel=1e-5)
    (execution,) = there.events
    kinds = sorted(there.events[execution].values())
    assert kinds.count("INPUT") == 3  # data, config and code, of all starts the same
    uris = [there.found[name].get("uri") for name in there.events[execution]]
    assert f"gs://podium-tests/e2e/runs/broken/checkpoints/{STEPS}" in uris


def test_a_run_on_two_hosts_whose_machines_go_twice_is_the_unbroken_run(
    google, containers, unbroken, unbroken_folder, tmp_path, capsys
):
    problems = []

    def lose_then_preempt():
        containers.lose_hosts()
        once("broken", 9, containers.preempt, problems)

    once("broken", 3, lose_then_preempt, problems)
    code = launch("broken", *GPUS, *EXPERIMENT)
    said = capsys.readouterr().err
    assert code == 0, said
    assert not problems
    assert containers.starts == 3, said
    assert containers.codes[0] == [-9, -9]
    assert containers.codes[1] == [134, 134]  # saved, and to be started again
    assert containers.codes[2] == [0, 0]
    assert "job       RUNNING" in said  # a short PENDING may pass between two looks
    assert f"training  step {STEPS} of {STEPS}" in said
    assert_same_curve(rows_of("broken", tmp_path), unbroken)
    folder = storage.open_folder("gs://podium-tests/e2e/runs/broken")
    assert any("tfevents" in name for name in folder.inside("logs").names())
    steps = folder.inside("checkpoints").names()
    assert str(STEPS) in steps

    # A start after the last step finds nothing left to do, on every host.
    google.set_state(next(iter(google.jobs.values())), "CANCELLED")
    assert launch("broken", *GPUS, *EXPERIMENT) == 0
    assert containers.codes[3] == [0, 0]
    assert_same_experiment(google, unbroken)

    capsys.readouterr()
    flags = ["--experiment=e2e", "--project=my-project", f"--output={tmp_path / 'out'}"]
    assert compare.main([*flags, f"--runs=broken,{unbroken_folder}"]) == 0
    shown = {line.split()[0]: line.split()[1:] for line in lines_of(capsys)}
    assert shown["step"] == [str(STEPS)] * 2
    assert shown["eval_loss"][0] == shown["eval_loss"][1]
    assert (tmp_path / "out" / "curves.png").stat().st_size > 10_000


def test_the_hosts_of_a_slice_find_each_other_by_themselves(
    google, containers, unbroken, tmp_path, capsys
):
    export = "--config.launch.export=hf"
    assert launch("slice", "--slice=tpu7x-16", export) == 0, capsys.readouterr().err
    assert containers.codes == [[0, 0]]
    assert_same_curve(rows_of("slice", tmp_path), unbroken)
    model = storage.open_folder("gs://podium-tests/e2e/runs/slice/model")
    whole = {"config.json", "model.safetensors", "podium.json"}
    assert whole <= set(model.names()), capsys.readouterr().err
    assert json.loads(model.read("podium.json"))["step"] == STEPS


def test_a_mistake_that_only_the_job_can_see_fails_it_with_its_line(
    google, containers, capsys
):
    code = launch("mistake", "--slice=v5e-1", "--config.model.vocab_size=100")
    assert code == 2
    said = capsys.readouterr().err
    assert "| ConfigError: model.vocab_size is 100, but" in said
    assert "exited with a non-zero status of 2" in said.splitlines()[-1]


SWEEP = """
from podium.config_sweep import Choice, Range, SweepConfig

def get_sweep():
    return SweepConfig(
        space={"optim.peak_lr": Range(1e-4, 3e-2, scale="log"),
               "optim.schedule.warmup_steps": Choice((0, 2))},
        num_trials=3, parallel=1)
"""


def test_a_sweep_trains_its_trials_and_says_the_best(
    google, containers, tmp_path, capsys
):
    (tmp_path / "sweep.py").write_text(SWEEP)
    rate, warmup = "config.optim.peak_lr", "config.optim.schedule.warmup_steps"
    proposals = [
        {rate: 1e-4, warmup: "2"},
        {rate: 1e-2, warmup: "0"},
        {rate: -1.0, warmup: "0"},  # Vizier would not: a trial that fails by itself
    ]
    google.on_sweep = Trials(containers, google, proposals).run
    short = ["--config.num_steps=6", "--config.eval.every_steps=3", "--slice=v5e-1"]
    flags = [f"--sweep={tmp_path / 'sweep.py'}", f"--workdir={tmp_path / 'D'}"]
    where = ["--config.launch.run=search", *EXPERIMENT]
    assert sweep.main([*CLOUD, *short, *where, *flags]) == 0
    out, err = capsys.readouterr()
    assert containers.codes == [[0], [0], [2]]
    assert "trial 3: infeasible" in err
    said = out.strip().splitlines()[-1].split()
    assert said == ["best:", f"--{rate}=0.01", f"--{warmup}=0"]
    with (tmp_path / "D" / "results.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [(row["step"], row["end"]) for row in found[:2]] == [("6", "done")] * 2
    assert found[2]["end"].startswith("failed")
    # Each trial left a folder of its own, and the value that Vertex AI was told.
    for number, row in enumerate(found[:2], 1):
        folder = storage.open_folder(f"gs://podium-tests/e2e/runs/search/{number}/run")
        lines = map(json.loads, folder.read("metrics.jsonl").splitlines())
        last = [line for line in lines if "eval_loss" in line][-1]
        assert last["eval_loss"] == pytest.approx(float(row["value"]), rel=1e-6)
        context = google.experiments.context(f"e2e-search-{number}")
        assert context["metadata"]["_state"] == "COMPLETE"
