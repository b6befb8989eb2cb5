# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Vertex AI Experiments: a run is a context of ML Metadata with a TensorBoard run.

What is made, and how it is named, is what `aiplatform.ExperimentRun` makes and reads
(google-cloud-aiplatform, metadata/experiment_run_resource.py), so that the console, and
`aiplatform.get_experiment_df`, show it. The generated clients under that class are called
here: it writes a request a step, deletes a run that it could not finish making, and is
twice as slow to import. Everything is made under a name of ours, so a request that is
repeated after its answer was lost finds what it made.
"""

import functools
from collections.abc import Callable
from typing import Any

from podium.endpoints import credentials, override
from podium.lean_package import make_lean
from podium.trainer import lineage
from podium.trainer.tracking import About, Backend, Row, State

MOST_POINTS = (
    5000  # of one write, google/cloud/aiplatform_v1/types/tensorboard_service.py
)
_SECS = 60.0  # for a request
_STORE_SECS = 300.0  # for a metadata store or a TensorBoard to be made, once a project
_BOARD_LABEL = {"vertex_tensorboard_experiment_source": "vertex_experiment"}
_BOARD_ARTIFACT = "google.VertexTensorboardRun"


class Clients:
    """Google's generated clients for one project and region."""

    def __init__(self, project: str, region: str):
        self.project, self.region = project, region
        self.parent = f"projects/{project}/locations/{region}"
        self.store = f"{self.parent}/metadataStores/default"
        make_lean("google.cloud.aiplatform_v1")

    @functools.cached_property
    def metadata(self) -> Any:
        """MetadataServiceClient."""
        from google.cloud.aiplatform_v1.services import metadata_service

        return self._rest(metadata_service.MetadataServiceClient)

    @functools.cached_property
    def boards(self) -> Any:
        """TensorboardServiceClient."""
        from google.cloud.aiplatform_v1.services import tensorboard_service

        return self._rest(tensorboard_service.TensorboardServiceClient)

    def _rest(self, client: Any) -> Any:
        from google.api_core.client_options import ClientOptions

        address = override("AIPLATFORM")
        host = address or f"https://{self.region}-aiplatform.googleapis.com"
        return client(
            transport="rest",
            client_options=ClientOptions(
                api_endpoint=host, quota_project_id=None if address else self.project
            ),
            credentials=credentials(address),
        )


