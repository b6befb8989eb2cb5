# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint comes from, as ML Metadata tells it.

data manifest, config, code -> the training -> checkpoints -> the export -> a model that
transformers reads: artifacts, and executions that have what they read as inputs and what
they made as outputs, all of them parts of the run. An artifact is named by what it is, a
data set by its fingerprint, so that runs on the same data, or of the same commit, share
it, and the console shows the way from one to the other.
"""

import hashlib
import re
from typing import TYPE_CHECKING, Any

from podium.trainer.tracking import About

if TYPE_CHECKING:
    from podium.trainer.track_vertex import Clients

_SECS = 60.0
# Settings that say where a run runs, which a restart may change, not what it is.
_PLACES = ("launch.", "tracking.", "workdir", "data.paths", "checkpoint.folder")
_MOST_NAME = 128  # characters of a display name


def write_inputs(clients: "Clients", run: str, about: About) -> None:
    """The data, the config and the code, as what the training reads."""
    found = [
        add_artifact(
            clients,
            context=run,
            id_=f"podium-data-{print_[:32]}",
            schema_title="system.Dataset",
            name=path,
            uri=path,
            metadata={"fingerprint": print_},
        )
        for path, print_ in about.data
    ]
    what = {k: v for k, v in about.params.items() if not k.startswith(_PLACES)}
    digest = hashlib.sha256(repr(sorted(what.items())).encode()).hexdigest()
    found.append(
        add_artifact(
            clients,
            context=run,
            id_=f"podium-config-{digest[:32]}",
            schema_title="system.Artifact",
            name="config",
            uri=about.config,
            metadata={"sha256": digest},
        )
    )
    if about.commit:
        found.append(
            add_artifact(
                clients,
                context=run,
                id_=f"podium-code-{_slug(about.commit)}",
                schema_title="system.Artifact",
                name=f"code {about.commit[:12]}",
                uri="",
                metadata={"commit": about.commit},
            )
        )
    _add_events(clients, _execution(clients, run), found, "INPUT")


def write_outputs(clients: "Clients", run: str, about: About, steps: list[int]) -> None:
    """The checkpoints that there are."""
    found = [_checkpoint(clients, run, about.run, about.checkpoints, s) for s in steps]
    if found:
        _add_events(clients, _execution(clients, run), found, "OUTPUT")


def write_export(
    clients: "Clients", experiment: str, origin: dict[str, Any], uri: str
) -> None:
    """A model that was exported from a checkpoint of a run that is in an experiment.

    `origin` is what pretrained/origin.py says of it, `uri` where it lies.
    """
    run, step = origin["run"], origin["step"]
    context = f"{clients.store}/contexts/{experiment}-{run}"
    checkpoints = origin["checkpoint"].rpartition("/")[0]
    source = _checkpoint(clients, context, run, checkpoints, step)
    model = add_artifact(
        clients,
        context=context,
        id_=f"{f'{experiment}-{run}'[:100]}-hf-{step}",
        schema_title="system.Model",
        name=f"{run} step {step} exported",
        uri=uri,
        metadata={
            "step": step,
            "format": "hf",
            "commit": origin["commit"] or "",
            "exported_by": origin["exported_by"] or "",
            "fingerprints": ",".join(d["fingerprint"] for d in origin["data"]),
        },
    )
    execution = _execution(clients, context, "export")
    _add_events(clients, execution, [source], "INPUT")
    _add_events(clients, execution, [model], "OUTPUT")


def _checkpoint(
    clients: "Clients", context: str, run: str, checkpoints: str, step: int
) -> str:
    return add_artifact(
        clients,
        context=context,
        id_=f"{context.rpartition('/')[2][:100]}-step-{step}",
        schema_title="system.Model",
        name=f"{run} step {step}",
        uri=f"{checkpoints}/{step}",
        metadata={"step": step, "format": "orbax"},
    )


def add_artifact(
    clients: "Clients",
    *,
    context: str,
    id_: str,
    schema_title: str,
    uri: str,
    metadata: dict[str, Any],
    name: str = "",
) -> str:
    """The resource name of an artifact, made if there is none, as part of a context."""
    from podium.trainer.track_vertex import ensure

    found = ensure(
        lambda: clients.metadata.create_artifact(
            parent=clients.store,
            artifact_id=id_,
            artifact={
                "display_name": (name or id_)[-_MOST_NAME:],
                "schema_title": schema_title,
                "schema_version": "0.0.1",
                "uri": uri,
                "metadata": metadata,
                "state": "LIVE",
            },
            timeout=_SECS,
        ),
        lambda: clients.metadata.get_artifact(
            name=f"{clients.store}/artifacts/{id_}", timeout=_SECS
        ),
    )
    clients.metadata.add_context_artifacts_and_executions(
        context=context, artifacts=[found.name], timeout=_SECS
    )
    return found.name


def _execution(clients: "Clients", run: str, what: str = "training") -> str:
    from podium.trainer.track_vertex import ensure

    id_ = f"{run.rpartition('/')[2][:119]}-{what}"
    found = ensure(
        lambda: clients.metadata.create_execution(
            parent=clients.store,
            execution_id=id_,
            execution={
                "display_name": what,
                "schema_title": "system.ContainerExecution",
                "schema_version": "0.0.1",
                "state": "RUNNING",
            },
            timeout=_SECS,
        ),
        lambda: clients.metadata.get_execution(
            name=f"{clients.store}/executions/{id_}", timeout=_SECS
        ),
    )
    clients.metadata.add_context_artifacts_and_executions(
        context=run, executions=[found.name], timeout=_SECS
    )
    return found.name


def _add_events(
    clients: "Clients", execution: str, artifacts: list[str], kind: str
) -> None:
    """An event that is there already is skipped by the service."""
    clients.metadata.add_execution_events(
        execution=execution,
        events=[{"artifact": name, "type_": kind} for name in artifacts],
        timeout=_SECS,
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:100]
