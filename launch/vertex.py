# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Trains on Vertex AI: checks, packages, submits and follows a custom job.

python -m launch.vertex --config=configs/X.py --slice=v5e-16
"""

import argparse
import dataclasses
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import build, checks, follow, jobs, plans, request, source, verbs
from launch.cloud import Cloud
from launch.job_secrets import check_secrets
from launch.machines import Placement, place
from launch.text import to_yaml
from launch.verbs import VERBS
from podium import cli
from podium.config import TrainConfig
from podium.config_launch import LaunchConfig
from podium.errors import ConfigError

_EXAMPLE = """examples:
  python -m launch.vertex --config=configs/X.py --slice=v5e-16 --dry_run
  python -m launch.vertex --config=configs/X.py --slice=v5e-16 \\
      --config.launch.project=my-project --config.launch.bucket=gs://my-bucket \\
      --config.launch.region=us-west4 --config.data.paths=gs://my-bucket/gold/web

The settings of config.launch (--config.help lists them) say where and on what. The same
command again follows the run's job, and continues the run when that has ended. Jobs
that there are: python -m launch.vertex list|status|logs|cancel|resume --help.

Exit codes: 0 the run is done, 1 it failed, 2 a mistake that was found before anything
began, 75 the job was ended after it had saved, 130 left while it goes on.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """All that is decided before the cloud is asked."""

    cfg: TrainConfig
    where: Placement
    checkout: source.Checkout
    run: str
    flags: list[str]  # of the job's command
    package: request.Package  # by tag: what it will be once it is built

    @property
    def settings(self) -> LaunchConfig:
        """`config.launch`."""
        assert self.cfg.launch
        return self.cfg.launch

    def custom_job(self, package: request.Package | None = None) -> dict[str, Any]:
        """The request for Vertex AI."""
        job = request.custom_job(
            self.cfg, self.where, self.package, self.run, self.flags
        )
        return request.with_image(job, package.image) if package else job


