# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The plan of every config that names a slice, by the real TPU compiler.

python benchmarks/shipped_plans.py [--only=WORD] > benchmarks/results/shipped_plans.md

`configs/dense_100b_v5e_256x4.py` is planned for v5e-256x4, and so on. Needs the extra
`tpu`; one to ten minutes of CPU a config. Configs that are not asked for keep what an
earlier run found, in results/shipped_plans.json, which a test compares with the line
`Planned:` in each config's head.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from podium import cli
from podium.aot import compile as aot
from podium.aot.chips import parse_slice

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "benchmarks" / "results" / "shipped_plans.json"
_SLICE = re.compile(r"_(v\d\w?)_(\d+(?:x\d+)?)$")


def shipped() -> dict[str, str]:
    """Config file's name -> its slice."""
    found = {}
    for path in sorted((ROOT / "configs").glob("*.py")):
        if match := _SLICE.search(path.stem):
            found[path.stem] = f"{match[1]}-{match[2]}"
    return found


def headline(plan: dict[str, Any]) -> str:
    """What the config's head says of it."""
    used = plan["hbm_bytes_per_chip"] / 2**30
    room = plan["hbm_capacity_bytes"] / 2**30
    return (
        f"Planned: {used:.1f} of {room:.2f} GiB a chip, a step of at least "
        f"{plan['step_secs']:.2f} s,\n"
        f"{plan['tokens_per_sec_per_chip']:,.0f} tokens/s a chip, "
        f"{plan['mfu_bound']:.1%} MFU."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="configs whose name has this")
    args = parser.parse_args()
    aot.without_tpus()
    for name, where in shipped().items():
        if args.only in name:
            keep(name, planned(name, where))
    show(json.loads(KEPT.read_text()))


def planned(name: str, where: str) -> dict[str, Any]:
    from profiling.plan import make_plan

    cfg = cli.load_config(str(ROOT / "configs" / f"{name}.py"))
    plan = make_plan(cfg, parse_slice(where))
    about = report.provenance()
    kept = (
        *("topology", "chips", "params", "active_params", "tokens_per_step", "fits"),
        *("mesh", "hbm_bytes_per_chip", "hbm_capacity_bytes", "host_bytes_per_chip"),
        *("step_secs", "secs", "tokens_per_sec_per_chip", "mfu_bound"),
        *("mfu_bound_6nd", "usd_per_billion_tokens"),
    )
    return {
        **{key: plan.get(key) for key in kept},
        "remat": cfg.model.remat,
        "grad_accum_steps": cfg.grad_accum_steps,
        **{key: about[key] for key in ("date", "commit", "machine")},
    }


def keep(name: str, plan: dict[str, Any]) -> None:
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    text = json.dumps({**kept, name: plan}, indent=1, sort_keys=True)
    KEPT.write_text(text + "\n")


def show(plans: dict[str, dict[str, Any]]) -> None:
    print("# python benchmarks/shipped_plans.py\n")
    print(
        "Bounds by the TPU compiler, nothing ran on a TPU. MFU by the operations that\n"
        "the model needs, causal attention included; prices are list prices.\n"
    )
    print(
        "| config | parameters (a token) | slice | mesh | remat | tokens a step | HBM GiB "
        "| step s | tokens/s a chip | MFU | USD / 1e9 tokens | commit |"
    )
    print("|---|--:|---|---|---|--:|--:|--:|--:|--:|--:|---|")
    for name in shipped():
        if name in plans:
            print(line(name, plans[name]))


def line(name: str, plan: dict[str, Any]) -> str:
    active = plan["active_params"]
    params = f"{plan['params'] / 1e9:.1f}B"
    params += f" ({active / 1e9:.1f}B)" if active != plan["params"] else ""
    mesh = " x ".join(f"{k} {v}" for k, v in plan["mesh"].items())
    if plan["grad_accum_steps"] > 1:
        mesh += f", {plan['grad_accum_steps']} micro-batches"
    room = plan["hbm_capacity_bytes"] / 2**30
    head = (
        f"| `{name}` | {params} | {plan['topology']} | {mesh} | {plan['remat']} "
        f"| {plan['tokens_per_step']:,} "
    )
    if not plan["fits"]:
        return f"{head}| does not fit {room:.2f} | | | | | {plan['commit']} |"
    return (
        f"{head}| {plan['hbm_bytes_per_chip'] / 2**30:.1f} of {room:.2f} "
        f"| {plan['step_secs']:.2f} | {plan['tokens_per_sec_per_chip']:,.0f} "
        f"| {plan['mfu_bound']:.1%} | {plan['usd_per_billion_tokens']:,.0f} "
        f"| {plan['commit']} |"
    )


if __name__ == "__main__":
    main()
