# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Searches over settings: many short runs, the best one's settings at the end.

python -m launch.sweep --config=configs/X.py --sweep=configs/sweeps/X.py --workdir=D
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from launch import build, jobs, sweep_report, sweep_vertex, vertex
from launch.sweep_local import LocalSweep, open_study
from launch.text import to_yaml
from podium import cli
from podium.config import TrainConfig
from podium.config_dict import to_json_dict
from podium.config_sweep import SweepConfig, check_space
from podium.errors import ConfigError
from podium.tracking_start import flat
from podium.train import prepare_text

_EXAMPLE = """example:
  python -m launch.sweep --config=configs/quickstart.py \\
      --sweep=configs/sweeps/quickstart.py --workdir=sweeps/quickstart \\
      --config.num_steps=60 --config.eval.every_steps=20

  python -m launch.sweep … --slice=v5e-8 --config.launch.project=my-project \\
      --config.launch.bucket=gs://my-bucket --config.data.paths=gs://my-bucket/gold/web

With a slice, or config.launch.machine, it runs on Vertex AI. The same command again goes
on, also with a larger --trials. Exit codes: 0 done, 1 failed,
2 a mistake, 75 interrupted, what was trained is saved.
"""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m launch.sweep",
        description="Searches over settings.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    add = parser.add_argument
    add("--sweep", metavar="FILE", required=True, help="Python, with get_sweep()")
    add("--workdir", metavar="D", required=True, help="of the sweep and its trials")
    add("--trials", type=int, metavar="N", help="in all (the file's num_trials)")
    add("--parallel", type=int, metavar="N", help="at a time (the file's)")
    add("--report", action="store_true", help="show what was tried, try nothing")
    add("--slice", metavar="NAME", help="short for --config.launch.machine=NAME")
    add("--dry_run", action="store_true", help="on Vertex AI: print the request alone")
    args, overrides = cli.parse_overrides(parser, argv)
    vertex.take_slice(parser, args.slice, overrides)
    cfg = cli.load_config(args.config, overrides)
    sweep = load_sweep(args.sweep)
    changes = {"num_trials": args.trials, "parallel": args.parallel}
    changes = {k: v for k, v in changes.items() if v is not None}
    sweep = dataclasses.replace(sweep, **changes)
    check_space(sweep, cfg)
    workdir = Path(args.workdir)
    if cfg.launch and cfg.launch.machine:
        return _in_cloud(sweep, workdir, args, overrides)
    if args.dry_run:
        parser.error("--dry_run goes with --slice=NAME")
    _check_same(sweep, cfg, workdir, is_report=args.report)
    if args.report:
        study = open_study(sweep, workdir)
        return _show(sweep_report.rows_of(study, sweep), sweep, workdir)
    flags = [f"--config={args.config}"]
    flags += [f"--config.{key}={value}" for key, value in overrides.items()]
    flags += _data(sweep, cfg, workdir)
    running = LocalSweep(sweep, workdir, flags)
    try:
        running.run()
    finally:
        code = _show(sweep_report.rows_of(running.study, sweep), sweep, workdir)
    return code


def _in_cloud(
    sweep: SweepConfig,
    workdir: Path,
    args: argparse.Namespace,
    overrides: dict[str, str],
) -> int:
    launch = vertex.prepare(args.config, overrides, is_planned=False)
    if args.dry_run:
        print(to_yaml(sweep_vertex.tuning_job(sweep, launch)), end="")
        return 0
    settings = launch.settings
    cloud = vertex.Cloud(settings.project or "", settings.region)
    package = build.deliver(
        *(cloud, settings, launch.package, launch.checkout, launch.where.extra),
        say=vertex.step,
    )
    request = sweep_vertex.tuning_job(sweep, launch, package)
    job, is_new = sweep_vertex.submit(cloud, request)
    what = "submitted" if is_new else "is there already, as asked for"
    vertex.step("sweep", f"{sweep_vertex.id_of(job)} {what}")
    vertex.step("console", jobs.console_link(cloud, job))
    rows = sweep_vertex.follow(cloud, job, sweep)
    workdir.mkdir(parents=True, exist_ok=True)
    return _show(rows, sweep, workdir)


def load_sweep(path: str) -> SweepConfig:
    """The search that a file describes. Raises ConfigError."""
    found = cli.run_config_file(path, "get_sweep", "configs/sweeps/quickstart.py")
    if not isinstance(found, SweepConfig):
        raise ConfigError(
            f"{path}: get_sweep() returned {type(found).__name__}; expected a SweepConfig"
        )
    return found


def _check_same(
    sweep: SweepConfig, cfg: TrainConfig, workdir: Path, *, is_report: bool
) -> None:
    """Trials are compared, so a sweep goes on with the search and the config that it
    began with."""
    path = workdir / "sweep.json"
    tree = dataclasses.asdict(sweep)
    for name in ("num_trials", "parallel"):
        del tree[name]
    if is_report and path.exists():
        return  # trials know what they were told
    now = json.loads(json.dumps({"sweep": tree, "config": to_json_dict(cfg)}))
    if not path.exists():
        if is_report:
            raise ConfigError(f"{workdir} holds no sweep: there is no sweep.json")
        workdir.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(now, indent=1) + "\n")
        return
    before = json.loads(path.read_text())
    for part in ("sweep", "config"):
        if before[part] != now[part]:
            old, new = flat(before[part]), flat(now[part])
            names = dict.fromkeys([*old, *new])
            name = next(n for n in names if old.get(n) != new.get(n))
            raise ConfigError(
                f"{workdir} holds a sweep with another {part}: {name} was "
                f"{old.get(name, 'not there')}, is {new.get(name, 'not there')}; use "
                f"another --workdir, or what {path} says"
            )


def _data(sweep: SweepConfig, cfg: TrainConfig, workdir: Path) -> list[str]:
    """Raw text is prepared once, not by each trial. Raises ConfigError."""
    if cfg.data.paths or any(key.startswith("data.") for key in sweep.space):
        return []
    if cfg.data.text is None:
        raise ConfigError(
            "data.paths and data.text are both empty; set --config.data.text=DIR or "
            "--config.data.paths=D"
        )
    folder = workdir / "data"
    if not (folder / "manifest.json").exists():
        prepare_text(cfg, folder)
    return [f"--config.data.paths={folder}"]


def _show(rows: list[sweep_report.Row], sweep: SweepConfig, workdir: Path) -> int:
    if not rows:
        return 0
    for path in (
        sweep_report.write_csv(rows, workdir / "results.csv"),
        sweep_report.plot(rows, sweep, workdir / "sweep.png"),
    ):
        cli.say(f"{path}: written")
    sweep_report.print_table(rows, sweep)
    best = sweep_report.best(rows, sweep)
    if best is None:
        print("no trial has come to its end")
        return 1
    print("best: " + " ".join(f"--config.{k}={v}" for k, v in best.params.items()))
    return 0


if __name__ == "__main__":
    cli.run(main, can_continue=True)
