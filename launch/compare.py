# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs side by side: settings that differ, last figures, speed, goodput, cost, curves.

python -m launch.compare --experiment=E --project=P
"""

import argparse
import csv
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from launch.cloud import Cloud
from launch.compare_runs import (
    Run,
    differing,
    from_bucket,
    from_experiment,
    from_folder,
)
from podium import cli
from podium.config_launch import LaunchConfig
from podium.errors import ConfigError

_EXAMPLE = """examples:
  python -m launch.compare --experiment=first --project=my-project --region=us-west4
  python -m launch.compare --experiment=first --project=my-project --runs=small,runs/mine
  python -m launch.compare --runs=runs/a,gs://my-bucket/runs/b

A run is a name in the experiment, a folder of podium.train (beside an experiment
written with a slash, ./mine), or a job's in a bucket. The table goes to standard output;
the same with the curves as a page, as CSV and as a picture to --output.
Cost is wall time at the machines' list price, or at launch.usd_per_hour.
"""
_COLUMNS = 5  # runs beside each other in one table
# Figure -> how it is shown.
_FIGURES = {
    "step": "{:,.0f}",
    "loss": "{:.4f}",
    "eval_loss": "{:.4f}",
    "tokens_per_sec": "{:,.0f}",
    "tokens_per_sec_per_device": "{:,.0f}",
    "mfu": "{:.1%}",
    "goodput": "{:.1%}",
    "wall_secs": "{:,.0f}",
    "usd": "{:,.2f}",
}


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m launch.compare",
        description="Compares runs, of Vertex Experiments and of folders.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--experiment", metavar="E", help="of Vertex Experiments")
    parser.add_argument(
        "--runs", metavar="A,B", help="which ones (default: all of the experiment)"
    )
    parser.add_argument(
        "--project",
        default=os.environ.get("GOOGLE_CLOUD_PROJECT"),
        help="of Google Cloud (default: GOOGLE_CLOUD_PROJECT)",
    )
    parser.add_argument(
        "--region", default=LaunchConfig().region, help="of the experiment"
    )
    parser.add_argument(
        "--output",
        metavar="D",
        default="compared",
        help="for runs.html, runs.csv, curves.png",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if not args.experiment and not args.runs:
        parser.error("--experiment or --runs is missing, e.g. --runs=runs/a,runs/b")
    runs = read_runs(args)
    names = differing(runs)
    if args.json:
        print(json.dumps([dataclasses.asdict(run) for run in runs], indent=2))
    else:
        for first in range(0, len(runs), _COLUMNS):
            _print(runs[first : first + _COLUMNS], names)
    for path in write(runs, names, Path(args.output)):
        cli.say(f"{path}: written")
    return 0


def read_runs(args: argparse.Namespace) -> list[Run]:
    """In the order given; those of the experiment otherwise, oldest first."""
    asked = [name for name in (args.runs or "").split(",") if name]
    names = [name for name in asked if args.experiment and "/" not in name]
    if args.experiment and asked and not names:
        raise ConfigError(
            f"--experiment={args.experiment} has none of --runs={args.runs}; name one "
            "of its runs too, or leave one of the two flags away"
        )
    found = {}
    for name in asked:
        if name.startswith("gs://"):
            found[name] = from_bucket(name)
        elif name not in names:
            found[name] = from_folder(Path(name))
    if args.experiment:
        if not args.project:
            raise ConfigError(
                "--project is missing; give the id of the Google Cloud project, or set "
                "GOOGLE_CLOUD_PROJECT"
            )
        cloud = Cloud(args.project, args.region)
        there = from_experiment(cloud, args.experiment, names or None)
        found |= {run.name: run for run in there}
    if not found:
        raise ConfigError(f"--experiment={args.experiment} has no runs yet")
    return [found[name] for name in asked] if asked else list(found.values())


def write(runs: Sequence[Run], names: Sequence[str], folder: Path) -> list[Path]:
    """runs.html, runs.csv, a row a run, and curves.png where there are any."""
    from launch.compare_page import page
    from launch.compare_plot import plot

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output={folder} cannot be made: {error.strerror}; choose another folder"
        ) from error
    path = folder / "runs.csv"
    figures = sorted({name for run in runs for name in run.figures})
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["run", "where", *names, *figures])
        for run in runs:
            params = [run.params.get(name, "") for name in names]
            values = [run.figures.get(name, "") for name in figures]
            rows.writerow([run.name, run.where, *params, *values])
    drawn = plot(runs, folder)
    html = folder / "runs.html"
    shown = [
        (name, [_shown(run, name, form) for run in runs])
        for name, form in _FIGURES.items()
        if any(name in run.figures for run in runs)
    ]
    html.write_text(page(runs, names, shown, drawn[1] if drawn else None))
    return [html, path, drawn[0]] if drawn else [html, path]


def _print(runs: Sequence[Run], names: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from podium.sharding_tables import console

    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for run in runs:
        table.add_column(Text(run.name), justify="right", overflow="fold")
    table.add_row("where", *(Text(run.where) for run in runs), end_section=True)
    for name in names:
        table.add_row(name, *(Text(str(run.params.get(name, "–"))) for run in runs))
    if not names:
        table.add_row("settings", *("the same" for _ in runs))
    for name, form in _FIGURES.items():
        if any(name in run.figures for run in runs):
            table.add_row(name, *(_shown(run, name, form) for run in runs))
    console().print(table)


def _shown(run: Run, name: str, form: str) -> str:
    value = run.figures.get(name)
    return "–" if value is None else form.format(value)


if __name__ == "__main__":
    cli.run(main)
