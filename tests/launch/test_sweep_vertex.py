# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Sweeps on Vertex AI, Google's client against a server on loopback."""

import json
import time

import pytest
import yaml
from google.cloud.aiplatform_v1 import types

from launch import sweep, sweep_vertex
from launch.trial_metric import TrialMetric
from podium import cli
from podium.errors import CloudError
from tests.launch.test_jobs import COMMAND

SUBMIT = r"POST /v1/.*/hyperparameterTuningJobs$"
SWEEP = """
from podium.config_sweep import Choice, Range, SweepConfig

def get_sweep():
    return SweepConfig(
        space={"optim.peak_lr": Range(1e-4, 3e-2, scale="log"),
               "model.num_layers": Range(1, 4),
               "optim.weight_decay": Choice((0.0, 0.1))},
        num_trials=3, parallel=2)
"""


def trial(number, state, lr, loss=None, step=0):
    found = {
        "id": str(number),
        "state": state,
        "parameters": [
            {"parameterId": "config.optim.peak_lr", "value": lr},
            {"parameterId": "config.model.num_layers", "value": 2.0},
            {"parameterId": "config.optim.weight_decay", "value": "0.1"},
        ],
    }
    if loss is not None:
        metrics = [{"metricId": "eval_loss", "value": loss}]
        found["finalMeasurement"] = {"stepCount": str(step), "metrics": metrics}
    return found


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "sweep.py").write_text(SWEEP)
    where = [f"--sweep={tmp_path / 'sweep.py'}", f"--workdir={tmp_path / 'D'}"]
    return [*COMMAND, *where]


def test_a_sweep_is_one_job_of_the_runs_own_trials(google, flags, tmp_path, capsys):
    assert sweep.main([*flags, "--dry_run"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    google.trials = [
        [trial(1, "ACTIVE", 0.01)],
        [trial(1, "SUCCEEDED", 0.01, 3.5, 500), trial(2, "ACTIVE", 0.002)],
        [
            trial(1, "SUCCEEDED", 0.01, 3.5, 500),
            trial(2, "INFEASIBLE", 0.002),
            trial(3, "SUCCEEDED", 0.005, 3.25, 500),
        ],
    ]
    google.fail(SUBMIT, 503, late=True)  # the answer is lost, the job is there
    assert sweep.main(flags) == 0
    out, err = capsys.readouterr()
    (sent,) = google.sweeps.values()
    assert google.count(SUBMIT) == 1
    number = sent["name"].rpartition("/")[2]
    assert f"/training/{number}?project=my-project" in err
    sent = {key: sent[key] for key in printed}
    kind = types.HyperparameterTuningJob
    assert kind.from_json(json.dumps(sent)) == kind.from_json(json.dumps(printed))
    assert printed["studySpec"] == {
        "metrics": [{"metricId": "eval_loss", "goal": "MINIMIZE"}],
        "parameters": [
            {
                "parameterId": "config.optim.peak_lr",
                "doubleValueSpec": {"minValue": 1e-4, "maxValue": 3e-2},
                "scaleType": "UNIT_LOG_SCALE",
            },
            {
                "parameterId": "config.model.num_layers",
                "integerValueSpec": {"minValue": "1", "maxValue": "4"},
                "scaleType": "UNIT_LINEAR_SCALE",
            },
            {
                "parameterId": "config.optim.weight_decay",
                "categoricalValueSpec": {"values": ["0.0", "0.1"]},
            },
        ],
        "medianAutomatedStoppingSpec": {"useElapsedDuration": False},
    }
    assert (printed["maxTrialCount"], printed["parallelTrialCount"]) == (3, 2)
    (pool,) = printed["trialJobSpec"]["workerPoolSpecs"]
    assert pool["containerSpec"]["args"][-1] == "--metric=eval_loss"
    assert "trial 2: infeasible" in err
    assert out.strip().splitlines()[-1] == (
        "best: --config.optim.peak_lr=0.005 --config.model.num_layers=2 "
        "--config.optim.weight_decay=0.1"
    )
    assert (tmp_path / "D" / "sweep.png").exists()

    assert sweep.main(flags) == 0  # it is there
    assert "is there already, as asked for" in capsys.readouterr().err
    assert len(google.sweeps) == 1


def test_a_run_at_another_sweep_is_refused(google, flags, capsys):
    google.trials = [[trial(1, "SUCCEEDED", 0.01, 3.5, 500)]]
    assert sweep.main(flags) == 0
    (first,) = google.sweeps.values()
    first["state"] = "JOB_STATE_RUNNING"
    with pytest.raises(SystemExit) as stop:
        cli.run(sweep.main, [*flags, "--trials=9"])
    assert stop.value.code == 2
    assert "run mine is at another sweep" in capsys.readouterr().err.splitlines()[-1]


def test_a_sweep_that_failed_says_why(cloud, google):
    found = sweep.load_sweep("configs/sweeps/quickstart.py")
    google._get_sweep = lambda name, query, body: google.sweeps["6"]
    google.sweeps["6"] = {
        "name": "projects/1/locations/us-central1/hyperparameterTuningJobs/6",
        "state": "JOB_STATE_FAILED",
        "error": {"code": 3, "message": "too many trials failed"},
    }
    job = cloud.jobs.get_hyperparameter_tuning_job(name=google.sweeps["6"]["name"])
    with pytest.raises(CloudError, match="ended as FAILED: too many trials failed"):
        sweep_vertex.follow(cloud, job, found)


def test_a_trial_tells_its_metric_as_it_comes(tmp_path, monkeypatch):
    path = tmp_path / "hypertune" / "output.metrics"
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(path))
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")
    monkeypatch.setattr("launch.trial_metric._LOOK_SECS", 0.01)
    metrics = tmp_path / "metrics.jsonl"
    with TrialMetric(tmp_path, "eval_loss"):
        metrics.write_text('{"step": 4, "loss": 9}\n{"step": 4, "eval_loss": 5.5}\n')
        until = time.monotonic() + 30
        while not path.exists() or not path.read_text():
            assert time.monotonic() < until
            time.sleep(0.01)
        with metrics.open("a") as file:
            file.write('{"step": 8, "eval_loss": 4.5}\n')
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(t["global_step"], t["eval_loss"], t["trial"]) for t in told] == [
        ("4", "5.5", "7"),
        ("8", "4.5", "7"),
    ]
    path.unlink()
    with TrialMetric(tmp_path, None):
        pass
    assert not path.exists()
