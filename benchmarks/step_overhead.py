# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The trainer's loop against its own step called bare: what the loop costs.

python benchmarks/step_overhead.py

The loop reads prepared data through the input processes, writes metrics and events,
shows progress; the bare step runs on one batch that already lies on the device. Both
use the same compiled step, in turns. Two models: the one of peers/tiny_gpt.py (about a
second a step on two cores) and one of about 50 ms.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import jax
import report
import tiny_gpt

from podium.config import CheckpointConfig, TrainConfig
from podium.input.device import prefetch, process_rows
from podium.input.server import InputServer
from podium.input.spec import StreamSpec
from podium.prepare import PrepareSpec, prepare
from podium.trainer.loop import Trainer
from podium.trainer.setup import Setup, setup
from podium.trainer.state import init_state
from podium.trainer.step import batch_sharding

SKIPPED = 2  # steps at the start of a loop, whose clock includes starting up


def configs(data: str, steps: dict[str, int]) -> dict[str, TrainConfig]:
    base = tiny_gpt.train_config()
    model = dataclasses.replace(base.model, vocab_size=257)
    large = dataclasses.replace(
        base,
        model=model,
        num_steps=steps["1 s"],
        checkpoint=CheckpointConfig(every_steps=1_000_000),
        data=dataclasses.replace(base.data, paths=(data,)),
    )
    small = dataclasses.replace(
        large,
        global_batch_seqs=4,
        num_steps=steps["50 ms"],
        model=dataclasses.replace(
            model,
            num_layers=4,
            embed_dim=128,
            attention=dataclasses.replace(
                model.attention, num_heads=2, num_kv_heads=2
            ),
            mlp=dataclasses.replace(model.mlp, dim=512),
        ),
    )
    return {"1 s": large, "50 ms": small}


def loop_secs(parts: Setup, server: InputServer) -> list[float]:
    """Seconds of each step of a run of `podium.train`, as it reports them."""
    with tempfile.TemporaryDirectory() as workdir:
        trainer = Trainer(parts, workdir, server, fingerprints=[], first_step=None)
        trainer.run()
        lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step_secs"] for line in lines][SKIPPED:]


def bare_secs(parts: Setup, server: InputServer, steps: int) -> list[float]:
    """Seconds of each call of the step, which waits for the one before only."""
    cfg = parts.cfg
    sharding = batch_sharding(parts.rules)
    rows = process_rows(sharding, cfg.global_batch_seqs, cfg.data.seq_len)
    stream = server.open(
        StreamSpec(
            data=cfg.data,
            split="train",
            seed=0,
            global_batch_seqs=cfg.global_batch_seqs,
            rows=rows,
            first_step=0,
            num_steps=1,
        )
    )
    batches = prefetch(stream, sharding)
    _, batch, _ = next(iter(batches))
    batches.close()
    state = init_state(cfg.model, 0, parts.optimizer, parts.layout)
    secs, previous, start = [], None, time.monotonic()
    for _ in range(steps):
        state, values = parts.train_step(state, batch)
        if previous is not None:
            jax.block_until_ready(previous)
            now = time.monotonic()
            secs.append(now - start)
            start = now
        previous = values
    jax.block_until_ready(state)
    return secs[SKIPPED:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    steps = {"1 s": 12, "50 ms": 120}
    rows = []
    with tempfile.TemporaryDirectory() as folder, InputServer.start() as server:
        data = f"{folder}/data"
        source = str(Path(__file__).parent.parent / "src")
        prepare(PrepareSpec(inputs=(source,), tokenizer="bytes", output=data))
        for name, cfg in configs(data, steps).items():
            parts = setup(cfg)
            bare_secs(parts, server, 3)  # compiles
            loop_secs(parts, server)  # starts everything that starts once
            pairs = []
            for _ in range(args.rounds):
                before = bare_secs(parts, server, steps[name] // 2)
                loop = loop_secs(parts, server)
                after = bare_secs(parts, server, steps[name] // 2)
                pairs.append((loop, before + after))
            rows.append(summary(name, pairs))
    facts = report.provenance()
    if args.json:
        print(json.dumps({**facts, "rows": rows}))
    else:
        show(rows, facts)


def summary(name: str, pairs: list[tuple[list[float], list[float]]]) -> dict:
    """Medians over all steps; overhead as the median over rounds of their ratio."""
    median = statistics.median
    return {
        "step": name,
        "bare_ms": 1e3 * median(s for _, bare in pairs for s in bare),
        "loop_ms": 1e3 * median(s for loop, _ in pairs for s in loop),
        "overhead": median(median(loop) / median(bare) for loop, bare in pairs) - 1,
        "rounds": [median(loop) / median(bare) - 1 for loop, bare in pairs],
    }


def show(rows: list[dict], facts: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "bare ms", "in the loop ms", "overhead", "rounds", box=None)
    for r in rows:
        rounds = " ".join(f"{100 * x:+.1f}" for x in sorted(r["rounds"]))
        times = f"{r['bare_ms']:.1f}", f"{r['loop_ms']:.1f}"
        table.add_row(r["step"], *times, f"{100 * r['overhead']:+.1f} %", rounds)
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for line in report.lines(facts):
        print(line)


if __name__ == "__main__":
    main()
