# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Google's own clients against Vertex Experiments on loopback, and every way it fails."""

import json
import os
import time

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform

from launch import job
from podium.config_launch import LaunchConfig
from podium.trainer import tracking
from podium.trainer.metrics import Metrics
from podium.trainer.track_vertex import VertexBackend
from podium.trainer.tracking import About, Tracker


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(tracking, "_LEAST_SECS", 0.01)
    monkeypatch.setattr(tracking, "_FIRST_PAUSE_SECS", 0.05)
    monkeypatch.setattr(tracking, "_MOST_PAUSE_SECS", 0.2)


def about(workdir):
    return About(
        run="mine",
        workdir=str(workdir),
        params={"num_steps": 8, "optim.peak_lr": 0.01, "model.remat": "full"},
        data=[("gs://b/gold", "f" * 64)],
        commit="c0ffee",
        config="gs://b/runs/mine/run/config.json",
        checkpoints="gs://b/runs/mine/checkpoints",
    )


def tracker(workdir, every=1):
    backend = VertexBackend("my-project", "us-central1", "first")
    return Tracker(backend, about(workdir), every=every)


def train(workdir, first, last, tracker, *, metrics=None):
    """Steps of a run, their losses in metrics.jsonl."""
    with Metrics(
        workdir, first_step=first, tensorboard_every=1, trackers=[tracker]
    ) as metrics:
        for step in range(first + 1, last + 1):
            metrics.write(step, {"loss": 4.0 - step / 10, "tokens": 64})
            if step % 4 == 0:
                metrics.write(step, {"eval_loss": 5.0 - step / 10})


def losses(first, last):
    return {step: pytest.approx(4.0 - step / 10) for step in range(first, last + 1)}


def run(workdir, first, last, secs=20.0, steps=(4, 8)):
    found = tracker(workdir)
    found.start()
    train(workdir, first, last, found)
    return found.close("COMPLETE", {"loss": 3.2, "goodput": 0.5}, list(steps), secs)


def test_googles_own_classes_read_the_run(google, tmp_path, monkeypatch):
    told = run(tmp_path, 0, 8)
    assert told["missed"] == 0
    assert told["is_closed"]
    assert told["sent"] == 10
    assert told["failures"] == 0
    aiplatform.init(
        project="my-project",
        location="us-central1",
        api_endpoint=os.environ["CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"].rstrip(
            "/"
        ),
        api_transport="rest",
        credentials=AnonymousCredentials(),
    )
    there = aiplatform.ExperimentRun("mine", experiment="first")
    assert there.get_params() == about(tmp_path).params
    assert there.get_metrics() == {"loss": 3.2, "goodput": 0.5}
    assert there.get_state() == "COMPLETE"
    (artifact,) = [a for a in there.get_artifacts() if a.name.endswith("-tb-run")]
    board = aiplatform.TensorboardRun(artifact.metadata["resourceName"])
    data = board.read_time_series_data()
    assert {p.step: p.scalar.value for p in data["loss"].values} == losses(1, 8)
    assert google.experiments.curve("mine", "eval_loss") == {4: 4.6, 8: 4.2}


def test_a_checkpoint_tells_its_data_config_and_code(google, tmp_path):
    run(tmp_path, 0, 8)
    found = google.experiments
    (execution, events), *others = found.events.items()
    assert not others
    kinds = {found.found[name]["schemaTitle"]: kind for name, kind in events.items()}
    assert kinds == {
        "system.Dataset": "INPUT",
        "system.Artifact": "INPUT",
        "system.Model": "OUTPUT",
    }
    uris = [found.found[n].get("uri") for n, kind in events.items() if kind == "OUTPUT"]
    assert uris == [f"gs://b/runs/mine/checkpoints/{step}" for step in (4, 8)]
    data = next(n for n in events if "podium-data" in n)
    assert found.found[data]["metadata"] == {"fingerprint": "f" * 64}
    codes = [found.found[n]["metadata"] for n in events if "podium-code" in n]
    assert codes == [{"commit": "c0ffee"}]
    context = found.context("first-mine")["name"]
    assert {execution, *events} <= set(found.parts[context])


ORIGIN = {
    "run": "mine",
    "step": 8,
    "checkpoint": "gs://b/runs/mine/checkpoints/8",
    "data": [{"path": "gs://b/gold", "fingerprint": "f" * 64}],
    "commit": "c0ffee",
    "exported_by": "c0ffee",
}


def test_an_exported_model_comes_from_its_checkpoint(google, tmp_path, capsys):
    run(tmp_path, 0, 8)
    launch = LaunchConfig(project="my-project", experiment="first")
    for _ in range(2):  # a later start tells it again
        job.show_export(launch, ORIGIN, "gs://b/runs/mine/model")
    found = google.experiments
    (export,) = [e for e in found.events if e.endswith("-export")]
    by_kind = {kind: found.found[n] for n, kind in found.events[export].items()}
    assert by_kind["INPUT"]["uri"] == "gs://b/runs/mine/checkpoints/8"
    model = by_kind["OUTPUT"]
    assert (model["uri"], model["schemaTitle"]) == (
        "gs://b/runs/mine/model",
        "system.Model",
    )
    assert model["metadata"]["commit"] == "c0ffee"
    assert model["metadata"]["fingerprints"] == "f" * 64
    (training,) = [e for e in found.events if e.endswith("-training")]
    assert by_kind["INPUT"]["name"] in found.events[training]  # one artifact, not two
    assert model["name"] in found.parts[found.context("first-mine")["name"]]
    google.is_down = True
    job.show_export(launch, ORIGIN, "gs://b/runs/mine/model")
    said = capsys.readouterr().err
    assert "gs://b/runs/mine/model is not in the lineage: " in said


