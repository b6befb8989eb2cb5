# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What the output head's collectives cost a step, and what fewer of them could win.

python benchmarks/head_collectives.py > benchmarks/results/head_collectives.md

The loss is a scan over chunks of the sequence, so the head's kernel is gathered once a
chunk and its gradient summed once a chunk (`podium.trainer.loss`). Compiles our rows of
maxtext_rows.py by the real TPU compiler, two to four minutes of CPU each, and lists the
collectives of the loss. Needs the extra `tpu`. --reread compiles nothing.
"""

import argparse
import dataclasses
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from benchmarks.maxtext_rows import ROOT, ROWS, Row
from podium.aot.chips import parse_slice
from podium.aot.collectives import phase_of
from podium.aot.hlo import Compute, Program, read
from podium.aot.network import Network
from podium.aot.roofline import Roofline, roofline

IN_LOSS = re.compile(r"\bloss\b")  # the scope that the trainer puts round it
SMALL = 1e6  # bytes; below are the loss' own sums over rows


def main() -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podium"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="7b,102b", help="of maxtext_rows.py")
    parser.add_argument("--out", type=Path, default=cache / "head", metavar="DIR")
    parser.add_argument("--reread", action="store_true", help="programs in --out")
    args = parser.parse_args()
    names = args.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"unknown row {unknown[0]}; known are {', '.join(ROWS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    print("# python benchmarks/head_collectives.py\n")
    print(
        "MB are 1e6 bytes of one execution; seconds are of one step: on the links, and\n"
        "what of it the core waits for in the replayed schedule.\n"
    )
    for name in names:
        row, out = ROWS[name], args.out / name
        if not args.reread:
            compile_row(name, row.remats[0], out)
        show(name, row, out)
    print("```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


def compile_row(name: str, variant: str, out: Path) -> None:
    print(f"compiling {name}", file=sys.stderr, flush=True)
    script = ROOT / "benchmarks" / "peers" / "podium_aot.py"
    subprocess.run(
        [sys.executable, str(script), str(out), name, variant],
        check=True,
        stdout=sys.stderr,
        cwd=ROOT,
    )


def show(name: str, row: Row, out: Path) -> None:
    facts = json.loads(out.with_name(out.name + ".json").read_text())
    where = parse_slice(row.topology)
    places = tuple((s, tuple(c)[: where.chip.torus_dims]) for s, c in facts["places"])
    with gzip.open(out.with_name(out.name + ".hlo.gz"), "rt") as file:
        program = read(file.read())
    found = roofline(program, Network(where, places))
    packages = facts["packages"]
    print(f"## {name}: {row.topology}, jax {packages['jax']}, {packages['libtpu']}\n")
    print("| collective | of | MB | a step | how | links s | waited for s |")
    print("|---|---|--:|--:|---|--:|--:|")
    total, waited = 0.0, 0.0
    for c in found.collectives:
        if not IN_LOSS.search(c.op_name) or c.num_bytes < SMALL:
            continue
        how = "asynchronous" if c.is_async else "synchronous"
        print(
            f"| {c.kind} over {c.group_size} | {phase_of(c.op_name)} "
            f"| {c.num_bytes / 1e6:.1f} | {c.count} | {how} "
            f"| {c.secs:.4f} | {c.exposed_secs:.4f} |"
        )
        total, waited = total + c.secs, waited + c.exposed_secs
    secs, share = matmuls(program, where.chip.clock_hz, where.chip.device_peak_flops)
    times = found.times
    print(
        f"\nThe step: {times.step_secs:.4f} s, {facts['peak_bytes'] / 1e9:.2f} GB, "
        f"bound {bound(found, row):.2%}, replayed {bound(found, row, 0.0):.2%}.\n"
        f"These collectives: {total:.4f} s on the links, {waited:.4f} s waited for. "
        f"The loss' matmuls: {secs:.4f} s\nat {share:.1%} of peak.\n"
        f"With nothing waited for at the head, not even once: replayed "
        f"{bound(found, row, waited):.2%}.\n"
    )


def bound(found: Roofline, row: Row, saved: float | None = None) -> float:
    """The share of peak; replayed and shorter by `saved` seconds, if that is given."""
    chip = parse_slice(row.topology).chip
    if saved is None:
        return found.mfu(row.useful_flops, chip, async_is_hidden=True)
    shorter = dataclasses.replace(
        found.times, exposed_secs=found.times.exposed_secs - saved
    )
    return dataclasses.replace(found, times=shorter).mfu(row.useful_flops, chip)


def matmuls(program: Program, clock_hz: float, peak: float) -> tuple[float, float]:
    """Seconds of the fusions with a matmul in the loss, and their share of peak."""
    secs = flops = 0.0
    for times, event in program.flat():
        if isinstance(event, Compute) and event.flops and IN_LOSS.search(event.op_name):
            secs += times * event.cycles / clock_hz
            flops += times * event.flops
    return secs, flops / secs / peak if secs else 0.0


if __name__ == "__main__":
    main()
