# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""python -m launch.vertex list|status|logs|cancel|resume: the jobs that there are."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from launch import follow, jobs
from launch.cloud import Cloud
from launch.request import COMMIT_LABEL, RUN_LABEL
from podium import cli
from podium.config_launch import LaunchConfig

_EXAMPLE = """examples:
  python -m launch.vertex list --project=my-project --region=us-west4
  python -m launch.vertex status RUN --project=my-project
  python -m launch.vertex logs RUN --project=my-project --follow
  python -m launch.vertex cancel RUN --project=my-project
  python -m launch.vertex resume RUN --project=my-project

RUN is the name of a run, or the number of one of its jobs. resume submits the run's last
job again, the same image and command: it continues from the newest checkpoint.
"""


_TABLE_COLUMNS = 150


def main(verb: str, argv: Sequence[str]) -> int:
    """One verb's command line."""
    parser = cli.Parser(
        prog=f"python -m launch.vertex {verb}",
        description=f"{verb}: jobs of Podium on Vertex AI.",
        epilog=_EXAMPLE,
    )
    if verb != "list":
        parser.add_argument(
            "run", metavar="RUN", help="a run's name, or a job's number"
        )
    parser.add_argument(
        "--project",
        default=os.environ.get("GOOGLE_CLOUD_PROJECT"),
        help="of Google Cloud (default: GOOGLE_CLOUD_PROJECT)",
    )
    parser.add_argument("--region", default=LaunchConfig().region, help="of the jobs")
    if verb in ("list", "status"):
        parser.add_argument("--json", action="store_true", help="print JSON")
    if verb in ("logs", "resume"):
        parser.add_argument(
            "--follow", action="store_true", help="stay until the job has ended"
        )
    args = parser.parse_args(argv)
    if not args.project:
        parser.error("--project is missing, e.g. --project=my-project")
    settings = LaunchConfig(project=args.project, region=args.region)  # checks both
    if sys.stderr.isatty():  # Google's clients take seconds to import
        cli.say(f"asking Vertex AI: project {args.project}, {settings.region} …")
    return VERBS[verb](Cloud(args.project, settings.region), args)


def _list(cloud: Cloud, args: argparse.Namespace) -> int:
    found = jobs.list_jobs(cloud)
    if args.json:
        print(json.dumps([_row(job) for job in found], indent=2))
        return 0
    if not found:
        cli.say(f"no jobs of Podium in project {cloud.project}, {cloud.region}")
        return 0
    if not sys.stdout.isatty():
        for job in found:
            print("\t".join(str(value) for value in _row(job).values()))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("run", "job", "state", "machines", "made", "commit"):
        table.add_column(name, no_wrap=True)
    for job in found:
        table.add_row(*(str(value) for value in _row(job).values()))
    console = Console(markup=False)
    # A narrow terminal breaks lines, not numbers that are copied.
    console.print(table, width=max(console.width, _TABLE_COLUMNS), soft_wrap=True)
    return 0


def _row(job: Any) -> dict[str, Any]:
    pools = job.job_spec.worker_pool_specs
    machine = pools[0].machine_spec
    count = sum(pool.replica_count for pool in pools)
    shape = machine.tpu_topology or f"x {count}"
    return {
        "run": job.labels[RUN_LABEL],
        "job": jobs.id_of(job),
        "state": jobs.state_of(job),
        "machines": f"{machine.machine_type} {shape}",
        "made": job.create_time.isoformat(timespec="seconds"),
        "commit": job.labels[COMMIT_LABEL],
    }


def _status(cloud: Cloud, args: argparse.Namespace) -> int:
    job = jobs.newest(cloud, args.run)
    folder = job.job_spec.base_output_directory.output_uri_prefix
    progress = follow.RunFiles(cloud, folder).progress()
    if args.json:
        told = _row(job) | {"folder": folder, "error": job.error.message or None}
        told["progress"] = vars(progress) if progress else None
        print(json.dumps(told, indent=2))
        return 0
    for name, value in _row(job).items():
        print(f"{name:<10}{value}")
    print(f"folder    {folder}")
    print(f"console   {jobs.console_link(cloud, job)}")
    print(f"training  {progress or 'no step is reported yet'}")
    if job.error.message:
        print(f"error     {job.error.message}")
    return 0


def _logs(cloud: Cloud, args: argparse.Namespace) -> int:
    job = jobs.newest(cloud, args.run)
    if args.follow:
        return follow.follow_until_told(cloud, job)
    lines = list(follow.Log(cloud, job).new_lines())
    for line in lines:
        print(line)
    if not lines:
        cli.say(
            f"job {jobs.id_of(job)} is {jobs.state_of(job)} and has printed nothing"
        )
    return 0


def _cancel(cloud: Cloud, args: argparse.Namespace) -> int:
    job = jobs.newest(cloud, args.run)
    if not jobs.is_active(job):
        cli.say(f"job {jobs.id_of(job)} has ended already: {jobs.state_of(job)}")
        return 0
    jobs.cancel(cloud, job)
    cli.say(
        f"job {jobs.id_of(job)} is being cancelled; its checkpoints stay in "
        f"{job.job_spec.base_output_directory.output_uri_prefix}, and resume continues"
    )
    return 0


def _resume(cloud: Cloud, args: argparse.Namespace) -> int:
    job, is_new = jobs.again(cloud, args.run)
    what = "submitted" if is_new else f"is {jobs.state_of(job)} already"
    cli.say(f"job {jobs.id_of(job)} {what}: {jobs.console_link(cloud, job)}")
    return follow.follow_until_told(cloud, job) if args.follow else 0


VERBS: dict[str, Callable[[Cloud, argparse.Namespace], int]] = {
    "list": _list,
    "status": _status,
    "logs": _logs,
    "cancel": _cancel,
    "resume": _resume,
}
