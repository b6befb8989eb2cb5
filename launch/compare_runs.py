# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs as `launch.compare` sees them, from folders and from Vertex Experiments."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.cloud import Cloud, installed
from launch.follow import RUN_FOLDER, find_run
from launch.machines import hourly_usd
from podium import resume
from podium.errors import ConfigError
from podium.tracking_start import flat
from podium.trainer.metrics import read_metrics
from podium.trainer.summary import summary
from podium.trainer.tracking import run_of

CURVES = ("loss", "eval_loss")
_SECS = 60.0
_OF_MACHINES = "launch."  # settings that say where a run ran, not what it was
_OF_A_PLACE = ("workdir", "checkpoint.folder")
_OF_A_RUN = ("config.json", "metrics.jsonl", "events.jsonl", "tracking.json")
_SHOWN_OF_MACHINES = ("launch.machine", "launch.count")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run, wherever it is kept."""

    name: str
    where: str  # its folder, or the state it has in Experiments
    params: dict[str, Any]  # dotted names
    figures: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]  # metric -> (step, value), by step


def from_folder(workdir: Path) -> Run:
    """Of podium.train's --workdir. Raises ConfigError."""
    if not (workdir / "metrics.jsonl").is_file():
        raise ConfigError(
            f"--runs: {workdir} has no metrics.jsonl; expected a folder of podium.train, "
            "or with --experiment=E the name of a run of it"
        )
    tree = resume.saved_config(workdir)
    rows = read_metrics(workdir)
    figures = summary(workdir)
    return Run(
        name=run_of(workdir) or workdir.resolve().name,
        where=str(workdir),
        params=_plain(flat(tree)),
        figures=figures | _cost(tree.get("launch"), figures),
        curves={
            name: [(r["step"], r[name]) for r in rows if r.get(name) is not None]
            for name in CURVES
        },
    )


def from_bucket(address: str) -> Run:
    """Of a job's folder, gs://BUCKET/runs/RUN. Raises ConfigError, StorageError."""
    if (there := find_run(address, "metrics.jsonl")) is None:
        raise ConfigError(
            f"{address} has no {RUN_FOLDER}/metrics.jsonl; --runs takes the folder of a "
            "job, gs://BUCKET/runs/RUN, once it has done a step"
        )
    with tempfile.TemporaryDirectory() as folder:
        for name in set(there.names()) & set(_OF_A_RUN):
            (Path(folder) / name).write_bytes(there.read(name))
        run = from_folder(Path(folder))
    name = run.params.get("launch.run") or address.rstrip("/").rpartition("/")[2]
    return dataclasses.replace(run, name=str(name), where=address)


def from_experiment(
    cloud: Cloud, experiment: str, names: Sequence[str] | None
) -> list[Run]:
    """Of Vertex Experiments, oldest first; all of them where no names are given.

    Curves come with at most a thousand points, as the service samples them. Raises
    CloudError, ConfigError.
    """
    with installed():
        from google.cloud.aiplatform_v1.types import Context

        from podium.trainer.track_vertex import Clients
    clients = Clients(cloud.project, cloud.region)
    missing = f"no such experiment in {cloud.region}; --region says where it lies"
    there = cloud.call(
        f"experiment {experiment}",
        lambda: clients.metadata.get_context(
            name=f"{clients.store}/contexts/{experiment}", timeout=_SECS
        ),
        missing=missing,
    )
    query = f'schema_title="system.ExperimentRun" AND parent_contexts:"{there.name}"'
    request = {"parent": clients.store, "filter": query}
    found = cloud.call(
        f"runs of {experiment}",
        lambda: [
            Context.to_dict(c)
            for c in clients.metadata.list_contexts(request, timeout=_SECS)
        ],
    )
    found.sort(key=lambda context: context.get("create_time") or "")
    known = [context["display_name"] for context in found]
    if unknown := [name for name in names or [] if name not in known]:
        raise ConfigError(
            f"--runs: {unknown[0]} is no run of {experiment}; there are "
            f"{', '.join(known) or 'none'}; a folder is written ./{unknown[0]}"
        )
    return [
        _of_context(cloud, clients, context)
        for context in found
        if names is None or context["display_name"] in names
    ]


def _of_context(cloud: Cloud, clients: Any, context: dict[str, Any]) -> Run:
    name, tree = context["display_name"], context["metadata"]
    params, figures = tree.get("_params", {}), tree.get("_metrics", {})
    launch = {
        key.removeprefix(_OF_MACHINES): None if value == "None" else value
        for key, value in params.items()
        if key in ("launch.machine", "launch.count", "launch.usd_per_hour")
    }
    curves = cloud.call(f"curves of {name}", lambda: _curves(clients, context["name"]))
    # Summaries come at a run's end: of one at work, the last points of its curves.
    last = {metric: points[-1] for metric, points in curves.items() if points}
    so_far = {metric: value for metric, (_, value) in last.items()}
    if last:
        so_far["step"] = max(step for step, _ in last.values())
    figures = so_far | figures
    return Run(
        name=name,
        where=tree.get("_state", "?"),
        params=_plain(params),
        figures=figures | _cost(launch, figures),
        curves=curves,
    )


def _curves(clients: Any, context: str) -> dict[str, list[tuple[int, float]]]:
    from google.api_core.exceptions import NotFound

    id_ = context.rpartition("/")[2]
    try:
        artifact = clients.metadata.get_artifact(
            name=f"{clients.store}/artifacts/{id_}-tb-run", timeout=_SECS
        )
        run = dict(artifact.metadata)["resourceName"]
        there = clients.boards.list_tensorboard_time_series(parent=run, timeout=_SECS)
        series = {s.name: s.display_name for s in there if s.display_name in CURVES}
    except NotFound:  # a run that was made without a TensorBoard
        return {}
    if not series:
        return {}
    data = clients.boards.batch_read_tensorboard_time_series_data(
        request={
            "tensorboard": run.partition("/experiments/")[0],
            "time_series": list(series),
        },
        timeout=_SECS,
    )
    by_id = {name.rpartition("/")[2]: shown for name, shown in series.items()}
    return {
        by_id[one.tensorboard_time_series_id]: sorted(
            (int(p.step), float(p.scalar.value)) for p in one.values
        )
        for one in data.time_series_data
    }


def _cost(launch: dict[str, Any] | None, figures: dict[str, float]) -> dict[str, float]:
    """USD of the wall time, where machines and their price are known."""
    if not launch or not launch.get("machine") or "wall_secs" not in figures:
        return {}
    count, own = int(launch.get("count") or 1), launch.get("usd_per_hour")
    try:
        hourly = hourly_usd(str(launch["machine"]), count, own)
    except ConfigError:  # a machine of another version of Podium
        return {}
    return {} if hourly is None else {"usd": hourly * figures["wall_secs"] / 3600}


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Whole numbers as such: ML Metadata has doubles alone, and 4 comes back as 4.0."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in params.items()
    }


def differing(runs: Sequence[Run]) -> list[str]:
    """Names of the parameters in which runs differ, but for where they ran."""
    names = {name for run in runs for name in run.params}
    return sorted(
        name
        for name in names
        if (not name.startswith(_OF_MACHINES) or name in _SHOWN_OF_MACHINES)
        and not name.startswith("tracking.")
        and name not in _OF_A_PLACE
        and len({str(run.params.get(name)) for run in runs}) > 1
    )
