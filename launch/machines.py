# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What Vertex AI offers for training: machine x topology x hosts x region x price.

Sources, as numbered in the table, all read in November 2026:
 [1] docs.cloud.google.com/gemini-enterprise-agent-platform, "Configure compute resources
     for serverless training": machine types, `tpuTopology`, VMs of a slice; one worker
     pool with one replica, whatever the slice. v4 and v5p are not there.
 [2] the same, general/locations#accelerators: regions that train. Where no region is
     named here, Vertex is left to say.
 [3] the same, "Use Spot VMs" (not for slices of several hosts) and "Schedule jobs with
     Dynamic Workload Scheduler" (L4, A100, H100, H200, B200)
 [4] google-cloud-aiplatform 2.7.0, types/machine_resources.py: accelerator types and
     their machines, hyperdisk on A3 Ultra and A4
 [5] TPUs: list price of the chips, on demand, in us regions, as `podium.aot.chips`
 [6] Cloud Billing catalog as of 2026-09-26: a3-highgpu in us-central1, 10.9791 USD per
     GPU with its share of CPUs and memory; those with fewer than 8 GPUs come by spot
     and flex-start only
Vertex adds a management fee, which is not in these prices. Where there is no price, no
source was found; `launch.usd_per_hour` says what you pay.
"""

import dataclasses
import difflib
import math

from podium.aot.chips import Slice, parse_slice
from podium.config_launch import (
    FlexStartConfig,
    LaunchConfig,
    ReservationConfig,
    SpotConfig,
)
from podium.errors import ConfigError

_HOSTS = {"2x2": 1, "2x4": 2, "4x4": 4, "4x8": 8, "8x8": 16, "8x16": 32, "16x16": 64}
_HOSTS_3D = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuMachine:
    """A host of a slice."""

    name: str
    hosts: dict[str, int]  # topology -> VMs of the slice [1]
    regions: tuple[str, ...]  # [2]


_V5E = ("us-central1", "us-east1", "us-west1", "us-west4")
_V6E = (
    *("us-central1", "us-east1", "us-east5", "us-south1", "europe-west4"),
    *("asia-northeast1", "southamerica-west1"),
)
# The first machine of a generation that has the topology: fewest hosts.
TPUS: dict[str, tuple[TpuMachine, ...]] = {
    "v5e": (
        TpuMachine(name="ct5lp-hightpu-1t", hosts={"1x1": 1}, regions=_V5E),
        TpuMachine(name="ct5lp-hightpu-8t", hosts={"2x4": 1}, regions=_V5E),
        TpuMachine(name="ct5lp-hightpu-4t", hosts=_HOSTS, regions=_V5E),
    ),
    "v6e": (
        TpuMachine(name="ct6e-standard-1t", hosts={"1x1": 1}, regions=_V6E),
        TpuMachine(name="ct6e-standard-8t", hosts={"2x4": 1}, regions=_V6E),
        TpuMachine(name="ct6e-standard-4t", hosts=_HOSTS, regions=_V6E),
    ),
    "tpu7x": (
        TpuMachine(
            name="tpu7x-standard-4t",
            hosts={
                shape: math.prod(map(int, shape.split("x"))) // 4 for shape in _HOSTS_3D
            },
            regions=("us-central1",),
        ),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuMachine:
    """A host with GPUs; type and number are fixed by the machine [4]."""

    accelerator: str
    count: int
    disk: str | None = None  # of the boot disk, where it is not Vertex's own choice
    regions: tuple[str, ...] = ()  # [2]; (): not known here
    has_flex_start: bool = True  # [3]
    comes_by: tuple[str, ...] = ()  # kinds of capacity; (): all
    usd_per_hour: float | None = None


def _family(
    accelerator: str, machines: dict[str, int], **more
) -> dict[str, GpuMachine]:
    return {
        name: GpuMachine(accelerator=accelerator, count=count, **more)
        for name, count in machines.items()
    }


_H200 = (
    *("us-central1", "us-east4", "us-east5", "us-south1", "us-west1", "europe-west1"),
    *("europe-west4", "asia-south1", "asia-south2"),
)
_QUEUED = ("spot", "flex_start", "reservation")
GPUS: dict[str, GpuMachine] = {
    **_family(
        "NVIDIA_TESLA_A100",
        {"a2-highgpu-1g": 1, "a2-highgpu-2g": 2, "a2-highgpu-4g": 4}
        | {"a2-highgpu-8g": 8, "a2-megagpu-16g": 16},
    ),
    **_family(
        "NVIDIA_A100_80GB",
        {"a2-ultragpu-1g": 1, "a2-ultragpu-2g": 2}
        | {"a2-ultragpu-4g": 4, "a2-ultragpu-8g": 8},
    ),
    **{
        f"a3-highgpu-{n}g": GpuMachine(
            accelerator="NVIDIA_H100_80GB",
            count=n,
            comes_by=() if n == 8 else _QUEUED,
            usd_per_hour=10.9791 * n,  # [6]
        )
        for n in (1, 2, 4, 8)
    },
    **_family("NVIDIA_H100_MEGA_80GB", {"a3-megagpu-8g": 8}),
    **_family(
        "NVIDIA_H200_141GB",
        {"a3-ultragpu-8g": 8},
        disk="hyperdisk-balanced",
        regions=_H200,
    ),
    **_family("NVIDIA_B200", {"a4-highgpu-8g": 8}, disk="hyperdisk-balanced"),
    **_family(
        "NVIDIA_GB200",
        {"a4x-highgpu-4g": 4},
        disk="hyperdisk-balanced",
        has_flex_start=False,
        comes_by=("reservation",),
    ),
    **_family(
        "NVIDIA_L4",
        {"g2-standard-4": 1, "g2-standard-8": 1, "g2-standard-12": 1}
        | {"g2-standard-16": 1, "g2-standard-32": 1, "g2-standard-24": 2}
        | {"g2-standard-48": 4, "g2-standard-96": 8},
    ),
    **_family(
        "NVIDIA_RTX_PRO_6000",
        {"g4-standard-48": 1, "g4-standard-96": 2}
        | {"g4-standard-192": 4, "g4-standard-384": 8},
        disk="hyperdisk-balanced",
        has_flex_start=False,
    ),
}
# Between these hosts GPUs speak RDMA; their image brings NCCL's settings.
RDMA = ("a3-ultragpu-8g", "a4-highgpu-8g", "a4x-highgpu-4g")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """The machines of a job, checked against the table."""

    machine_type: str
    hosts: int
    devices: int  # of jax, on all hosts
    disk_type: str | None
    usd_per_hour: float | None  # of all machines
    topology: str | None = None  # of a TPU slice
    tpu: Slice | None = None
    accelerator: str | None = None  # of a machine with GPUs
    accelerators_per_host: int = 0

    @property
    def extra(self) -> str:
        """The extra of pyproject.toml that holds jax's plugin."""
        return "tpu" if self.tpu else "cuda"


