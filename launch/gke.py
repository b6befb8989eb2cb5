# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where Vertex AI does not go: v4, v5p and several slices, as a JobSet for GKE.

python -m launch.gke --config=configs/dense_100b_v4_256.py --slice=v4-256 > job.yaml
kubectl apply -f job.yaml

The manifest goes to standard output and has been validated, offline, by then. The
cluster needs the JobSet controller, a node pool of the slice, and the Cloud Storage FUSE
driver for data on gs://.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import build, checks, plans, request, source, vertex
from launch.cloud import Cloud
from launch.job_secrets import check_secrets
from launch.machines import GPUS, Placement, check_reservation, hourly_usd
from launch.text import to_yaml
from podium import cli
from podium.aot.chips import Slice, parse_slice
from podium.config import TrainConfig
from podium.config_launch import FlexStartConfig, ReservationConfig, SpotConfig
from podium.errors import ConfigError

_EXAMPLE = """example:
  python -m launch.gke --config=configs/dense_100b_v4_256.py --slice=v4-256 --build \\
      --config.launch.project=my-project --config.launch.bucket=gs://my-bucket \\
      --config.launch.region=us-central2 --config.data.paths=gs://my-bucket/gold/web \\
      --account=podium > job.yaml
  kubectl apply -f job.yaml

--build lets Cloud Build make the image; without it the manifest names the image that
--build would make, or launch.image.
"""

# Node labels and chips of a host: cloud.google.com/kubernetes-engine/docs/concepts/
# plan-tpus, read November 2026.
ACCELERATORS = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}
# cloud.google.com/tpu/docs/regions-zones, read November 2026: of v4 there is one zone. Of
# the others there are several, and more each year: GKE says.
_REGIONS = {"v4": "us-central2"}
_ONE_HOST = {"1x1": 1, "2x4": 8}  # v5e and v6e: chips of the only host
_CHIPS_PER_HOST = 4
_MAX_RESTARTS = 10
_MOST_NAME = 40  # pods are called RUN-slice-JOB-POD-xxxxx, at most 63 letters
_GRACE_SECS = 300  # from SIGTERM: for a checkpoint
_JOB = "slice"
_SCHEMA = Path(__file__).with_name("jobset.schema.json")


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m launch.gke",
        description="Prints a JobSet that trains on TPU slices of GKE.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument(
        "--slice", metavar="NAME", help="short for --config.launch.machine=NAME"
    )
    parser.add_argument(
        "--account", metavar="NAME", help="Kubernetes service account of the pods"
    )
    parser.add_argument(
        "--build", action="store_true", help="build the image now, by Cloud Build"
    )
    parser.add_argument(
        "--plan", action="store_true", help="plan the run first if no plan is cached"
    )
    args, overrides = cli.parse_overrides(parser, argv)
    vertex.take_slice(parser, args.slice, overrides)
    manifest = make(
        *(args.config, overrides),
        account=args.account,
        is_built=args.build,
        is_planned=args.plan,
    )
    validate(manifest)
    print(to_yaml(manifest), end="")
    return 0