def test_a_resumed_run_is_the_same_run(google, tmp_path):
    run(tmp_path, 0, 6)
    told = run(tmp_path, 4, 8)  # steps 5 and 6 are done again
    assert told["sent"] == 7  # 5 to 8 with an evaluation, and both rows of 4 again
    assert google.experiments.curve("mine", "loss") == losses(1, 8)
    runs = [c for c in google.experiments.found if "/contexts/first-" in c]
    assert len(runs) == 1
    assert google.count("POST .*/tensorboards$") == 1


def test_what_a_service_missed_is_sent_when_it_is_back(google, tmp_path, capsys):
    google.is_down = True
    found = tracker(tmp_path)
    found.start()
    began = time.monotonic()
    train(tmp_path, 0, 8, found)
    assert time.monotonic() - began < 5.0
    while not found.num_failures:
        time.sleep(0.01)
    google.is_down = False
    told = found.close("COMPLETE", {}, [], 30.0)
    assert told["missed"] == 0
    assert told["failures"] > 0
    assert told["error"] == ""
    assert google.experiments.curve("mine", "loss") == losses(1, 8)
    said = capsys.readouterr().err
    assert said.count("training goes on") == 1
    assert "reached again" in said


def test_what_was_missed_to_the_end_is_counted_and_sent_by_the_next_start(
    google, tmp_path
):
    google.is_down = True
    told = run(tmp_path, 0, 8, secs=0.5)
    assert told["missed"] == 10
    assert not told["is_closed"]
    line = tracking.lost_line(told)
    assert "10 rows" in line
    assert "unavailable" in line
    google.is_down = False
    again = tracker(tmp_path)
    again.start()
    told = again.close("COMPLETE", {}, [], 20.0)
    assert told["missed"] == 0
    assert not tracking.lost_line(told)
    assert google.experiments.curve("mine", "loss") == losses(1, 8)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (r"POST .*/contexts$", 503),
        (r"POST .*/tensorboards$", 503),
        (r"POST .*/runs$", 0),
        (r"POST .*/timeSeries$", 0),
        (r"POST .*/artifacts$", 503),
        (r"POST .*:write$", 429),
        (r"POST .*:write$", 0),
        (r"PATCH .*/contexts/", 503),
        (r"PATCH .*/contexts/", 409),
        (r"POST .*:addExecutionEvents", 0),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["refused", "answer lost"])
def test_a_request_that_fails_is_made_again_without_harm(
    google, tmp_path, path, code, late
):
    google.fail(path, code, "RESOURCE_EXHAUSTED" if code == 429 else "away", late=late)
    told = run(tmp_path, 0, 8)
    assert told["failures"] >= 1
    assert told["is_closed"]
    assert google.experiments.curve("mine", "loss") == losses(1, 8)
    found = google.experiments
    assert found.context("first-mine")["metadata"]["_state"] == "COMPLETE"
    for kind, count in (("timeSeries", 3), ("tensorboards", 1), ("executions", 1)):
        made = [name for name in found.found if name.split("/")[-2] == kind]
        assert len(made) == count, made


def test_a_service_that_never_answers_holds_nobody_up(google, tmp_path, monkeypatch):
    stuck = tracker(tmp_path)
    monkeypatch.setattr(stuck.backend, "open", lambda about: time.sleep(60))
    stuck.start()
    began = time.monotonic()
    train(tmp_path, 0, 8, stuck)
    told = stuck.close("COMPLETE", {}, [], 0.3)
    assert time.monotonic() - began < 5.0
    assert told["missed"] == 10


def test_what_is_no_number_is_left_out(google, tmp_path):
    found = tracker(tmp_path)
    found.start()
    with Metrics(
        tmp_path, first_step=0, tensorboard_every=1, trackers=[found]
    ) as metrics:
        metrics.write(1, {"loss": float("nan"), "grad_norm": 1.0})
    assert found.close("FAILED", {}, [], 20.0)["missed"] == 0
    assert google.experiments.curve("mine", "grad_norm") == {1: 1.0}
    assert google.experiments.curve("mine", "loss") == {}


def test_only_the_steps_that_the_config_logs_are_sent(google, tmp_path):
    found = tracker(tmp_path, every=3)
    found.start()
    train(tmp_path, 0, 8, found)
    found.close("COMPLETE", {}, [], 20.0)
    assert set(google.experiments.curve("mine", "loss")) == {3, 6}
    assert set(google.experiments.curve("mine", "eval_loss")) == {4, 8}


def test_a_rewind_goes_back_with_the_file(google, tmp_path):
    found = tracker(tmp_path)
    found.start()
    with Metrics(
        tmp_path, first_step=0, tensorboard_every=1, trackers=[found]
    ) as metrics:
        for step in range(1, 7):
            metrics.write(step, {"loss": 9.0})
        metrics.rewind(2)
        for step in range(3, 7):
            metrics.write(step, {"loss": 1.0})
    assert found.close("COMPLETE", {}, [], 20.0)["missed"] == 0
    curve = google.experiments.curve("mine", "loss")
    assert curve == {1: 9.0, 2: 9.0, 3: 1.0, 4: 1.0, 5: 1.0, 6: 1.0}


def test_a_damaged_state_file_only_means_that_rows_go_twice(google, tmp_path):
    run(tmp_path, 0, 8)
    (tmp_path / tracking.STATE_FILE).write_text("{nonsense")
    assert run(tmp_path, 8, 8)["missed"] == 0
    assert google.experiments.curve("mine", "loss") == losses(1, 8)
    assert json.loads((tmp_path / tracking.STATE_FILE).read_text())["sent"]
