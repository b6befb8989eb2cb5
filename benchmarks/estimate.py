# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The search's closed forms beside compiled steps: memory and time.

python benchmarks/estimate.py [--only=WORD] > benchmarks/results/estimate.md

The steps are those of published_runs.py and the 102B config; needs the extra `tpu`.
Compiles take minutes each; their results are kept.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from benchmarks.published_runs import RUNS
from podium import cli
from podium.aot import compile as aot
from podium.aot.chips import parse_slice
from profiling.plan import make_plan
from profiling.search import own

CONFIGS = (("configs/dense_100b_v4_256.py", "v4-256"),)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose name or slice has this")
    args = parser.parse_args()
    aot.without_tpus()
    steps = [(run.name, run.topology, run.config()) for run in RUNS]
    steps += [(Path(f).stem, t, cli.load_config(f)) for f, t in CONFIGS]
    print("# python benchmarks/estimate.py\n")
    print("The closed forms of `profiling.plan --search` beside compiled steps.\n")
    print(
        "| step | slice | mesh, remat | HBM GiB estimated | compiled | ratio "
        "| step s estimated | compiled | ratio |"
    )
    print("|---|---|---|--:|--:|--:|--:|--:|--:|")
    for name, topology, cfg in steps:
        if args.only.lower() not in f"{name} {topology}".lower():
            continue
        where = parse_slice(topology)
        guess, plan = own(cfg, where), make_plan(cfg, where)
        mesh = " x ".join(f"{k} {v}" for k, v in plan["mesh"].items())
        hbm = guess.hbm_bytes_per_chip, plan["hbm_bytes_per_chip"]
        row = f"| {name} | {topology} | {mesh}, {cfg.model.remat} "
        row += f"| {hbm[0] / 2**30:.1f} | {hbm[1] / 2**30:.1f} "
        row += f"| {hbm[0] / hbm[1]:.2f} " if hbm[1] else "| – "
        if plan["fits"]:
            secs = guess.step_secs, plan["step_secs"]
            row += f"| {secs[0]:.2f} | {secs[1]:.2f} | {secs[0] / secs[1]:.2f} |"
        else:
            row += f"| {guess.step_secs:.2f} | does not fit | – |"
        print(row, flush=True)
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


if __name__ == "__main__":
    main()
