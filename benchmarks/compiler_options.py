# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What the options in `podium.trainer.compiler_options` are worth, one at a time.

python benchmarks/compiler_options.py [--only=v5p] > benchmarks/results/compiler_options.md

Published models cut to a few layers, compiled for their slices by the real TPU compiler
and read by the planner's reader. One to eight minutes of CPU a row; needs the extra
`tpu`. The step still holds the whole output head, so ratios are those of no real run.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from benchmarks.published_runs import RUNS, Run
from podium.aot import compile as aot
from podium.aot.chips import parse_slice
from podium.aot.hlo import read
from podium.aot.network import Network
from podium.aot.roofline import Roofline, roofline
from podium.config import MeshConfig

VMEM = "xla_tpu_scoped_vmem_limit_kib"


def run(
    name: str, topology: str, layers: int, remat: str = "full", **changes: MeshConfig
) -> Run:
    """A published run with fewer layers."""
    found = next(r for r in RUNS if (r.name, r.topology) == (name, topology))
    model = dataclasses.replace(found.model, num_layers=layers, remat=remat)
    return dataclasses.replace(found, model=model, **changes)


V5P = run("32B", "v5p-128", 4, "dots", mesh=MeshConfig(fsdp=64))
V5E = run("32B", "v5e-256", 2)
V6E = run("Llama 3.1 8B", "v6e-256", 2)
# What is left out of the table in compiler_options.py, or set otherwise.
TRIALS: tuple[tuple[Run, str, dict[str, str | None]], ...] = (
    (run("22B", "v4-128", 4), "as it is", {}),
    (run("22B", "v4-128", 4), "24 MiB for a fusion", {VMEM: "24576"}),
    (V5E, "16 MiB for a fusion", {VMEM: None}),
    (V5E, "as it is: 32 MiB", {}),
    (V5P, "16 MiB, no SparseCores", {VMEM: None, "sparse_core": None}),
    (V5P, "16 MiB for a fusion", {VMEM: None}),
    (V5P, "as it is: 32 MiB", {}),
    (V5P, "48 MiB for a fusion", {VMEM: "49152"}),
    (V6E, "16 MiB, no SparseCores", {VMEM: None, "sparse_core": None}),
    (V6E, "16 MiB for a fusion", {VMEM: None}),
    (V6E, "64 MiB for a fusion", {VMEM: "65536"}),
    (V6E, "as it is: 96 MiB", {}),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="slices whose name has this")
    args = parser.parse_args()
    aot.without_tpus()
    print("# python benchmarks/compiler_options.py\n")
    print(
        "| model | slice | layers | options | step s | fusions | synchronous | waited for "
        "| matmuls at | collectives at |\n|---|---|--:|---|--:|--:|--:|--:|--:|---|"
    )
    for trial, words, changes in TRIALS:
        if args.only in trial.topology:
            print(row(trial, words, changes), flush=True)
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


def row(trial: Run, words: str, changes: dict[str, str | None]) -> str:
    where = parse_slice(trial.topology)
    found = compiled(trial, changes)
    times = found.times
    peak = times.matmul_flops / where.chip.device_peak_flops / times.matmul_secs
    slow = [r for r in found.collectives if not r.is_async and r.num_bytes > 1e6]
    kinds = ", ".join(sorted({r.kind for r in slow})) or "all asynchronous"
    return (
        f"| {trial.name} | {trial.topology} | {trial.model.num_layers} | {words} "
        f"| {times.step_secs:.3f} | {times.fusion_secs:.3f} | {times.sync_secs:.3f} "
        f"| {times.exposed_secs:.3f} | {peak:.1%} of peak | {kinds} |"
    )


def compiled(trial: Run, changes: dict[str, str | None]) -> Roofline:
    from podium.trainer.compiler_options import compiler_options
    from podium.trainer.setup import setup

    where = parse_slice(trial.topology)
    devices = aot.devices(where)
    parts = setup(trial.config(), devices=devices)
    options = dict(compiler_options(parts.mesh))
    for key, value in changes.items():
        if value is None:
            options = {k: v for k, v in options.items() if key not in k}
        else:
            options[key] = value
    text = aot.compile_step(parts, where, options).hlo
    network = Network.of(where, list(parts.mesh.devices.flat))
    return roofline(read(text), network)


if __name__ == "__main__":
    main()