def make(
    config: str,
    overrides: dict[str, str],
    *,
    account: str | None,
    is_built: bool,
    is_planned: bool,
) -> dict[str, Any]:
    """The JobSet. Raises ConfigError, CloudError."""
    cfg = cli.load_config(config, overrides)
    settings = checks.required(cfg, "project", "bucket")
    cfg = dataclasses.replace(cfg, launch=settings)
    where = _slices(cfg)
    shape, hosts = "x".join(map(str, where.shape)), _hosts(where)
    everywhere = hosts * where.num_slices
    checks.check_mesh(cfg, where.num_devices, where.num_slices, where.name)
    checks.check_folder(cfg)
    checks.check_start(cfg)
    checks.check_trackers(cfg)
    checks.check_export(cfg)
    check_secrets(cfg, settings)
    checkout = source.read_checkout()
    config = vertex.inside(checkout.root, config)
    checks.check_data(cfg, everywhere)
    checks.check_text(cfg, overrides, checkout.root)
    run = request.run_name(cfg, config)
    if len(run) > _MOST_NAME:
        raise ConfigError(
            f"the run's name {run!r} has {len(run)} letters; pods of it would have too "
            f"many: set --config.launch.run=NAME of at most {_MOST_NAME}"
        )
    placement = Placement(
        machine_type="",
        hosts=everywhere,
        devices=where.num_devices,
        disk_type=None,
        usd_per_hour=hourly_usd(where.name, 1, settings.usd_per_hour),
        topology=shape,
        tpu=where,
    )
    each = "1 host" if hosts == 1 else f"{hosts} hosts"
    line = f"{where.num_slices} of {where.chip.name} {shape}, each {each}"
    vertex.step("slices", f"{line}, in {settings.region}")
    vertex.step("cost", vertex.cost_line(placement, settings))
    planner = [f"--config={config}", *vertex.as_flags(overrides)]
    plan = plans.consult(cfg, where.name, planner, is_made=is_planned)
    vertex.step("plan", plan)
    vertex.step("checkout", checkout.describe())
    package = request.planned_package(settings, placement, checkout)
    if is_built:
        cloud = Cloud(settings.project or "", settings.region)
        package = build.deliver(
            cloud, settings, package, checkout, placement.extra, say=vertex.step
        )
    elif not settings.image:
        vertex.step("image", f"{package.image} is expected there; --build makes it")
    vertex.step("run", f"{run} in {request.run_folder(settings, run)}")
    folder = request.run_folder(settings, run)
    flags = request.job_flags(config, overrides, run, everywhere, cfg)
    flags.insert(2, f"--folder={folder}")
    pod = _pod(
        cfg, where, request.job_command(placement, package), flags, package.image
    )
    if account and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", account):
        raise ConfigError(
            f"--account={account} is no Kubernetes service account; expected a name such "
            "as podium, which Workload Identity ties to the Google one"
        )
    if account:
        pod["spec"]["serviceAccountName"] = account
    return _jobset(cfg, where, hosts, run, package.commit, pod)


def _slices(cfg: TrainConfig) -> Slice:
    launch = cfg.launch
    assert launch
    if launch.machine in GPUS:
        raise ConfigError(
            f"launch.machine={launch.machine}: machines with GPUs run on Vertex AI: "
            "python -m launch.vertex"
        )
    if launch.machine is None:
        raise ConfigError("launch.machine is not set; give a TPU slice, --slice=v4-256")
    if isinstance(launch.capacity, FlexStartConfig):
        raise ConfigError(
            "launch.capacity.kind=flex_start: on GKE the node pool is made with "
            "flex-start, and its pods are on_demand; leave it out"
        )
    try:
        where = parse_slice(launch.machine)
    except ConfigError as error:
        text = str(error).replace("--topology=", "launch.machine=")
        raise ConfigError(text) from error
    only = _REGIONS.get(where.chip.name, launch.region)
    if launch.region != only:
        raise ConfigError(
            f"launch.region is {launch.region}, but {where.chip.name} is in {only} alone; "
            f"set --config.launch.region={only}, and a bucket there"
        )
    check_reservation(launch)
    count = where.num_slices * launch.count
    name = where.name if launch.count == 1 else f"{where.name}x{launch.count}"
    return dataclasses.replace(where, name=name, num_slices=count)


