# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A checked config becomes the CustomJob that Vertex AI is asked for: plain values.

The names are those of the REST API, so that what `--dry_run` prints is what is sent.
"""

import copy
import dataclasses
import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from launch.machines import RDMA, Placement
from launch.source import Checkout
from podium.config import TrainConfig
from podium.config_dict import to_json_dict
from podium.config_launch import FlexStartConfig, LaunchConfig, ReservationConfig
from podium.config_tracking import TrackingConfig

RUN_LABEL = "podium_run"  # whose folder the job writes to
REQUEST_LABEL = "podium_request"  # hash of all that was asked for
COMMIT_LABEL = "podium_commit"

_STRATEGY = {
    "on_demand": "STANDARD",
    "spot": "SPOT",
    "flex_start": "FLEX_START",
    "reservation": "STANDARD",
}
# Between the hosts of a slice this port is open; jax's own, 8482 since 0.8.1, may not be
# (jax-ml/jax#35905).
TPU_PORT = 8476
_NCCL = "/usr/local/gib/scripts/set_nccl_env.sh"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """How the checkout comes to the hosts."""

    image: str  # HOST/PATH:TAG, or @sha256: once it is built
    archive: str | None  # gs://…/SHA256.tar.gz beside an image built before
    sha256: str  # of the checkout
    commit: str


def planned_package(
    launch: LaunchConfig, where: Placement, checkout: Checkout
) -> Package:
    """By tag, before anything is built: the tag is the checkout's own hash."""
    sha, commit = checkout.sha256, checkout.commit
    if launch.image:
        archive = archive_address(launch, sha)
        return Package(image=launch.image, archive=archive, sha256=sha, commit=commit)
    return Package(
        image=f"{image_name(launch, where.extra)}:{sha[:32]}",
        archive=None,
        sha256=sha,
        commit=commit,
    )


def image_name(launch: LaunchConfig, extra: str) -> str:
    """The image in Artifact Registry, without a tag."""
    project = (launch.project or "").replace(":", "/")
    return (
        f"{launch.region}-docker.pkg.dev/{project}/{launch.repository}/podium-{extra}"
    )


def archive_address(launch: LaunchConfig, sha256: str) -> str:
    """Where a checkout lies in the bucket."""
    return f"{(launch.bucket or '').rstrip('/')}/packages/{sha256}.tar.gz"


def run_name(cfg: TrainConfig, config_file: str) -> str:
    """`launch.run`, or one that the same settings have again."""
    assert cfg.launch
    if cfg.launch.run:
        return cfg.launch.run
    tree = to_json_dict(cfg)
    del tree["launch"], tree["tracking"]
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    stem = "".join(c if c.isalnum() else "-" for c in Path(config_file).stem.lower())
    return f"{stem.strip('-') or 'run'}"[:50].rstrip("-") + f"-{digest[:8]}"


def run_folder(launch: LaunchConfig, run: str) -> str:
    """gs://…/runs/RUN."""
    return f"{(launch.bucket or '').rstrip('/')}/runs/{run}"


_TRACKED = ("project", "region", "experiment", "machine", "count", "usd_per_hour")


def job_flags(
    config_file: str,
    overrides: dict[str, str],
    run: str,
    hosts: int,
    cfg: TrainConfig,
) -> list[str]:
    """What the job's own command is given; of `launch.*`, which concerns the machines,
    the model to leave, and what the services that show the run are to know of them."""
    launch = cfg.launch
    assert launch
    training = {k: v for k, v in overrides.items() if not k.startswith("launch.")}
    if launch.export:
        training["launch.export"] = launch.export
    if launch.secrets:
        training["launch.secrets"] = ",".join(launch.secrets)
        training["launch.project"] = launch.project or ""
    if launch.experiment or cfg.tracking != TrackingConfig():
        training["launch.run"] = run
        for name in _TRACKED:
            if (value := getattr(launch, name)) is not None:
                training[f"launch.{name}"] = str(value)
    words = [
        f"--run={run}",
        f"--hosts={hosts}",
        f"--config={PurePosixPath(Path(config_file))}",
        *(f"--config.{key}={value}" for key, value in training.items()),
    ]
    return [_literal(word) for word in words]