class VertexBackend(Backend):
    """One ExperimentRun."""

    name = "vertex"

    def __init__(self, project: str, region: str, experiment: str):
        self._clients = Clients(project, region)
        self._experiment = experiment
        self._board_run = ""  # resource name
        self._series: dict[str, str] = {}  # name -> id
        self._about: About | None = None

    # --- Backend ---------------------------------------------------------------------

    def open(self, about: About) -> None:
        """Makes what is missing of experiment, run and TensorBoard."""
        clients = self._clients
        self._about, self._series = about, {}
        self._ensure_store()
        experiment = self._ensure_context(
            self._experiment,
            schema_title="system.Experiment",
            metadata={"experiment_deleted": False},
        )
        run = self._ensure_context(
            f"{self._experiment}-{about.run}",
            display_name=about.run,
            schema_title="system.ExperimentRun",
            metadata={"_params": {}, "_metrics": {}, "_state": "RUNNING"},
        )
        clients.metadata.add_context_children(
            context=experiment.name, child_contexts=[run.name], timeout=_SECS
        )
        board = self._ensure_board(experiment)
        self._board_run = self._ensure_board_run(board, about.run)
        lineage.add_artifact(
            clients,
            context=run.name,
            id_=f"{self._experiment}-{about.run}-tb-run",
            schema_title=_BOARD_ARTIFACT,
            uri=f"https://{clients.region}-aiplatform.googleapis.com/v1/{self._board_run}",
            metadata={
                "resourceName": self._board_run,
                "vertex_experiment_tracking": True,
            },
        )
        self._run = run.name
        self._update(self._run, {"_params": about.params, "_state": "RUNNING"})
        lineage.write_inputs(clients, self._run, about)

    def log(self, rows: list[Row]) -> None:
        """As points of time series, one a metric."""
        points = [
            (name, row["step"], float(value))
            for row in rows
            for name, value in row.items()
            if name != "step" and value is not None
        ]
        self._ensure_series({name for name, _, _ in points})
        for first in range(0, len(points), MOST_POINTS):
            self._write(points[first : first + MOST_POINTS])

    def close(self, state: State, summary: dict[str, float], steps: list[int]) -> None:
        """Figures, state, and the checkpoints as outputs of the run."""
        assert self._about
        lineage.write_outputs(self._clients, self._run, self._about, steps)
        self._update(self._run, {"_metrics": summary, "_state": state})

    # --- parts -----------------------------------------------------------------------

    def _ensure_store(self) -> None:
        from google.api_core.exceptions import NotFound

        metadata, store = self._clients.metadata, self._clients.store
        try:
            metadata.get_metadata_store(name=store, timeout=_SECS)
        except NotFound:
            ensure(
                lambda: metadata.create_metadata_store(
                    parent=self._clients.parent,
                    metadata_store_id="default",
                    metadata_store={},
                    timeout=_SECS,
                ).result(_STORE_SECS),
                lambda: metadata.get_metadata_store(name=store, timeout=_SECS),
            )

    def _ensure_context(self, id_: str, **fields: Any) -> Any:
        fields = {"display_name": id_, "schema_version": "0.0.1", **fields}
        clients = self._clients
        return ensure(
            lambda: clients.metadata.create_context(
                parent=clients.store, context_id=id_, context=fields, timeout=_SECS
            ),
            lambda: clients.metadata.get_context(
                name=f"{clients.store}/contexts/{id_}", timeout=_SECS
            ),
        )

    def _ensure_board(self, experiment: Any) -> str:
        """The experiment's TensorBoard, else the project's default one, else a new one."""
        key = "backing_tensorboard_resource"
        if found := dict(experiment.metadata).get(key):
            return found
        boards = self._clients.boards
        request = {"parent": self._clients.parent, "filter": "is_default=true"}
        found = next(
            (b.name for b in boards.list_tensorboards(request, timeout=_SECS)), None
        )
        if found is None:
            made = boards.create_tensorboard(
                parent=self._clients.parent,
                tensorboard={"display_name": "Default TensorBoard", "is_default": True},
                timeout=_SECS,
            )
            found = made.result(_STORE_SECS).name
        self._update(experiment.name, {key: found})
        return found

    def _ensure_board_run(self, board: str, run: str) -> str:
        boards = self._clients.boards
        experiment = f"{board}/experiments/{self._experiment}"
        ensure(
            lambda: boards.create_tensorboard_experiment(
                request={
                    "parent": board,
                    "tensorboard_experiment_id": self._experiment,
                    "tensorboard_experiment": {
                        "display_name": self._experiment,
                        "labels": _BOARD_LABEL,
                    },
                },
                timeout=_SECS,
            ),
            lambda: boards.get_tensorboard_experiment(name=experiment, timeout=_SECS),
        )
        found = ensure(
            lambda: boards.create_tensorboard_run(
                parent=experiment,
                tensorboard_run_id=run,
                tensorboard_run={"display_name": run},
                timeout=_SECS,
            ),
            lambda: boards.get_tensorboard_run(
                name=f"{experiment}/runs/{run}", timeout=_SECS
            ),
        )
        return found.name

    def _ensure_series(self, names: set[str]) -> None:
        boards, parent = self._clients.boards, self._board_run
        if names <= self._series.keys():
            return
        there = boards.list_tensorboard_time_series(parent=parent, timeout=_SECS)
        self._series = {s.display_name: s.name.rpartition("/")[2] for s in there}
        for name in sorted(names - self._series.keys()):
            made = boards.create_tensorboard_time_series(
                parent=parent,
                tensorboard_time_series={
                    "display_name": name,
                    "value_type": "SCALAR",
                    "plugin_name": "scalars",
                },
                timeout=_SECS,
            )
            self._series[name] = made.name.rpartition("/")[2]

    def _write(self, points: list[tuple[str, int, float]]) -> None:
        by_name: dict[str, list[dict[str, Any]]] = {}
        for name, step, value in points:
            point = {"step": step, "scalar": {"value": value}}
            by_name.setdefault(name, []).append(point)
        data = [
            {
                "tensorboard_time_series_id": self._series[name],
                "value_type": "SCALAR",
                "values": values,
            }
            for name, values in by_name.items()
        ]
        self._clients.boards.write_tensorboard_run_data(
            tensorboard_run=self._board_run, time_series_data=data, timeout=_SECS
        )

    def _update(self, context: str, changes: dict[str, Any]) -> None:
        """Merges into a context's metadata, one level deep as the SDK does."""
        from google.cloud.aiplatform_v1.types import Context

        metadata = self._clients.metadata
        found = metadata.get_context(name=context, timeout=_SECS)
        tree = Context.to_dict(found)["metadata"]
        for key, value in changes.items():
            is_tree = isinstance(value, dict) and isinstance(tree.get(key), dict)
            tree[key] = {**tree[key], **value} if is_tree else value
        metadata.update_context(
            context={"name": found.name, "etag": found.etag, "metadata": tree},
            update_mask={"paths": ["metadata"]},
            timeout=_SECS,
        )


def ensure(make: Callable[[], Any], get: Callable[[], Any]) -> Any:
    """What `get` finds, or what `make` makes of it where there is none."""
    from google.api_core.exceptions import AlreadyExists, NotFound

    try:
        return get()
    except NotFound:
        pass
    try:
        return make()
    except AlreadyExists:  # an earlier request made it
        return get()
