# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where did the time of a run go, over all its starts, kills and down times?

python -m profiling.goodput --workdir=runs/quickstart

Reads D/events.jsonl, needs no accelerator, and may be asked while the run goes on.
"""

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podium import cli
from podium.errors import ConfigError
from podium.run_folder import is_being_trained
from podium.trainer.events import read_lines
from podium.trainer.goodput import PARTS, Account, Attempt, account

_EXAMPLE = """examples:
  python -m profiling.goodput --workdir=runs/quickstart
  python -m profiling.goodput --workdir=runs/quickstart --json

Goodput is the time of the steps that count, over the wall time from the first start to
the last line of D/events.jsonl. The picture goes to D/plots/goodput.png.
"""
_SHOWN = 20  # attempts in the table, the last ones; JSON and the picture have all


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.goodput",
        description="Tells where the time of a run went.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--workdir", metavar="D", help="the run folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args: argparse.Namespace = parser.parse_args(argv)
    if not args.workdir:
        parser.error("--workdir is missing, e.g. --workdir=runs/first")
    workdir = Path(args.workdir)
    found, num_bad = read_account(workdir)
    hosts = last_hosts(workdir)
    if args.json:
        print(json.dumps({**as_json(found, num_bad), "hosts": hosts}, indent=2))
    else:
        _print(found, num_bad)
        if hosts:
            _print_hosts(hosts)

    from profiling.goodput_plot import plot

    try:
        path = plot(found, workdir)
    except OSError as error:  # the table is out; a folder may be another's
        cli.say(f"note: no picture: {error.filename or workdir}: {error.strerror}")
    else:
        cli.say(f"{path}: written")
    return 0


def read_account(workdir: Path) -> tuple[Account, int]:
    """Of a run folder, and how many lines of its ledger cannot be read.

    Raises ConfigError where there is no ledger with times.
    """
    if not (workdir / "events.jsonl").is_file():
        what = "has no events.jsonl" if workdir.is_dir() else "is no folder"
        raise ConfigError(
            f"{workdir} {what}; --workdir is the folder of a run of podium.train"
        )
    events, num_bad = read_lines(workdir)
    found = account(events)
    if not found.attempts:
        raise ConfigError(
            f"{workdir / 'events.jsonl'} has no line with time, began and up; the run "
            "has not begun, or was trained before Podium kept them"
        )
    last = found.attempts[-1]
    if not last.end:
        ends = {True: "still running", False: "killed", None: "killed or still running"}
        last.end = ends[is_being_trained(workdir)]
    return found, num_bad


def last_hosts(workdir: Path) -> list[dict[str, Any]]:
    """What the hosts of a run last told of themselves; none where it has one process."""
    told = [e for e in read_lines(workdir)[0] if e["event"] == "hosts"]
    return told[-1]["hosts"] if told else []


def as_json(found: Account, num_bad: int) -> dict[str, Any]:
    """Plain data; seconds."""
    millis = found.millis
    return {
        "wall_secs": sum(millis.values()) / 1000,
        "goodput": found.goodput,
        "secs": _secs(millis),
        "attempts": [
            {
                "began": a.began,
                "resumed_at_step": a.resumed_at,
                "last_step": a.last_step,
                "end": a.end or None,
                "secs": _secs(a.millis),
            }
            for a in found.attempts
        ],
        "clock_jumps": found.num_clock_jumps,
        "unreadable_lines": num_bad,
    }


def _secs(millis: dict[str, int]) -> dict[str, float]:
    return {part: n / 1000 for part, n in millis.items()}


def in_words(millis: int) -> str:
    """3 d 04 h, 2 h 05 min, 3 min 07 s or 12.3 s."""
    secs = millis / 1000
    if secs < 60:
        return f"{secs:.1f} s"
    minutes, seconds = divmod(round(secs), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24:02} h"


def _print(found: Account, num_bad: int) -> None:
    from rich.table import Table

    from podium.sharding_tables import NARROW, console

    to = console()
    millis = found.millis
    wall = sum(millis.values())
    print(
        f"Goodput {found.goodput:.1%}: {in_words(millis['productive'])} of steps that "
        f"count in {in_words(wall)}, {_attempts(len(found.attempts))}."
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    for part, what in PARTS.items():
        table.add_row(part.replace("_", " "), *_amount(millis[part], wall), what)
    table.add_row("wall time", *_amount(wall, wall), "the sum")
    to.print(table)
    if len(found.attempts) > 1:
        print()
        to.print(_attempt_table(found.attempts, is_wide=to.width >= NARROW))
        if len(found.attempts) > _SHOWN:
            print(f"The last {_SHOWN} attempts are shown; --json lists all.")
    if found.num_clock_jumps:
        print(
            f"{found.num_clock_jumps} of the starts lie before the end of the attempt "
            "before, by clocks that were set back or differ: no down time is counted there"
        )
    if num_bad:
        print(f"{num_bad} lines of the ledger were cut short and are not counted")


def _print_hosts(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from podium.sharding_tables import console
    from podium.trainer import hosts

    print("\nHosts, in the last window that each told of:")
    table = Table(box=None, pad_edge=False)
    for name in ("process", "host", "steps", "step s", "late s", "input s", "paused s"):
        table.add_column(name, justify="left" if name == "host" else "right")
    table.add_column("others wait", justify="right")
    for row in rows:
        numbers = row["secs"] / max(1, row["steps"]), row["late_secs"]
        numbers += row["input_wait_secs"], row["paused_secs"]
        shown = (f"{n:.3f}" for n in numbers)
        share = f"{hosts.lost_share(row):.1%}"
        table.add_row(
            str(row["process"]), row["host"], str(row["steps"]), *shown, share
        )
    console().print(table)
    slow = hosts.slowest(rows)
    print(hosts.in_words(slow) if slow else "No host holds up the others.")


def _amount(millis: int, wall: int) -> tuple[str, str]:
    return f"{millis / 1000:,.3f}", f"{millis / wall if wall else 0:.1%}"


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _attempt_table(attempts: list[Attempt], *, is_wide: bool) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("attempt", "steps", "down before", "lasted", "productive", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    if is_wide:
        table.add_column("began", no_wrap=True)
    table.add_column("end", overflow="fold")
    numbered = list(enumerate(attempts, 1))
    for number, a in numbered[-_SHOWN:]:
        before = a.millis["down"] + a.millis["idle"]
        parts = (before, sum(a.millis.values()) - before)
        parts += (a.millis["productive"], a.millis["lost"])
        table.add_row(
            str(number),
            _steps(a),
            *map(in_words, parts),
            *([_date(a.began)] if is_wide else []),
            Text(a.end or "killed"),
        )
    return table


def _steps(a: Attempt) -> str:
    if a.last_step is None:
        return "none"
    return f"{(a.resumed_at or 0) + 1}-{a.last_step}"


def _date(secs: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(secs).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "?"


if __name__ == "__main__":
    cli.run(main)
