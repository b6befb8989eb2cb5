# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What looking for hardware that computes wrongly costs: time and memory.

python benchmarks/verify.py > benchmarks/results/verify.md

time     the model of peers/tiny_gpt.py with a check every 5 steps: what a check takes, in
         steps, so that one every N steps takes that over N of the run
memory   of a 12-layer model of width 1024 over 4 devices, by the compiler: the step as it
         runs, and the two computations that are compared, on one device
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import report
from checkpoint import command, jsonl

EVERY, NUM_STEPS = 5, 40


def check_in_steps(folder: Path, number: int) -> tuple[float, float]:
    """(median step, seconds; a check, in steps)."""
    workdir = folder / f"run{number}"
    settings = {
        "num_steps": NUM_STEPS,
        "checkpoint.every_steps": 1_000_000,
        "faults.verify_every_steps": EVERY,
    }
    args = command(folder, workdir, **settings)
    subprocess.run(args, check=True, capture_output=True)
    step = statistics.median(
        r["step_secs"] for r in jsonl(workdir / "metrics.jsonl")[3:]
    )
    checks = [e for e in jsonl(workdir / "events.jsonl") if e["event"] == "verify"]
    # The first one compiles.
    return step, statistics.median(e["secs"] for e in checks[1:]) / step


def memory() -> None:
    import jax

    jax.config.update("jax_num_cpu_devices", 4)
    from podium import config, config_model
    from podium.trainer.events import Events
    from podium.trainer.setup import setup
    from podium.trainer.verify import Verifier

    model = config_model.ModelConfig(
        vocab_size=32_000,
        num_layers=12,
        embed_dim=1024,
        attention=config_model.AttentionConfig(
            num_heads=16, num_kv_heads=16, head_dim=64
        ),
        mlp=config_model.MlpConfig(dim=4096),
        remat="full",
    )
    cfg = config.TrainConfig(
        model=model,
        mesh=config.MeshConfig(fsdp=4),
        num_steps=1000,
        global_batch_seqs=4,
        data=config.DataConfig(seq_len=256),
        faults=config.FaultsConfig(verify_every_steps=2),
    )
    parts = setup(cfg)
    with tempfile.TemporaryDirectory() as name, Events(name) as events:
        verifier = Verifier(parts, Path(name), events, 0)
        programs = {"step": parts.compile_step(), "compared": verifier._compile()}
    sizes = {}
    for what, program in programs.items():
        found = program.memory_analysis()
        sizes[what] = {
            "state": found.argument_size_in_bytes,
            "more": found.temp_size_in_bytes
            + found.output_size_in_bytes
            - found.alias_size_in_bytes,
        }
    print(json.dumps(sizes))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        memory()
        return
    with tempfile.TemporaryDirectory() as name:
        found = [check_in_steps(Path(name), i) for i in range(args.repeats)]
    child = [sys.executable, __file__, "--child"]
    out = subprocess.run(child, check=True, capture_output=True, text=True).stdout
    sizes = json.loads(out.splitlines()[-1])
    costs = [cost for _, cost in found]
    cost = statistics.median(costs)
    print("# python benchmarks/verify.py\n")
    print(
        "| a step, s | a check, in steps | every 1,000 steps | every 100 | every 10 |"
    )
    print("|--:|--:|--:|--:|--:|")
    shares = " | ".join(f"{cost / n:.2%}" for n in (1000, 100, 10))
    step = statistics.median(step for step, _ in found)
    spread = f"{min(costs):.2f} to {max(costs):.2f}"
    print(f"| {step:.2f} | {cost:.2f} ({spread}) | {shares} |")
    print("\n| MiB on a device | state and batch | beside them |")
    print("|---|--:|--:|")
    for what, name in (("step", "the step"), ("compared", "what is compared")):
        mib = [f"{sizes[what][k] / 2**20:,.0f}" for k in ("state", "more")]
        print(f"| {name} | {' | '.join(mib)} |")
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


if __name__ == "__main__":
    main()
