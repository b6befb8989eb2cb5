# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A sweep on Vertex AI: one HyperparameterTuningJob, whose trials are the run's own job.

Vizier proposes and judges; each trial is the job's command with the trial's settings
behind it, in a folder of its own, `gs://BUCKET/runs/RUN/<trial>`. The same command
finds the job that it started.
"""

import hashlib
import json
import time
from typing import Any

from launch.cloud import Cloud
from launch.jobs import DONE, id_of, is_active, state_of
from launch.request import REQUEST_LABEL, RUN_LABEL, Package
from launch.sweep_report import Row, short
from launch.vertex import Launch, step
from podium import cli
from podium.config_sweep import Choice, Range, SweepConfig, Value, rounded
from podium.errors import CloudError, ConfigError

_PREFIX = "config."  # a parameter is the flag --config.NAME of the job's command
_UNDER_WAY = ("REQUESTED", "ACTIVE", "STOPPING")


def tuning_job(
    sweep: SweepConfig, launch: Launch, package: Package | None = None
) -> dict[str, Any]:
    """The request, in the names of the REST API; by tag where nothing is built yet."""
    job = launch.custom_job(package)
    for pool in job["jobSpec"]["workerPoolSpecs"]:
        pool["containerSpec"]["args"].append(f"--metric={sweep.metric}")
    study: dict[str, Any] = {
        "metrics": [{"metricId": sweep.metric, "goal": sweep.goal.upper()}],
        "parameters": [_parameter(*entry) for entry in sweep.space.items()],
    }
    if sweep.stopping:
        study["medianAutomatedStoppingSpec"] = {"useElapsedDuration": False}
    found = {
        "displayName": launch.run,
        "studySpec": study,
        "maxTrialCount": sweep.num_trials,
        "parallelTrialCount": min(sweep.parallel, sweep.num_trials),
        "trialJobSpec": job["jobSpec"],
    }
    asked = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return {**found, "labels": job["labels"] | {REQUEST_LABEL: asked[:16]}}


def _parameter(key: str, choices: Range | Choice) -> dict[str, Any]:
    name = {"parameterId": _PREFIX + key}
    if isinstance(choices, Choice):
        return {
            **name,
            "categoricalValueSpec": {"values": list(map(str, choices.values))},
        }
    low, high = rounded(key, choices.low), rounded(key, choices.high)
    whole = isinstance(low, int)
    ends = (
        {"minValue": str(low), "maxValue": str(high)}
        if whole
        else {
            "minValue": low,
            "maxValue": high,
        }
    )
    scale = "UNIT_LOG_SCALE" if choices.scale == "log" else "UNIT_LINEAR_SCALE"
    kind = "integerValueSpec" if whole else "doubleValueSpec"
    return {**name, kind: ends, "scaleType": scale}


def submit(cloud: Cloud, request: dict[str, Any]) -> tuple[Any, bool]:
    """The job of a request, and whether it is a new one: once, whatever answers are
    lost. Raises ConfigError where the run is at another sweep, CloudError."""
    from google.cloud.aiplatform_v1 import types

    wanted = types.HyperparameterTuningJob.from_json(json.dumps(request))
    run, asked = wanted.labels[RUN_LABEL], wanted.labels[REQUEST_LABEL]

    def same() -> Any:
        for job in _jobs_of(cloud, run):
            is_same = job.labels[REQUEST_LABEL] == asked
            if is_same and (is_active(job) or state_of(job) == DONE):
                return job
            if is_active(job):
                raise ConfigError(
                    f"run {run} is at another sweep, {id_of(job)}; wait for it, or name "
                    "another run (--config.launch.run=NAME)"
                )
        return None

    if found := same():
        return found, False
    job = cloud.call(
        "submit",
        lambda: cloud.jobs.create_hyperparameter_tuning_job(
            parent=cloud.parent, hyperparameter_tuning_job=wanted, retry=None
        ),
        settled=same,
    )
    return job, True


def _jobs_of(cloud: Cloud, run: str) -> list[Any]:
    from google.cloud.aiplatform_v1 import types

    asked = types.ListHyperparameterTuningJobsRequest(
        parent=cloud.parent, filter=f'labels.{RUN_LABEL}="{run}"'
    )

    def ask() -> list[Any]:
        found = cloud.jobs.list_hyperparameter_tuning_jobs(request=asked, retry=None)
        return list(found)

    return cloud.call("sweeps", ask)


def follow(cloud: Cloud, job: Any, sweep: SweepConfig) -> list[Row]:
    """Stays until the job has ended, and says what becomes of its trials. Raises
    CloudError where it did not succeed."""
    seen: dict[str, str] = {}
    while True:
        job = cloud.call(
            "sweep",
            lambda name=job.name: cloud.jobs.get_hyperparameter_tuning_job(
                name=name, retry=None
            ),
        )
        rows = rows_of(job, sweep)
        for trial, row in zip(job.trials, rows, strict=True):
            state = trial.state.name
            if seen.get(trial.id) != state:
                seen[trial.id] = state
                value = (
                    "" if row.value is None else f", {sweep.metric} {short(row.value)}"
                )
                cli.say(f"trial {trial.id}: {state.lower()}{value}")
        if not is_active(job):
            break
        time.sleep(cloud.patience.poll_secs)
    step("sweep", f"{id_of(job)} {state_of(job)}")
    if state_of(job) != DONE and not any(row.is_done for row in rows):
        why = " ".join(job.error.message.split()) or "no reason is given"
        error = CloudError(f"sweep {id_of(job)} ended as {state_of(job)}: {why[:600]}")
        error.is_met_at_work = True
        raise error
    return rows


def rows_of(job: Any, sweep: SweepConfig) -> list[Row]:
    """The trials of a tuning job."""
    found = []
    for trial in job.trials:
        given = {
            p.parameter_id.removeprefix(_PREFIX): p.value for p in trial.parameters
        }
        params = {
            key: _value(key, choices, given[key])
            for key, choices in sweep.space.items()
            if key in given
        }
        metrics = {m.metric_id: m.value for m in trial.final_measurement.metrics}
        value, at = metrics.get(sweep.metric), int(trial.final_measurement.step_count)
        end = _end(trial, sweep.metric, value)
        found.append(
            Row(int(trial.id), params, value, at if value is not None else None, end)
        )
    return found


def _end(trial: Any, metric: str, value: float | None) -> str:
    state = trial.state.name
    if state in _UNDER_WAY:
        return ""
    if state != "SUCCEEDED":
        return f"failed: {trial.infeasible_reason or state.lower()}"
    return "done" if value is not None else f"failed: it told no {metric}"


def _value(key: str, choices: Range | Choice, value: Any) -> Value:
    """As the file has it: choices come back as text, whole numbers as floats."""
    if isinstance(choices, Choice):
        return next((v for v in choices.values if str(v) == str(value)), value)
    return rounded(key, float(value))