def place(launch: LaunchConfig) -> Placement:
    """The machines that `launch` asks Vertex for. Raises ConfigError."""
    name = launch.machine
    if name is None:
        raise ConfigError(
            "launch.machine is not set; give a TPU slice (--slice=v5e-16) or a machine "
            "with GPUs (--config.launch.machine=a3-highgpu-8g)"
        )
    if name in GPUS:
        return _gpus(launch, name)
    try:
        where = parse_slice(name)
    except ConfigError as error:
        if of := [k for k, ms in TPUS.items() if any(m.name == name for m in ms)]:
            shapes = [s for s in slices() if s.startswith(f"{of[0]}-")]
            raise ConfigError(
                f"launch.machine={name} is Vertex AI's machine under {of[0]}; give the "
                f"slice: {', '.join(shapes)}"
            ) from error
        what = str(error).replace(f"--topology={name}", f"launch.machine={name}")
        if "unknown TPU" in what:
            near = difflib.get_close_matches(name, [*GPUS, *slices()], n=3)
            near += [gpu for gpu in GPUS if name in gpu or name in _gpu_words(gpu)]
            known = ", ".join(dict.fromkeys(near)) or ", ".join(f"{t}-N" for t in TPUS)
            what = (
                f"launch.machine={name}: unknown; expected a TPU slice such as v5e-16, "
                f"or a machine with GPUs such as a3-highgpu-8g. Near: {known}"
            )
        raise ConfigError(what) from error
    return _tpus(launch, where)


def _gpu_words(machine: str) -> list[str]:
    return (GPUS[machine].accelerator or "").lower().split("_")


def hourly_usd(machine: str, count: int, own_price: float | None) -> float | None:
    """Price of machines or slices by the hour; None where no source says. Raises
    ConfigError for a machine of no known name."""
    if machine in GPUS:
        price = GPUS[machine].usd_per_hour if own_price is None else own_price
        return None if price is None else price * count
    where = parse_slice(machine)
    price = where.chip.usd_per_chip_hour if own_price is None else own_price
    return price * where.num_chips * count


