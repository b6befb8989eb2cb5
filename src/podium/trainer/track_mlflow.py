# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""MLflow: a run of an experiment, found again by a tag that holds our name for it.

Parameters are written once there and never changed, so those that a resumed run has
anew become tags, `resumed.NAME`. Data sets are MLflow's inputs of the run, checkpoints
its outputs as LoggedModels (MLflow 3); both are names and addresses, no bytes are sent,
so that the server needs no store of artifacts.
"""

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from podium.trainer.tracking import About, Backend, Row, State

# Of one request, mlflow/utils/validation.py.
MOST_METRICS, _MOST_PARAMS = 1000, 100
_MOST_VALUE, _MOST_DIGEST = 5000, 36  # characters of a parameter or tag; of a digest
RUN_TAG = "podium.run"
_STATUS = {
    "RUNNING": "RUNNING",
    "COMPLETE": "FINISHED",
    "FAILED": "FAILED",
    "CANCELLED": "KILLED",
}
# The tracker itself tries again, and says so; MLflow's own seven tries take minutes.
_HURRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
T = TypeVar("T")


class MlflowBackend(Backend):
    """One run of MLflow."""

    name = "mlflow"

    def __init__(self, uri: str, experiment: str):
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._about: About | None = None
        self._experiment_id = self._run_id = ""
        self._times: dict[int, int] = {}  # step -> ms, of the batch that was tried last

    # --- Backend ---------------------------------------------------------------------

    def open(self, about: About) -> None:
        """Makes what is missing of experiment and run, parameters and inputs."""
        for name, value in _HURRY.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._about, self._client = about, MlflowClient(self._uri)
        found = self._client.get_experiment_by_name(self._experiment)
        self._experiment_id = (
            found.experiment_id
            if found
            else self._client.create_experiment(self._experiment)
        )
        run = self._find(about.run)
        if run is None:
            tags = {RUN_TAG: about.run, "mlflow.source.name": "podium.train"}
            if about.commit:
                tags["mlflow.source.git.commit"] = about.commit
            run = self._client.create_run(
                self._experiment_id, run_name=about.run, tags=tags
            )
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        self._run_id = run.info.run_id
        self._log_params(run.data.params)
        self._log_data()

    def log(self, rows: list[Row]) -> None:
        """As metrics by step. The same point at the same time is one to MLflow, so a
        batch that is repeated keeps its times."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._times = {r["step"]: self._times.get(r["step"], now) for r in rows}
        points = [
            Metric(name, float(value), self._times[row["step"]], row["step"])
            for row in rows
            for name, value in row.items()
            if name != "step" and value is not None
        ]
        for batch in _batches(points, MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=batch)

    def close(self, state: State, summary: dict[str, float], steps: list[int]) -> None:
        """Figures as `summary/NAME`, checkpoints as outputs, and the state."""
        from mlflow.entities import Metric

        now, step = int(1000 * time.time()), int(summary.get("step", 0))
        last = [Metric(f"summary/{k}", v, now, step) for k, v in summary.items()]
        if last:
            self._client.log_batch(self._run_id, metrics=last)
        self._log_checkpoints(steps)
        with contextlib.redirect_stdout(io.StringIO()):  # MLflow prints an address
            self._client.set_terminated(self._run_id, status=_STATUS[state])

    # --- parts -----------------------------------------------------------------------

    def _find(self, run: str) -> Any:
        found = self._client.search_runs(
            [self._experiment_id],
            filter_string=f"tags.`{RUN_TAG}` = '{run}'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        return found[0] if found else None

    def _log_params(self, there: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        assert self._about
        ours = {k: str(v)[:_MOST_VALUE] for k, v in self._about.params.items()}
        new = [Param(k, v) for k, v in ours.items() if k not in there]
        for params in _batches(new, _MOST_PARAMS):
            self._client.log_batch(self._run_id, params=params)
        changed = [k for k, v in ours.items() if there.get(k, v) != v]
        tags = [RunTag(f"resumed.{k}", ours[k]) for k in changed]
        for some in _batches(tags, _MOST_PARAMS):
            self._client.log_batch(self._run_id, tags=some)

    def _log_data(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        assert self._about
        inputs = [
            DatasetInput(
                Dataset(
                    name=path[-_MOST_VALUE // 10 :],
                    digest=fingerprint[:_MOST_DIGEST],
                    source_type="gs" if path.startswith("gs://") else "local",
                    source=json.dumps({"uri": path, "fingerprint": fingerprint}),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
            for path, fingerprint in self._about.data
        ]
        if inputs:
            self._client.log_inputs(self._run_id, inputs)

    def _log_checkpoints(self, steps: list[int]) -> None:
        from mlflow.entities import LoggedModelOutput

        assert self._about
        there = {int(m.tags["podium.step"]): m for m in self._models()}
        outputs = self._client.get_run(self._run_id).outputs
        linked = {o.model_id for o in outputs.model_outputs} if outputs else set()
        for step in steps:
            model = there.get(step) or self._client.create_logged_model(
                self._experiment_id,
                name=f"{self._about.run}-step-{step}",
                source_run_id=self._run_id,
                tags={
                    "podium.step": str(step),
                    "podium.format": "orbax",
                    "podium.uri": f"{self._about.checkpoints}/{step}",
                },
                model_type="checkpoint",
            )
            if model.model_id not in linked:  # twice is an error
                output = LoggedModelOutput(model.model_id, step)
                self._client.log_outputs(self._run_id, [output])
            if model.status != "READY":
                self._client.finalize_logged_model(model.model_id, "READY")

    def _models(self) -> Iterator[Any]:
        token = None
        while True:
            found = self._client.search_logged_models(
                [self._experiment_id],
                filter_string=f"source_run_id = '{self._run_id}'",
                page_token=token,
            )
            yield from (m for m in found if "podium.step" in m.tags)
            token = found.token
            if not token:
                return


def _batches(items: Sequence[T], most: int) -> Iterator[list[T]]:
    for first in range(0, len(items), most):
        yield list(items[first : first + most])
