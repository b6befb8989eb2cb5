# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Custom jobs of Vertex AI: submitted once, found again by their labels.

A run has one folder, so it has one job at a time. Its name is a label of every job that
worked for it; another label is the hash of all that was asked for.
"""

import contextlib
import json
from typing import Any

from launch.cloud import Cloud
from launch.request import REQUEST_LABEL, RUN_LABEL
from podium.errors import CloudError, ConfigError

DONE = "SUCCEEDED"
ENDED = (DONE, "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")


def state_of(job: Any) -> str:
    """QUEUED, PENDING, RUNNING, SUCCEEDED, …"""
    return job.state.name.removeprefix("JOB_STATE_")


def is_active(job: Any) -> bool:
    """Whether it has machines or waits for some."""
    return state_of(job) not in ENDED


def id_of(job: Any) -> str:
    """The number that Vertex AI gave it."""
    return job.name.rpartition("/")[2]


def console_link(cloud: Cloud, job: Any) -> str:
    """The page of a job, for a browser."""
    return (
        f"https://console.cloud.google.com/vertex-ai/locations/{cloud.region}/training/"
        f"{id_of(job)}?project={cloud.project}"
    )


def command(cloud: Cloud, words: str) -> str:
    """A verb of launch.vertex, to be pasted."""
    where = f"--project={cloud.project} --region={cloud.region}"
    return f"python -m launch.vertex {words} {where}"


def list_jobs(cloud: Cloud, run: str | None = None, limit: int = 100) -> list[Any]:
    """Jobs of a run, or of all runs of Podium, newest first. Raises CloudError."""
    from google.cloud.aiplatform_v1 import types

    label = f"labels.{RUN_LABEL}"
    asked = types.ListCustomJobsRequest(
        parent=cloud.parent, filter=f'{label}="{run}"' if run else f"{label}:*"
    )

    def ask() -> list[Any]:
        return list(cloud.jobs.list_custom_jobs(request=asked, retry=None))

    found = sorted(
        cloud.call("jobs", ask), key=lambda job: job.create_time, reverse=True
    )
    return found[:limit]


def newest(cloud: Cloud, run: str) -> Any:
    """The newest job of a run; `run` may be a job's number too. Raises ConfigError."""
    if run.isdecimal():
        return get(cloud, f"{cloud.parent}/customJobs/{run}")
    found = list_jobs(cloud, run)
    if not found:
        raise ConfigError(
            f"no job of a run {run!r} in project {cloud.project}, {cloud.region}; those "
            f"that there are: {command(cloud, 'list')}"
        )
    return found[0]


def get(cloud: Cloud, name: str) -> Any:
    """A job as it is now. Raises CloudError."""
    return cloud.call(
        "job",
        lambda: cloud.jobs.get_custom_job(name=name, retry=None),
        missing=f"the jobs that there are: {command(cloud, 'list')}",
    )


def cancel(cloud: Cloud, job: Any) -> None:
    """Asks for a job's end. Raises CloudError."""
    from google.api_core.exceptions import FailedPrecondition

    def ask() -> None:
        with contextlib.suppress(FailedPrecondition):  # it has ended by itself
            cloud.jobs.cancel_custom_job(name=job.name, retry=None)

    cloud.call("cancel", ask)


def standing(cloud: Cloud, request: dict[str, Any]) -> Any | None:
    """A run's job that was asked for the same and is under way, or has succeeded and is
    its newest. Raises CloudError; ConfigError where one is under way for something else.
    """
    return _standing(cloud, request, list_jobs(cloud, request["labels"][RUN_LABEL]))


def _standing(cloud: Cloud, request: dict[str, Any], before: list[Any]) -> Any | None:
    run, asked = request["labels"][RUN_LABEL], request["labels"][REQUEST_LABEL]
    for job in before:
        is_same = job.labels[REQUEST_LABEL] == asked
        if is_active(job) and not is_same:
            raise ConfigError(
                f"run {run} is at work as job {id_of(job)}, with other settings or other "
                f"code; cancel it first ({command(cloud, f'cancel {run}')}), or name "
                "another run (--config.launch.run=NAME)"
            )
        if is_same and (is_active(job) or (job is before[0] and state_of(job) == DONE)):
            return job
    return None


def submit(cloud: Cloud, request: dict[str, Any]) -> tuple[Any, bool]:
    """The job of a request, and whether it is a new one.

    The one that stands already is returned, see `standing`. Raises CloudError.
    """
    from google.cloud.aiplatform_v1 import types

    wanted = types.CustomJob.from_json(json.dumps(request))
    run, asked = wanted.labels[RUN_LABEL], wanted.labels[REQUEST_LABEL]
    before = list_jobs(cloud, run)
    if (there := _standing(cloud, request, before)) is not None:
        return there, False
    known = {job.name for job in before}

    def taken() -> Any:
        """A try whose answer was lost: a job that was not there before."""
        new = [job for job in list_jobs(cloud, run) if job.name not in known]
        return next((job for job in new if job.labels[REQUEST_LABEL] == asked), None)

    job = cloud.call(
        "submit",
        lambda: cloud.jobs.create_custom_job(
            parent=cloud.parent, custom_job=wanted, retry=None
        ),
        settled=taken,
    )
    return job, True


def again(cloud: Cloud, run: str) -> tuple[Any, bool]:
    """Submits a run's newest job once more: it continues where its checkpoints end."""
    from google.cloud.aiplatform_v1 import types

    old = newest(cloud, run)
    if is_active(old):
        return old, False
    fresh = types.CustomJob(
        display_name=old.display_name, job_spec=old.job_spec, labels=old.labels
    )
    return submit(cloud, json.loads(types.CustomJob.to_json(fresh)))


def failure(job: Any) -> CloudError:
    """What became of a job that did not succeed."""
    why = " ".join(job.error.message.split())
    told = f": {why[:600]}" if why else ""
    error = CloudError(f"job {id_of(job)} ended as {state_of(job)}{told}")
    error.is_met_at_work = True
    return error
