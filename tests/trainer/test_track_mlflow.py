# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""MLflow's own client against its own server, on loopback, and against a database file."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from podium.trainer import track_mlflow
from podium.trainer.track_mlflow import MlflowBackend
from podium.trainer.tracking import Tracker
from tests.trainer import tracked

mlflow = pytest.importorskip("mlflow", reason="uv sync --extra mlflow")
pytestmark = pytest.mark.filterwarnings("default")  # those of MLflow's own code


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    tracked.hurry(monkeypatch)
    for name in track_mlflow._HURRY:
        monkeypatch.setenv(name, "1")


class Server:
    """`mlflow server` on a port of its own, which may be ended and begun again."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri, self._folder = f"http://127.0.0.1:{self.port}", folder
        self.child = None

    def begin(self):
        store = f"sqlite:///{self._folder}/store.db"
        command = [sys.executable, "-m", "mlflow", "server", "--workers=1"]
        command += ["--backend-store-uri", store, "--port", str(self.port)]
        command += ["--default-artifact-root", f"{self._folder}/artifacts"]
        env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self.child = subprocess.Popen(
                command, stdout=log, stderr=log, env=env, start_new_session=True
            )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.uri}/health", timeout=5),
            ):
                return
            time.sleep(0.2)
        raise AssertionError((self._folder / "server.log").read_text()[-2000:])

    def end(self):
        if self.child:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
            self.child = None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("mlflow"))
    server.begin()
    yield server
    server.end()


@pytest.fixture
def place(server, request):
    """The server, and an experiment of this test's own."""
    return server.uri, request.node.name


def the_run(uri, experiment):
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    return client, run


def curve(client, run, name):
    return {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}


def check_whole(uri, experiment, workdir):
    client, run = the_run(uri, experiment)
    assert run.info.run_name == "mine"
    assert run.info.status == "FINISHED"
    want = {k: str(v) for k, v in tracked.about(workdir).params.items()}
    assert run.data.params == want
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee-dirty"
    assert curve(client, run, "loss") == tracked.losses(1, 8)
    assert curve(client, run, "eval_loss") == {4: 4.6, 8: 4.2}
    assert "grad_norm" not in run.data.metrics
    assert run.data.metrics["summary/goodput"] == 0.5
    ((data, tags),) = [(i.dataset, i.tags) for i in run.inputs.dataset_inputs]
    assert (data.name, data.digest) == ("gs://b/gold", "f" * 36)
    assert json.loads(data.source)["fingerprint"] == "f" * 64
    assert [(t.key, t.value) for t in tags] == [("mlflow.data.context", "training")]
    found = client.search_logged_models([run.info.experiment_id])
    models = {m.model_id: m for m in found}
    outputs = {o.step: models[o.model_id] for o in run.outputs.model_outputs}
    assert len(models) == 2
    assert {s: (m.tags["podium.uri"], m.status) for s, m in outputs.items()} == {
        step: (f"gs://b/runs/mine/checkpoints/{step}", "READY") for step in (4, 8)
    }
    return client, run


def test_a_run_is_there_with_params_curves_figures_data_and_checkpoints(
    place, tmp_path
):
    told = tracked.run(MlflowBackend(*place), tmp_path, 0, 8)
    assert (told["sent"], told["missed"], told["failures"]) == (10, 0, 0)
    assert told["is_closed"]
    check_whole(*place, tmp_path)


def test_a_database_file_needs_no_server(tmp_path):
    place = f"sqlite:///{tmp_path}/runs.db", "first"
    assert not tracked.run(MlflowBackend(*place), tmp_path, 0, 8)["missed"]
    check_whole(*place, tmp_path)


def test_a_resumed_run_is_the_same_run(place, tmp_path):
    tracked.run(MlflowBackend(*place), tmp_path, 0, 6, state="CANCELLED")
    _, run = the_run(*place)
    assert run.info.status == "KILLED"
    told = tracked.run(MlflowBackend(*place), tmp_path, 4, 8, num_steps=9)
    assert told["sent"] == 7  # 5 to 8 with an evaluation, and both rows of 4 again
    _, run = check_whole(*place, tmp_path)  # parameters are those of the first start
    assert run.data.tags["resumed.num_steps"] == "9"


def test_more_rows_and_settings_than_one_request_takes(place, tmp_path, monkeypatch):
    monkeypatch.setattr(track_mlflow, "MOST_METRICS", 3)
    many = {f"many.{i}": i for i in range(250)}
    told = tracked.run(MlflowBackend(*place), tmp_path, 0, 8, **many)
    assert told["failures"] == 0
    client, run = the_run(*place)
    assert run.data.params.items() >= {k: str(v) for k, v in many.items()}.items()
    assert curve(client, run, "loss") == tracked.losses(1, 8)


@pytest.mark.parametrize(
    "call",
    [
        *("create_experiment", "create_run", "log_batch", "log_inputs"),
        *("create_logged_model", "log_outputs", "set_terminated"),
    ],
)
def test_a_request_whose_answer_is_lost_is_made_again_without_harm(
    place, tmp_path, monkeypatch, call
):
    real, lost = getattr(mlflow.MlflowClient, call), []

    def lose(self, *args, **kwargs):
        found = real(self, *args, **kwargs)
        if not lost and (call != "log_batch" or kwargs.get("metrics")):
            lost.append(call)
            raise ConnectionError("the answer is lost")
        return found

    monkeypatch.setattr(mlflow.MlflowClient, call, lose)
    told = tracked.run(MlflowBackend(*place), tmp_path, 0, 8)
    assert told["failures"] == 1
    client, run = check_whole(*place, tmp_path)
    if call == "log_batch":
        history = client.get_metric_history(run.info.run_id, "loss")
        assert len(history) == 8


def test_what_a_server_missed_is_sent_when_it_is_back(tmp_path, capsys):
    server = Server(tmp_path)
    try:
        server.begin()
        place = server.uri, "first"
        tracker = Tracker(MlflowBackend(*place), tracked.about(tmp_path), every=1)
        tracker.start()
        tracked.rows(tmp_path, 0, 2, tracker)
        while tracker.num_sent < 2:
            time.sleep(0.01)
        server.end()
        tracked.rows(tmp_path, 2, 8, tracker)
        while not tracker.num_failures:
            time.sleep(0.01)
        server.begin()
        told = tracker.close("COMPLETE", tracked.SUMMARY, [4, 8], 60.0)
        assert (told["missed"], told["is_closed"]) == (0, True)
        check_whole(*place, tmp_path)
        said = capsys.readouterr().err
        assert said.count("training goes on") == 1
        assert "reached again" in said
    finally:
        server.end()