def _hosts(where: Slice) -> int:
    shape = "x".join(map(str, where.shape))
    if where.chip.torus_dims == 2 and shape in _ONE_HOST:
        return 1
    return max(1, where.chips_per_slice // _CHIPS_PER_HOST)


def _pod(
    cfg: TrainConfig, where: Slice, command: list[str], flags: list[str], image: str
) -> dict[str, Any]:
    launch = cfg.launch
    assert launch
    chips = str(where.chips_per_slice // _hosts(where))
    node = {
        "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[where.chip.name],
        "cloud.google.com/gke-tpu-topology": "x".join(map(str, where.shape)),
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECS,
        "nodeSelector": node,
        "containers": [
            {
                "name": "train",
                "image": image,
                "command": command,
                "args": flags,
                "env": _env(where, launch.coordinator_port),
                "ports": [
                    {"containerPort": launch.coordinator_port or request.TPU_PORT}
                ],
                "resources": {
                    "requests": {"google.com/tpu": chips},
                    "limits": {"google.com/tpu": chips},
                },
            }
        ],
    }
    if isinstance(launch.capacity, SpotConfig):
        node["cloud.google.com/gke-spot"] = "true"
        spec["tolerations"] = [
            {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}
            | {"effect": "NoSchedule"}
        ]
    if isinstance(launch.capacity, ReservationConfig) and launch.capacity.name:
        node["cloud.google.com/reservation-name"] = launch.capacity.name.split("/")[-1]
    return {"spec": spec}


def _env(where: Slice, port: int | None) -> list[dict[str, Any]]:
    """GKE itself tells the hosts of a slice of one another; slices are told here."""
    env: list[dict[str, Any]] = [
        {"name": "JAX_COORDINATOR_PORT", "value": str(port or request.TPU_PORT)}
    ]
    if where.num_slices == 1:
        return env

    def of_jobset(key: str) -> dict[str, Any]:
        path = f"metadata.annotations['jobset.sigs.k8s.io/{key}']"
        return {"fieldRef": {"fieldPath": path}}

    first = f"$(JOBSET_NAME)-{_JOB}-0-0.$(JOBSET_NAME)"
    return [
        *env,
        {"name": "JOBSET_NAME", "valueFrom": of_jobset("jobset-name")},
        {"name": "MEGASCALE_NUM_SLICES", "value": str(where.num_slices)},
        {"name": "MEGASCALE_SLICE_ID", "valueFrom": of_jobset("job-index")},
        {"name": "MEGASCALE_COORDINATOR_ADDRESS", "value": first},
    ]


def _jobset(
    cfg: TrainConfig,
    where: Slice,
    hosts: int,
    run: str,
    commit: str,
    pod: dict[str, Any],
) -> dict[str, Any]:
    assert cfg.launch
    labels = dict(label.split("=", 1) for label in cfg.launch.labels)
    labels |= {request.RUN_LABEL: run, request.COMMIT_LABEL: commit[:12]}
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # a host that is gone ends the slice's job: all start again
        "activeDeadlineSeconds": round(cfg.launch.timeout_hours * 3600),
        # 1 failed and 2 a mistake end the run; 134, saved, begins it again.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "train",
                        "operator": "In",
                        "values": [cli.EXIT_FAILED, cli.EXIT_USAGE],
                    },
                }
            ]
        },
        "template": pod,
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": run,
            "labels": labels,
            # One slice, one node pool: what jax takes for a slice is one.
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": (
                    "cloud.google.com/gke-nodepool"
                )
            },
        },
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": _MAX_RESTARTS,
                "rules": [
                    {
                        "name": "ended",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy", "DeadlineExceeded"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": _JOB, "replicas": where.num_slices, "template": {"spec": job}}
            ],
        },
    }


def validate(manifest: dict[str, Any]) -> None:
    """Raises ConfigError where a cluster would refuse the manifest."""
    try:
        import jsonschema
        import kubernetes_validate
    except ImportError as error:
        raise ConfigError(f"{error}; uv sync --extra gke") from error
    try:
        jsonschema.validate(manifest, json.loads(_SCHEMA.read_text()))
        for part in manifest["spec"]["replicatedJobs"]:
            job = {"apiVersion": "batch/v1", "kind": "Job", **part["template"]}
            job["metadata"] = {"name": part["name"], **job.get("metadata", {})}
            version = ".".join(kubernetes_validate.latest_version().split(".")[:2])
            kubernetes_validate.validate(job, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        where = "/".join(map(str, getattr(error, "path", ())))
        line = str(getattr(error, "message", error)).split("\n")[0]
        raise ConfigError(f"the manifest is no JobSet: {where}: {line:.300}") from error


if __name__ == "__main__":
    cli.run(main)
