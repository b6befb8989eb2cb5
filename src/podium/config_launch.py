# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where a run is launched: the settings of `python -m launch.vertex` and `launch.gke`.

Training itself reads the experiment alone, and a run may be continued with others.
"""

import dataclasses
import re
from typing import Literal

from podium.config_setting import setting
from podium.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnDemandConfig:
    """Machines as soon as there are some; nobody takes them away."""

    kind: Literal["on_demand"] = "on_demand"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpotConfig:
    """Cheaper, and taken away at half a minute's notice; Vertex starts the job again."""

    kind: Literal["spot"] = "spot"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlexStartConfig:
    """Dynamic Workload Scheduler: the job waits for GPUs, at most seven days of them."""

    kind: Literal["flex_start"] = "flex_start"
    max_wait_hours: float = setting(
        24.0, "in the queue; 0: for ever", unit="h", low=0.0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReservationConfig:
    """Machines that were reserved before."""

    kind: Literal["reservation"] = "reservation"
    name: str | None = setting(
        None, "projects/PROJECT/zones/ZONE/reservations/RESERVATION"
    )

    def __post_init__(self):
        _check("launch.capacity.name", self.name, _RESERVATION)


CapacityConfig = OnDemandConfig | SpotConfig | FlexStartConfig | ReservationConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """The machines of a run in Google Cloud, and what surrounds them."""

    machine: str | None = setting(
        None, "a TPU slice, v5e-16, or a machine with GPUs, a3-ultragpu-8g"
    )
    count: int = setting(1, "slices, or machines with GPUs", low=1)
    project: str | None = setting(None, "id of the Google Cloud project")
    region: str = setting("us-central1", "where the job runs, and all it uses lies")
    bucket: str | None = setting(
        None, "gs://BUCKET[/PATH] in that region: runs, checkpoints, packages"
    )
    run: str | None = setting(
        None,
        "name of the run and of its folder in the bucket; None: made of the config "
        "file's name and its settings",
    )
    repository: str = setting("podium", "of Docker images in Artifact Registry")
    image: str | None = setting(
        None,
        "an image built before: the checkout comes beside it as an archive; None: "
        "Cloud Build builds one of the checkout",
    )
    capacity: CapacityConfig = setting(OnDemandConfig(), "how machines are come by")
    service_account: str | None = setting(
        None, "that the job acts as; None: the project's default"
    )
    network: str | None = setting(
        None, "a peered VPC: projects/NUMBER/global/networks/NAME"
    )
    labels: tuple[str, ...] = setting(
        (), "of the job: KEY=VALUE, for bills and filters"
    )
    secrets: tuple[str, ...] = setting(
        (),
        "environment of the job, from Secret Manager: VARIABLE=SECRET, as "
        "WANDB_API_KEY=wandb",
    )
    timeout_hours: float = setting(168.0, "then the job is ended", unit="h", above=0.0)
    disk_gb: int = setting(200, "boot disk of a host", unit="GB", low=100)
    export: Literal["hf"] | None = setting(
        None,
        "what a finished run leaves in AIP_MODEL_DIR; hf: a folder that transformers "
        "reads; None: nothing",
    )
    experiment: str | None = setting(
        None, "of Vertex Experiments that the run is shown in; None: nothing is sent"
    )
    coordinator_port: int | None = setting(
        None,
        "where process 0 of several hosts listens; None: on GPUs the port that Vertex AI "
        "names, on TPUs 8476",
        low=1,
        high=65535,
    )
    usd_per_hour: float | None = setting(
        None, "your price of one machine or chip; None: the list price", low=0.0
    )

    def __post_init__(self):
        for name, form in _FORMS.items():
            _check(f"launch.{name}", getattr(self, name), form)
        seen = set()
        for label in self.labels:
            _check("launch.labels", label, _LABEL)
            key = label.partition("=")[0]
            if key in seen or key.startswith("podium_"):
                why = "is given twice" if key in seen else "is one of Podium's own"
                raise ConfigError(f"launch.labels: {key!r} {why}; choose another key")
            seen.add(key)
        variables = [text.partition("=")[0] for text in self.secrets]
        for text, variable in zip(self.secrets, variables, strict=True):
            _check("launch.secrets", text, _SECRET)
            if variables.count(variable) > 1:
                raise ConfigError(
                    f"launch.secrets: {variable} is given twice; keep one"
                )


@dataclasses.dataclass(frozen=True)
class _Form:
    pattern: str
    expected: str


_NAME = _Form(
    r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
    "at most 63 lower-case letters, digits and '-', the first a letter",
)
_RESERVATION = _Form(
    r"projects/[^/\s]+/zones/[a-z0-9-]+/reservations/[^/\s]+",
    "projects/PROJECT/zones/ZONE/reservations/RESERVATION",
)
_LABEL = _Form(
    r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}",
    "KEY=VALUE of lower-case letters, digits, '_' and '-', at most 63 each",
)
_SECRET = _Form(
    r"[A-Z_][A-Z0-9_]*=([\w-]{1,255}|projects/[^/\s]+/secrets/[\w-]+"
    r"(/versions/([0-9]+|latest))?)",
    "VARIABLE=SECRET, a secret's name in the project, or "
    "VARIABLE=projects/PROJECT/secrets/SECRET/versions/NUMBER",
)
_FORMS = {
    "project": _Form(
        r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]",
        "a project id of 6 to 30 lower-case letters, digits and '-' (not its number)",
    ),
    "region": _Form(r"[a-z]+-[a-z]+[0-9]+", "a region, e.g. us-central1 (no zone)"),
    "bucket": _Form(
        r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^\s/#?*\[\]]+)*/?",
        "gs://BUCKET or gs://BUCKET/PATH",
    ),
    "run": _NAME,
    "repository": _NAME,
    "image": _Form(
        r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?",
        "HOST/PATH:TAG or HOST/PATH@sha256:DIGEST",
    ),
    "service_account": _Form(
        r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com",
        "NAME@PROJECT.iam.gserviceaccount.com",
    ),
    "network": _Form(
        r"projects/[0-9]+/global/networks/[a-z][a-z0-9-]*",
        "projects/NUMBER/global/networks/NAME, with the project's number: gcloud "
        "projects describe PROJECT --format='value(projectNumber)'",
    ),
    "experiment": _Form(
        r"[a-z0-9][a-z0-9-]{0,63}",
        "at most 64 lower-case letters, digits and '-'",
    ),
}


def _check(key: str, value: str | None, form: _Form) -> None:
    if value is not None and not re.fullmatch(form.pattern, value, re.ASCII):
        raise ConfigError(f"{key} is {value!r:.120}; expected {form.expected}")