def slices() -> list[str]:
    """The names of all slices that Vertex trains on."""
    cores = {"tpu7x": 2}  # TensorCores count there
    return [
        f"{kind}-{math.prod(map(int, shape.split('x'))) * cores.get(kind, 1)}"
        for kind, machines in TPUS.items()
        for machine in machines
        for shape in machine.hosts
    ]


def _tpus(launch: LaunchConfig, where: Slice) -> Placement:
    kind, shape = where.chip.name, "x".join(map(str, where.shape))
    if kind not in TPUS:
        raise ConfigError(
            f"launch.machine={launch.machine}: Vertex AI has no {kind}, only "
            f"{', '.join(TPUS)}; {kind} runs on GKE: python -m launch.gke --config=… > "
            "job.yaml"
        )
    count = launch.count * where.num_slices
    if count > 1:
        raise ConfigError(
            f"launch.machine={launch.machine} x {launch.count}: a job of Vertex AI has "
            "one slice; several run on GKE: python -m launch.gke --config=… > job.yaml"
        )
    machine = next((m for m in TPUS[kind] if shape in m.hosts), None)
    if machine is None:
        shapes = ", ".join(s for m in TPUS[kind] for s in m.hosts)
        raise ConfigError(
            f"launch.machine={launch.machine}: Vertex AI has no {kind} of {shape}; it has "
            f"{shapes}"
        )
    hosts = machine.hosts[shape]
    _check_region(launch, machine.name, machine.regions)
    _check_tpu_capacity(launch, hosts)
    return Placement(
        machine_type=machine.name,
        hosts=hosts,
        devices=where.num_devices,
        disk_type=None,
        usd_per_hour=hourly_usd(where.name, 1, launch.usd_per_hour),
        topology=shape,
        tpu=where,
    )


def _check_tpu_capacity(launch: LaunchConfig, hosts: int) -> None:
    if isinstance(launch.capacity, FlexStartConfig):
        raise ConfigError(
            "launch.capacity.kind=flex_start is for GPUs; for TPUs on Vertex AI use "
            "on_demand or reservation"
        )
    if isinstance(launch.capacity, SpotConfig) and hosts > 1:
        raise ConfigError(
            f"launch.capacity.kind=spot: a slice of several hosts ({launch.machine} has "
            f"{hosts}) takes no spot machines; use on_demand or reservation, or a slice "
            "of one host"
        )
    check_reservation(launch)


def _gpus(launch: LaunchConfig, name: str) -> Placement:
    machine, kind = GPUS[name], launch.capacity.kind
    _check_region(launch, name, machine.regions)
    if isinstance(launch.capacity, FlexStartConfig):
        if not machine.has_flex_start:
            raise ConfigError(
                f"launch.capacity.kind=flex_start: not for {name}; for L4, A100, H100, "
                "H200 and B200 alone"
            )
        if launch.timeout_hours > 168:
            raise ConfigError(
                f"launch.timeout_hours is {launch.timeout_hours:g}; under flex_start at "
                "most 168, seven days"
            )
    if machine.comes_by and kind not in machine.comes_by:
        raise ConfigError(
            f"launch.capacity.kind={kind}: {name} comes by "
            f"{' or '.join(machine.comes_by)} only"
        )
    check_reservation(launch)
    return Placement(
        machine_type=name,
        hosts=launch.count,
        devices=launch.count * machine.count,
        disk_type=machine.disk,
        usd_per_hour=hourly_usd(name, launch.count, launch.usd_per_hour),
        accelerator=machine.accelerator,
        accelerators_per_host=machine.count,
    )


def _check_region(launch: LaunchConfig, name: str, regions: tuple[str, ...]) -> None:
    if regions and launch.region not in regions:
        raise ConfigError(
            f"launch.region is {launch.region}, where Vertex AI has no {name} for "
            f"training; it is in {', '.join(regions)}"
        )


def check_reservation(launch: LaunchConfig) -> None:
    """Raises ConfigError for a reservation that is not named, or in another region."""
    capacity = launch.capacity
    if not isinstance(capacity, ReservationConfig):
        return
    if capacity.name is None:
        raise ConfigError(
            "launch.capacity.name is not set; give the reservation as "
            "projects/PROJECT/zones/ZONE/reservations/RESERVATION"
        )
    zone = capacity.name.split("/")[3]
    if zone.rpartition("-")[0] != launch.region:
        raise ConfigError(
            f"launch.capacity.name is in zone {zone}, outside launch.region "
            f"({launch.region}); reserve there, or set the region"
        )