def main(argv: Sequence[str]) -> int:
    """The command line."""
    if argv and argv[0] in VERBS:
        return verbs.main(argv[0], argv[1:])
    parser = cli.Parser(
        prog="python -m launch.vertex",
        description="Trains on Vertex AI.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument(
        "--slice", metavar="NAME", help="short for --config.launch.machine=NAME"
    )
    parser.add_argument(
        "--plan", action="store_true", help="plan the run first if no plan is cached"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the request as YAML, send nothing"
    )
    parser.add_argument(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=sys.stderr.isatty(),
        help="stay until the job has ended (default on a terminal)",
    )
    if argv and not argv[0].startswith("-"):
        near = difflib.get_close_matches(argv[0], VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        parser.error(f"{argv[0]!r} is none of {', '.join(VERBS)}{hint}")
    if verb := next((word for word in argv if word in VERBS), None):
        parser.error(f"{verb} comes first: python -m launch.vertex {verb} …")
    args, overrides = cli.parse_overrides(parser, argv)
    take_slice(parser, args.slice, overrides)
    launch = prepare(args.config, overrides, is_planned=args.plan)
    if args.dry_run:
        print(f"# {cost_line(launch.where, launch.settings)}")
        print(to_yaml(launch.custom_job()), end="")
        return 0
    with cli.terminated_as_interrupted():
        return submit(launch, is_followed=args.follow)


def take_slice(parser: cli.Parser, name: str | None, overrides: dict[str, str]) -> None:
    """--slice=NAME as the setting that it is short for."""
    if name is None:
        return
    if (machine := overrides.get("launch.machine", name)) != name:
        parser.error(
            f"--slice={name} and --config.launch.machine={machine} name two machines; "
            "give one of them"
        )
    overrides["launch.machine"] = name


def submit(launch: Launch, *, is_followed: bool) -> int:
    """Packages, submits and follows. Raises CloudError."""
    settings = launch.settings
    cloud = Cloud(settings.project or "", settings.region)
    step("Vertex AI", f"is asked what {launch.run} is doing")
    # First: an image takes minutes, and a run that is at work is given to nobody else.
    job, is_new = jobs.standing(cloud, launch.custom_job()), False
    if job is None:
        job, is_new = _send(cloud, launch)
    what = "submitted" if is_new else f"is {jobs.state_of(job)} already, as asked for"
    step("job", f"{jobs.id_of(job)} {what}")
    step("console", jobs.console_link(cloud, job))
    if is_followed:
        return follow.follow_until_told(cloud, job)
    where = f"--project={cloud.project} --region={cloud.region}"
    step("follow", f"python -m launch.vertex logs {launch.run} --follow {where}")
    return 0


def _send(cloud: Cloud, launch: Launch) -> tuple[Any, bool]:
    goes_on = "what has begun goes on, and the same command finds it"
    try:
        package = build.deliver(
            *(cloud, launch.settings, launch.package, launch.checkout),
            launch.where.extra,
            say=step,
        )
    except KeyboardInterrupt:
        step("build", goes_on)
        raise
    try:
        return jobs.submit(cloud, launch.custom_job(package))
    except KeyboardInterrupt:
        where = f"--project={cloud.project} --region={cloud.region}"
        step("job", f"{goes_on}; see python -m launch.vertex list {where}")
        raise


def prepare(config: str, overrides: dict[str, str], *, is_planned: bool) -> Launch:
    """Checks everything that needs no cloud. Raises ConfigError."""
    cfg = cli.load_config(config, overrides)
    settings = checks.required(cfg, "project", "bucket")
    cfg = dataclasses.replace(cfg, launch=settings)
    where = place(settings)
    what = settings.machine or ""
    checks.check_mesh(cfg, where.devices, 1, what)
    checkout = source.read_checkout()
    config = inside(checkout.root, config)
    checks.check_data(cfg, where.hosts)
    checks.check_text(cfg, overrides, checkout.root)
    checks.check_folder(cfg)
    checks.check_start(cfg)
    checks.check_trackers(cfg)
    checks.check_export(cfg)
    check_secrets(cfg, settings)
    step("config", f"{config} is sound")
    step("machines", _machines_line(where, settings))
    step("cost", cost_line(where, settings))
    if where.tpu:
        flags = [f"--config={config}", *as_flags(overrides)]
        step("plan", plans.consult(cfg, where.tpu.name, flags, is_made=is_planned))
    step("checkout", checkout.describe())
    run = request.run_name(cfg, config)
    step("run", f"{run} in {request.run_folder(settings, run)}")
    return Launch(
        cfg=cfg,
        where=where,
        checkout=checkout,
        run=run,
        flags=request.job_flags(config, overrides, run, where.hosts, cfg),
        package=request.planned_package(settings, where, checkout),
    )


def step(name: str, line: str) -> None:
    """One step of the way, for the user."""
    cli.say(f"{name:<10}{line}")


def cost_line(where: Placement, settings: LaunchConfig) -> str:
    """What the job costs by the hour, as far as that is known."""
    if where.usd_per_hour is None:
        return (
            f"not known for {where.machine_type}; --config.launch.usd_per_hour=PRICE of "
            "one machine says it"
        )
    if settings.usd_per_hour is not None:
        kind = "by launch.usd_per_hour"
    elif settings.capacity.kind == "on_demand":
        fee = ", without Vertex AI's management fee" if where.machine_type else ""
        kind = f"list price{fee}"
    else:
        kind = f"list price on demand; {settings.capacity.kind} costs another"
    return f"{where.usd_per_hour:,.2f} USD per hour ({kind})"


def _machines_line(where: Placement, settings: LaunchConfig) -> str:
    shape = f" ({where.topology})" if where.topology else ""
    hosts = "1 host" if where.hosts == 1 else f"{where.hosts} hosts"
    return (
        f"{settings.machine}: {hosts} of {where.machine_type}{shape}, {where.devices} "
        f"devices, {settings.capacity.kind}, in {settings.region}"
    )


def inside(root: Path, config: str) -> str:
    """The config file's name in the checkout, which is all that the job has."""
    path = Path(os.path.relpath(Path(config).resolve(), root.resolve()))
    if path.parts[0] == "..":
        raise ConfigError(
            f"--config={config} lies outside the checkout {root}, which is what the job "
            "runs; move it there, to configs/ say"
        )
    return path.as_posix()


def as_flags(overrides: dict[str, str]) -> list[str]:
    """Overrides as they were given."""
    return [f"--config.{key}={value}" for key, value in overrides.items()]


if __name__ == "__main__":
    cli.run(main)