def custom_job(
    cfg: TrainConfig, where: Placement, package: Package, run: str, flags: list[str]
) -> dict[str, Any]:
    """The request, of an image by its tag, which is the checkout's own hash: so what is
    asked for has its label before anything is built.

    A slice is one pool of one replica, however many hosts it has.
    """
    launch = cfg.launch
    assert launch
    pool = {
        "machineSpec": _machine(launch, where),
        "replicaCount": "1",
        "diskSpec": _disk(launch, where),
        "containerSpec": _container(launch, where, package, run, flags),
    }
    pools = [pool]
    if where.tpu is None and where.hosts > 1:
        pools.append({**pool, "replicaCount": str(where.hosts - 1)})
    spec: dict[str, Any] = {
        "workerPoolSpecs": pools,
        "scheduling": _scheduling(launch),
        "baseOutputDirectory": {"outputUriPrefix": run_folder(launch, run)},
    }
    if launch.service_account:
        spec["serviceAccount"] = launch.service_account
    if launch.network:
        spec["network"] = launch.network
    job = {"displayName": run, "jobSpec": spec}
    asked = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
    labels = dict(label.split("=", 1) for label in launch.labels)
    labels |= {
        RUN_LABEL: run,
        REQUEST_LABEL: asked[:16],
        COMMIT_LABEL: package.commit[:12],
    }
    return {**job, "labels": labels}


def with_image(job: dict[str, Any], image: str) -> dict[str, Any]:
    """The request with the image by its digest, once that is known."""
    job = copy.deepcopy(job)
    for pool in job["jobSpec"]["workerPoolSpecs"]:
        pool["containerSpec"]["imageUri"] = image
    return job


def job_command(where: Placement, package: Package) -> list[str]:
    """What a container runs; the flags come behind it."""
    if not package.archive:
        return ["python", "-m", "launch.job"]
    text = Path(__file__).with_name("bootstrap.py").read_text()
    words = ["python", "-c", text, package.archive, package.sha256, where.extra]
    return [_literal(word) for word in words]


def _machine(launch: LaunchConfig, where: Placement) -> dict[str, Any]:
    spec: dict[str, Any] = {"machineType": where.machine_type}
    if where.topology:
        spec["tpuTopology"] = where.topology
    if where.accelerator:
        spec["acceleratorType"] = where.accelerator
        spec["acceleratorCount"] = where.accelerators_per_host
    if isinstance(launch.capacity, ReservationConfig):
        spec["reservationAffinity"] = {
            "reservationAffinityType": "SPECIFIC_RESERVATION",
            "key": "compute.googleapis.com/reservation-name",
            "values": [launch.capacity.name],
        }
    return spec


def _disk(launch: LaunchConfig, where: Placement) -> dict[str, Any]:
    kind = {"bootDiskType": where.disk_type} if where.disk_type else {}
    return {**kind, "bootDiskSizeGb": launch.disk_gb}


def _container(
    launch: LaunchConfig, where: Placement, package: Package, run: str, flags: list[str]
) -> dict[str, Any]:
    command = job_command(where, package)
    if where.machine_type in RDMA:
        script = f'[ ! -e {_NCCL} ] || . {_NCCL}; exec "$@"'
        command = ["bash", "-c", script, "job", *command]
    port = launch.coordinator_port or (TPU_PORT if where.tpu else None)
    env = {"JAX_COORDINATOR_PORT": str(port)} if port else {}
    if launch.experiment:
        env |= {
            "AIP_EXPERIMENT_NAME": launch.experiment,
            "AIP_EXPERIMENT_RUN_NAME": run,
        }
    return {
        "imageUri": package.image,
        "command": command,
        "args": flags,
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }


def _literal(word: str) -> str:
    """Kubernetes, and so Vertex, replaces $(NAME) by a variable; $$ is a dollar."""
    return word.replace("$(", "$$(")


def _scheduling(launch: LaunchConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        "timeout": f"{round(launch.timeout_hours * 3600)}s",
        "strategy": _STRATEGY[launch.capacity.kind],
        # One process that comes back alone cannot join the others.
        "restartJobOnWorkerRestart": True,
    }
    if isinstance(launch.capacity, FlexStartConfig):
        found["maxWaitDuration"] = f"{round(launch.capacity.max_wait_hours * 3600)}s"
    return found
