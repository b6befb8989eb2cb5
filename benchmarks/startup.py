# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""From the start of a process to the end of its first step, and how fast it says no.

python benchmarks/startup.py            the table
python benchmarks/startup.py --profile  also the slowest imports on the way

Trains the model of peers/tiny_gpt.py for one step on prepared bytes with an empty
compilation cache (cold) and a filled one (warm); times `--help`, a config typo and
`import podium`. Median of --repeats, taken in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import report

HERE = Path(__file__).parent
CONFIG = str(HERE / "peers" / "tiny_gpt.py")
GOALS = {"cold": 10, "warm": 8, "--help": 1.5, "config typo": 1.5, "import podium": 0.3}


class Starts:
    """The things to time, each a function that returns seconds."""

    def __init__(self, folder: Path):
        self.folder, self.runs = folder, 0
        self.data = folder / "data"
        source = str(HERE.parent / "src")
        run(
            "-m",
            "podium.prepare",
            f"--input={source}",
            "--tokenizer=bytes",
            f"--output={self.data}",
        )

    def first_step(self, cache: Path) -> float:
        """Seconds until the first step's metrics are on the host.

        The step compiles, then runs: the run folder says when and how long.
        """
        self.runs += 1
        workdir = self.folder / f"run{self.runs}"
        start = time.time()
        run(*self.train_args(workdir), env={"JAX_COMPILATION_CACHE_DIR": str(cache)})
        events = jsonl(workdir / "events.jsonl")
        compiled = next(e["time"] for e in events if e["event"] == "compile")
        first = jsonl(workdir / "metrics.jsonl")[0]
        return compiled + first["step_secs"] - start

    def train_args(self, workdir: Path) -> list[str]:
        return [
            "-m",
            "podium.train",
            f"--config={CONFIG}",
            f"--config.data.paths=('{self.data}',)",
            "--config.model.vocab_size=257",  # bytes and an end of document
            "--config.num_steps=2",
            f"--workdir={workdir}",
        ]

    def cold(self) -> float:
        return self.first_step(self.folder / f"cold{self.runs}")

    def warm(self) -> float:
        return self.first_step(self.folder / "warm")

    def help(self) -> float:
        return timed("-m", "podium.train", "--help")

    def typo(self) -> float:
        return timed(
            "-m",
            "podium.train",
            f"--config={CONFIG}",
            "--config.optim.peek_lr=1",
            "--workdir=x",
            status=2,
        )

    def imports(self) -> float:
        return timed("-c", "import podium") - timed("-c", "pass")


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timed(*args: str, status: int = 0) -> float:
    start = time.perf_counter()
    run(*args, status=status)
    return time.perf_counter() - start


def run(*args: str, status: int = 0, env: dict[str, str] | None = None) -> str:
    process = subprocess.Popen(
        [sys.executable, *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    report.favour(process.pid)
    stderr = process.communicate()[1]
    if process.returncode != status:
        raise RuntimeError(f"{args} ended with {process.returncode}: {stderr}")
    return stderr


def slow_imports(starts: Starts) -> list[tuple[float, str]]:
    """Modules of the trainer's process whose import takes over 50 ms, with theirs."""
    args = starts.train_args(starts.folder / "profile")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(starts.folder / "warm")}
    stderr = run("-X", "importtime", *args, env=cache)
    found = []
    for line in stderr.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[1].strip().isdigit():
            found.append((int(parts[1]) / 1e6, parts[2].rstrip()))
    return [f for f in found if f[0] > 0.05]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        starts = Starts(Path(name))
        starts.warm()  # fills the cache
        what: dict[str, Callable[[], float]] = {
            "cold": starts.cold,
            "warm": starts.warm,
            "--help": starts.help,
            "config typo": starts.typo,
            "import podium": starts.imports,
        }
        secs: dict[str, list[float]] = {key: [] for key in what}
        for _ in range(args.repeats):
            for key, measure in what.items():
                secs[key].append(measure())
        imports = slow_imports(starts) if args.profile else []
    facts = report.provenance()
    if args.json:
        print(json.dumps({**facts, "secs": secs}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("start to", "median s", "fastest", "slowest", "goal", box=None)
    for key, values in secs.items():
        shown = (statistics.median(values), min(values), max(values))
        label = f"first step, {key}" if key in ("cold", "warm") else key
        table.add_row(label, *(f"{v:.2f}" for v in shown), f"< {GOALS[key]}")
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for line in report.lines(facts):
        print(line)
    for taken, module in imports:
        print(f"{taken:6.2f} s {module}")


if __name__ == "__main__":
    main()
