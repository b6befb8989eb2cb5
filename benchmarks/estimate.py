# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The search's closed forms beside compiled steps: memory and time.

python benchmarks/estimate.py [--only=WORD] > benchmarks/results/estimate.md

The steps are those of published_runs.py, pipelines, rings, experts apart, and the shipped
configs, whose compiled figures are read from shipped_plans.json. Needs the extra `tpu`;
the others compile for minutes each. Steps that are not asked for keep what an earlier run
compiled, in results/estimate.json; the closed forms are always made anew.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from benchmarks.published_runs import OFFLOADED, RUNS
from podium import cli
from podium.aot import compile as aot
from podium.aot.chips import parse_slice
from podium.config import MeshConfig, TrainConfig
from profiling.search import own

RESULTS = Path(__file__).parent / "results"
SHIPPED, KEPT = RESULTS / "shipped_plans.json", RESULTS / "estimate.json"
PIPELINES = (
    ("Llama 3 70B, 4 stages", {"stage": 4, "fsdp": 32}, 1),
    ("Llama 3 70B, 4 stages, 2 repeats", {"stage": 4, "fsdp": 32}, 2),
)
RINGS = (
    ("Llama 3.1 8B, ring of 4", {"fsdp": 64, "context": 4}, OFFLOADED, 1),
    ("Llama 3.1 8B, ring of 8", {"fsdp": 32, "context": 8}, "dots", 4),
    ("Llama 3.1 8B, ring of 16", {"fsdp": 16, "context": 16}, "none", 4),
)

APART = (
    ("Mixtral 8x7B, an expert a device", MeshConfig(fsdp=8, expert=8)),
    ("Mixtral 8x7B, two experts a device", MeshConfig(fsdp=16, expert=4)),
)


def pipeline(sizes: dict[str, int], repeats: int) -> TrainConfig:
    """Llama 3 70B, its layers in stages."""
    cfg = cli.load_config("configs/llama3_70b_v5p_256.py")
    runs = dataclasses.replace(cfg.model.pipeline, repeats=repeats)
    model = dataclasses.replace(cfg.model, pipeline=runs)
    return dataclasses.replace(cfg, mesh=MeshConfig(**sizes), model=model)


def ring(sizes: dict[str, int], remat: str, parts: int) -> TrainConfig:
    """Llama 3.1 8B, its rows over several chips."""
    cfg = cli.load_config("configs/llama3_8b_v5e_256.py")
    model = dataclasses.replace(cfg.model, remat=remat)
    mesh = MeshConfig(**sizes)
    return dataclasses.replace(cfg, mesh=mesh, model=model, grad_accum_steps=parts)


def steps() -> dict[str, tuple[str, TrainConfig]]:
    """Those that are compiled here: name -> slice, config."""
    found = {
        f"{run.name}, {run.topology}": (run.topology, run.config()) for run in RUNS
    }
    for name, sizes, repeats in PIPELINES:
        found[name] = ("v5p-256", pipeline(sizes, repeats))
    for name, sizes, remat, parts in RINGS:
        found[name] = ("v5e-256", ring(sizes, remat, parts))
    mixtral = cli.load_config("configs/mixtral_8x7b_v5p_128.py")
    for name, mesh in APART:
        found[name] = ("v5p-128", dataclasses.replace(mixtral, mesh=mesh))
    return found


def compiled(topology: str, cfg: TrainConfig) -> dict[str, Any]:
    """What is kept of a plan."""
    from profiling.plan import make_plan

    aot.without_tpus()
    plan = make_plan(cfg, parse_slice(topology))
    kept = ("topology", "mesh", "fits", "hbm_bytes_per_chip", "step_secs")
    about = report.provenance()
    return {
        **{k: plan.get(k) for k in kept},
        **{k: about[k] for k in ("date", "commit")},
    }


def line(name: str, cfg: TrainConfig, plan: dict[str, Any]) -> str:
    """A row of the table."""
    guess = own(cfg, parse_slice(plan["topology"]))
    mesh = " x ".join(f"{k} {v}" for k, v in plan["mesh"].items())
    hbm = guess.hbm_bytes_per_chip, plan["hbm_bytes_per_chip"]
    row = f"| {name} | {plan['topology']} | {mesh}, {cfg.model.remat} "
    row += f"| {hbm[0] / 2**30:.1f} | {hbm[1] / 2**30:.1f} | {hbm[0] / hbm[1]:.2f} "
    secs = guess.step_secs, plan["step_secs"]
    row += f"| {secs[0]:.2f} | {secs[1]:.2f} | {secs[0] / secs[1]:.2f} "
    return f"{row}| {plan['commit']} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="compile steps whose name has this")
    args = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    mine = steps()
    for name, (topology, cfg) in mine.items():
        if args.only.lower() in name.lower():
            kept[name] = compiled(topology, cfg)
            KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print("# python benchmarks/estimate.py\n")
    print(
        "The closed forms of `profiling.plan --search` beside compiled steps; the last"
    )
    print("column is the commit that compiled one.\n")
    print(
        "| step | slice | mesh, remat | HBM GiB estimated | compiled | ratio "
        "| step s estimated | compiled | ratio | commit |"
    )
    print("|---|---|---|--:|--:|--:|--:|--:|--:|---|")
    for name, (_, cfg) in mine.items():
        if name in kept and kept[name]["fits"]:
            print(line(name, cfg, kept[name]))
    for name, plan in json.loads(SHIPPED.read_text()).items():
        print(line(f"`{name}`", cli.load_config(f"configs/{name}.py"), plan))
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


if __name__ == "__main__":
    main()
