# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Podium's train step beside its peers', in turns on the same cores.

python benchmarks/cpu_step.py                        (peers of this environment)
python benchmarks/cpu_step.py --envs=DIR             (also those with a folder in DIR)
python benchmarks/cpu_step.py --peers=podium,torch/eager/bfloat16 --rounds=20

The model and its batches are in peers/serve.py; each script in peers/ says how to make
its environment DIR/NAME. Every peer is started and compiled first; then each runs a few
steps in turn, round after round, so that a busy machine slows all alike. The figure of
a peer is the median of its steps; its ratio is the median over rounds of its speed over
the best hand-written JAX of the same round.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import report

FOLDER = Path(__file__).parent / "peers"
TOKENS = 12 * 256
DEFAULT = (  # each holds 1 to 2 GB of memory
    "podium podium/scan_dots/bfloat16 bare_jax/scan bare_jax/scan_remat bare_nnx "
    "maxtext levanter torch torch/eager/bfloat16"
)


@dataclasses.dataclass
class Peer:
    """A process that waits on its standard input, and what it has answered."""

    name: str
    process: subprocess.Popen
    hello: dict
    rounds: list[list[float]] = dataclasses.field(default_factory=list)
    last: dict = dataclasses.field(default_factory=dict)

    def run(self, steps: int) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        self.last = json.loads(self.process.stdout.readline())
        self.rounds.append(self.last["secs"])

    @property
    def secs(self) -> float:
        """Seconds a step, the median of all."""
        return statistics.median(s for r in self.rounds for s in r)

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.name.endswith("bfloat16") else "float32"


def start(name: str, python: str, text: str, log) -> Peer | None:
    """Starts a peer named script/variant/dtype and waits until it has compiled."""
    script, *options = name.split("/")
    flags = [
        f"--{key}={value}"
        for key, value in zip(("variant", "dtype"), options, strict=False)
    ]
    process = subprocess.Popen(
        [python, str(script_of(script)), f"--text={text}", *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    report.favour(process.pid)
    assert process.stdout
    answer = process.stdout.readline()
    if not answer:
        print(f"{name}: failed, see {log.name}", file=sys.stderr)
        return None
    return Peer(name, process, json.loads(answer))


def script_of(peer: str) -> Path:
    path = FOLDER / f"{peer}.py"
    return path if path.exists() else FOLDER / f"{peer}_step.py"


def ratios(peer: Peer, best: list[float]) -> list[float]:
    """Speed over the best's, per round."""
    return [b / statistics.median(r) for b, r in zip(best, peer.rounds, strict=True)]


def measure(names: list[str], pythons: dict[str, str], args) -> list[Peer]:
    peers = []
    with tempfile.NamedTemporaryFile("w", suffix=".log", delete=False) as log:
        for name in names:
            print(f"starting {name}", file=sys.stderr)
            peer = start(name, pythons[name.split("/")[0]], args.text, log)
            peers += [peer] if peer else []
        for i in range(args.rounds):
            for peer in peers:
                peer.run(args.steps)
            print(f"round {i + 1} of {args.rounds}", file=sys.stderr)
    for peer in peers:
        assert peer.process.stdin
        peer.process.stdin.close()
        peer.process.wait()
    return peers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help="comma-separated script/variant/dtype")
    parser.add_argument("--envs", help="folder of the peers' environments")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2, help="per peer and round")
    parser.add_argument("--text", help="bytes to train on; default: Podium's sources")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()

    pythons = {p: sys.executable for p in ("podium", "bare_jax", "bare_nnx")}
    for env in Path(args.envs).iterdir() if args.envs else ():
        pythons[env.name] = str(env / "bin" / "python")
    names = args.peers.split(",") if args.peers else DEFAULT.split()
    if missing := [n for n in names if n.split("/")[0] not in pythons]:
        print(f"no environment for {', '.join(missing)}; see --envs", file=sys.stderr)
        names = [n for n in names if n not in missing]
    with tempfile.TemporaryDirectory() as folder:
        args.text = args.text or sources(Path(folder) / "text")
        peers = measure(names, pythons, args)
    facts = report.provenance()
    bare = [p for p in peers if p.name.startswith("bare_") and p.dtype == "float32"]
    best = min(bare, key=lambda p: p.secs, default=None)
    baseline = best and [statistics.median(r) for r in best.rounds]
    rows = [row(peer, baseline) for peer in peers]
    if args.json:
        print(json.dumps({**facts, "peers": rows}))
    else:
        show(rows, facts)


def sources(path: Path) -> str:
    """Python sources of this repository, repeated to 4 MB, as one file."""
    files = sorted((Path(__file__).parent.parent / "src").rglob("*.py"))
    text = b"".join(f.read_bytes() for f in files)
    path.write_bytes(text * (4_000_000 // len(text) + 1))
    return str(path)


def row(peer: Peer, best: list[float] | None) -> dict:
    ratio = statistics.median(ratios(peer, best)) if best else None
    return {
        "peer": peer.name,
        "tokens_per_sec": round(TOKENS / peer.secs),
        "ratio_to_best_bare_jax_float32": ratio and round(ratio, 2),
        "import_secs": round(peer.hello["import_secs"], 1),
        "first_step_secs": round(peer.hello["first_step_secs"], 1),
        "peak_rss_mb": round(peer.last["peak_rss_mb"]),
        "loss": round(peer.last["losses"][-1], 3),
        "versions": peer.hello["versions"],
    }


def show(rows: list[dict], facts: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "peer",
        "tok/s",
        "ratio",
        "import s",
        "first step s",
        "peak MB",
        "loss",
        box=None,
    )
    for r in sorted(rows, key=lambda r: -r["tokens_per_sec"]):
        values = list(r.values())[:-1]
        table.add_row(*("" if v is None else str(v) for v in values))
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    versions = {}
    for r in rows:
        versions[r["peer"].split("/")[0]] = " ".join(
            f"{k} {v}" for k, v in r["versions"].items()
        )
    print("ratio: to the best bare_* float32 row, median over rounds")
    for line in report.lines({**facts, **versions}):
        print(line)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
