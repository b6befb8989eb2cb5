# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Does a run of this config survive what happens in weeks on a cluster? Plays it, here.

python -m profiling.drill --config=configs/quickstart.py --workdir=runs/drill

Runs podium.train over and over, does to it what hosts, networks and disks do, starts it
again by the same command, and compares its curve with that of an unbroken run.
"""

import argparse
import contextlib
import dataclasses
import difflib
import functools
import json
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from podium import cli
from podium.config import (
    CheckpointConfig,
    EvalConfig,
    FaultsConfig,
    MeshConfig,
    ProfileConfig,
    TrainConfig,
)
from podium.config_dict import to_json_dict
from podium.config_mesh import MESH_AXES
from podium.errors import ConfigError
from profiling.drill_faults import FAULTS, FOUR, Played
from profiling.drill_run import Drill, Failed, Lost, Row, lost, pace, read_rows

NUM_STEPS = 200
_VOCAB = 272  # of bytes, and a little more
_PARTS = 4  # processes, of one device each
_EXAMPLE = """example:
  python -m profiling.drill --config=configs/quickstart.py --workdir=runs/drill \\
      --faults=kill,disk --kills=20

The model is shrunk to a few thousand parameters of the same architecture and trained for
200 steps on made-up text, on the CPU; --workdir takes 200 MB. All faults with 100 kills
take half an hour on two cores. Exit code 0: every row is ok; 1: one is not, and its run
folder is kept for you to look at.
"""


@dataclasses.dataclass(frozen=True)
class Result:
    """One row of the table."""

    fault: str
    what: str
    ok: bool
    words: str  # what was seen; or why it failed, and where to look
    lost: Lost | None
    secs: float  # that the row took


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m profiling.drill",
        description="Breaks a run in every way, and compares it with the unbroken one.",
        epilog=_EXAMPLE,
    )
    cli.add_config(parser)
    parser.add_argument("--workdir", metavar="D", help="a new folder for all the runs")
    parser.add_argument("--faults", help=f"some of {','.join(FAULTS)}; default: all")
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs (100)")
    parser.add_argument("--seed", type=int, help="of the instants; default: a new one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args, cfg = cli.parse(parser, argv)
    faults = _faults(args.faults)
    folder = _new_folder(parser, args)
    if args.kills < 1:
        raise ConfigError(f"--kills is {args.kills}; expected 1 or more")
    seed = secrets.randbelow(2**32) if args.seed is None else args.seed
    if not args.json:
        print(f"seed {seed}; all runs lie in {folder}/", flush=True)
    with _shown(len(faults)) as (say, advance):
        drill = prepare(cfg, folder, seed=seed, kills=args.kills, say=say)
        unbroken(drill, faults)
        results = []
        for fault in faults:
            results.append(play(drill, fault, FAULTS[fault]))
            advance(results[-1])
    is_ok = all(result.ok for result in results)
    if args.json:
        rows = [dataclasses.asdict(r) for r in results]
        print(json.dumps({"seed": seed, "ok": is_ok, "faults": rows}, indent=2))
    else:
        print_table(results)
    return 0 if is_ok else cli.EXIT_FAILED


def cut_down(cfg: TrainConfig, gold: Path) -> TrainConfig:
    """The same architecture and optimizer, with steps of some ten milliseconds."""
    from profiling.shrink import shrink

    small = shrink(cfg, _PARTS)
    return dataclasses.replace(
        small,
        num_steps=NUM_STEPS,
        log_every_steps=5,
        model=dataclasses.replace(small.model, vocab_size=_VOCAB),
        data=dataclasses.replace(
            small.data, paths=(str(gold),), weights=(), on_damage="error"
        ),
        # Intervals that share no factor: what one does must not help the other.
        checkpoint=CheckpointConfig(every_steps=12, keep_last=2),
        eval=cfg.eval and EvalConfig(every_steps=50, num_batches=2),
        faults=FaultsConfig(),
        mesh=dataclasses.replace(MeshConfig(), **dict.fromkeys(MESH_AXES, 1)),
        profile=ProfileConfig(),
        sample=None,
    )


def prepare(
    cfg: TrainConfig,
    folder: Path,
    *,
    seed: int,
    kills: int,
    say: Callable[[str], None],
) -> Drill:
    """Data and config, the same for all rows."""
    gold, config = folder / "gold", folder / "config.json"
    rng = random.Random(seed)
    text = folder / "text"
    text.mkdir()
    for i in range(200):
        words = " ".join(str(rng.randrange(10**6)) for _ in range(150))
        (text / f"{i}.txt").write_text(f"document {i}: {words}")
    command = [sys.executable, "-m", "podium.prepare", f"--input={text}"]
    command += [f"--output={gold}", "--tokenizer=bytes", "--eval_fraction=0.05"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"no data for the drill: {done.stderr.strip()[-300:]}")
    config.write_text(json.dumps(to_json_dict(cut_down(cfg, gold))))
    return Drill(folder, config, gold, rng, kills, say)


def unbroken(drill: Drill, faults: Sequence[str]) -> None:
    """The runs that all others are compared with; the first also fills the caches."""
    try:
        for count in sorted({4 if fault in FOUR else 1 for fault in faults}):
            drill.say(f"the unbroken run, {count} process{'es' if count > 1 else ''}")
            row = Row(drill, drill.reference(count).parent.name, num_processes=count)
            row.start_until(functools.partial(row.ends, 0))
            read_rows(row.workdir)
            if count == 1:
                # Once more with filled caches, for the pace; and it must be the same.
                row = Row(drill, "unbroken-again", num_processes=count)
                row.finish()
                drill.pace = pace(row.workdir)
    except Failed as error:
        raise ConfigError(
            f"a run without any fault is not as it should be: {error}; see {row.log()}"
        ) from None
    finally:
        drill.end_all()


def play(drill: Drill, fault: str, fn: Callable[[Drill], Played]) -> Result:
    """One row of the table."""
    what = (fn.__doc__ or "").strip().splitlines()[0]
    drill.say(f"{fault}: {what}")
    begun = time.monotonic()
    try:
        played = fn(drill)
    except Failed as error:
        where = f"{error}; look into {drill.folder}/{fault}*"
        return Result(fault, what, False, where, None, time.monotonic() - begun)
    finally:
        drill.end_all()
    secs = time.monotonic() - begun
    return Result(fault, what, True, played.words, lost(played.workdirs), secs)


def print_table(results: Sequence[Result]) -> None:
    """Fault, outcome, seconds lost."""
    from rich.table import Table

    from podium.sharding_tables import console

    table = Table(box=None, pad_edge=False)
    table.add_column("fault", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for name in ("lost s", "steps", "down", "start", "recovery"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    for r in results:
        lost = [""] * 5
        if r.lost:
            by = (
                r.lost.total,
                r.lost.steps,
                r.lost.down,
                r.lost.again,
                r.lost.recovery,
            )
            lost = [f"{secs:,.1f}" for secs in by]
        table.add_row(r.fault, "ok" if r.ok else "FAILED", *lost, r.words)
    console().print(table)
    num_ok = sum(r.ok for r in results)
    print(
        f"{num_ok} of {len(results)} ok: continued by the same command, to the curve of "
        "the unbroken run, bit for bit. Seconds lost, by the goodput ledger: steps done "
        "again, down, starts; recovery: one start, the median, until it steps again."
    )


def _faults(text: str | None) -> list[str]:
    if text is None:
        return list(FAULTS)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FAULTS:
            near = difflib.get_close_matches(name, FAULTS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"--faults: {name!r} is none of {', '.join(FAULTS)}.{hint}"
            )
    return list(dict.fromkeys(names))


def _new_folder(parser: cli.Parser, args: argparse.Namespace) -> Path:
    if not args.workdir:
        parser.error("--workdir is missing, e.g. --workdir=runs/drill")
    folder = Path(args.workdir).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"--workdir={args.workdir} is there already and not empty; a drill makes its "
            "own folder: choose another name"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--workdir={args.workdir} cannot be made: {error.strerror}"
        ) from error
    return folder


@contextlib.contextmanager
def _shown(num_faults: int) -> Iterator[tuple[Callable[[str], None], Any]]:
    """A bar on a terminal, lines elsewhere: (say what goes on, a row is done)."""
    if not sys.stderr.isatty():

        def done(result: Result) -> None:
            outcome = "ok" if result.ok else "FAILED"
            _line(f"{result.fault}: {outcome}, {result.secs:.0f} s: {result.words}")

        yield _line, done
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.completed:.0f}/{task.total:.0f}"), BarColumn(None))
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=num_faults)
        yield (
            lambda text: bar.update(task, description=text),
            lambda _result: bar.advance(task),
        )


def _line(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
