# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The trainer's loop against its own step called bare: what the loop costs.

python benchmarks/step_overhead.py

The loop reads prepared data through the input processes, writes metrics and events,
shows progress; the bare step runs on one batch that already lies on the device. Both
use the same compiled step, in turns. Two models: the one of peers/tiny_gpt.py (about a
second a step on two cores) and one of about 50 ms. Wall times on a shared machine swing
by more than the loop costs, so the CPU time of the thread that drives the devices is
shown too: what it spends on a step in the loop beyond a bare step is the loop's own work.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import jax
import report
import tiny_gpt

from podium.config import CheckpointConfig, TrainConfig
from podium.input.device import Feed, prefetch
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
            attention=dataclasses.replace(model.attention, num_heads=2, num_kv_heads=2),
            mlp=dataclasses.replace(model.mlp, dim=512),
        ),
    )
    return {"1 s": large, "50 ms": small}


class Probe:
    """A step that notes, at each call, the clock and the CPU time of its thread."""

    def __init__(self, step):
        self._step = step
        self.clock: list[float] = []
        self.thread: list[float] = []

    def __call__(self, state, batch):
        self.clock.append(time.monotonic())
        self.thread.append(time.thread_time())
        return self._step(state, batch)

    def per_step(self) -> tuple[list[float], list[float]]:
        """Seconds, and CPU seconds of the thread, from call to call."""
        return differences(self.clock), differences(self.thread)


def differences(stamps: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise(stamps[SKIPPED:])]


@dataclasses.dataclass(frozen=True)
class Compiled(Setup):
    """A Setup whose step is compiled already, once for all runs."""

    compiled: Any

    def compile_step(self):
        return self.compiled


def run_loop(parts: Compiled, server: InputServer) -> Probe:
    """A run of `podium.train`, in a folder of its own."""
    probe = Probe(parts.compiled)
    parts = dataclasses.replace(parts, compiled=probe)
    with tempfile.TemporaryDirectory() as workdir:
        Trainer(parts, workdir, server, fingerprints=[], first_step=None).run()
    return probe


def run_bare(parts: Compiled, server: InputServer, steps: int) -> Probe:
    """As many calls of the step, each waiting for the one before, as the loop does."""
    cfg = parts.cfg
    shape = (cfg.global_batch_seqs, cfg.data.seq_len)
    feed = Feed.of(batch_sharding(parts.rules), shape)
    stream = server.open(
        StreamSpec(
            data=cfg.data,
            split="train",
            seed=0,
            global_batch_seqs=cfg.global_batch_seqs,
            rows=feed.rows,
            first_step=0,
            num_steps=1,
        )
    )
    batches = prefetch(stream, feed)
    _, batch, _ = next(iter(batches))
    batches.close()
    state = init_state(cfg.model, 0, parts.optimizer, parts.layout)
    probe, previous = Probe(parts.compiled), None
    for _ in range(steps):
        state, values = probe(state, batch)
        if previous is not None:
            jax.block_until_ready(previous)
        previous = values
    jax.block_until_ready(state)
    return probe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    steps = {"1 s": 10, "50 ms": 100}
    rows = []
    with tempfile.TemporaryDirectory() as folder, InputServer.start() as server:
        # TensorFlow is imported by now in a long run; its import is not the loop's cost.
        while not server.worker("tf.data").is_ready():
            time.sleep(1.0)
        data = f"{folder}/data"
        source = str(Path(__file__).parent.parent / "src")
        prepare(PrepareSpec(inputs=(source,), tokenizer="bytes", output=data))
        for name, cfg in configs(data, steps).items():
            plain = setup(cfg)
            fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
            parts = Compiled(**fields, compiled=plain.compile_step())
            run_loop(parts, server)  # starts everything that starts once
            rounds = []
            for _ in range(args.rounds):
                bare = run_bare(parts, server, steps[name])
                rounds.append((bare.per_step(), run_loop(parts, server).per_step()))
            rows.append(summary(name, rounds))
    facts = report.provenance()
    if args.json:
        print(json.dumps({**facts, "rows": rows}))
    else:
        show(rows, facts)


def summary(name: str, rounds: list) -> dict:
    """Milliseconds a step; overhead as the median over rounds of the ratio."""
    median = statistics.median

    def ms(run: int, what: int) -> float:
        return 1e3 * median(s for r in rounds for s in r[run][what])

    bare_ms, thread_ms = ms(0, 0), ms(1, 1) - ms(0, 1)
    ratios = sorted(median(loop[0]) / median(bare[0]) - 1 for bare, loop in rounds)
    return {
        "step": name,
        "bare_ms": bare_ms,
        "loop_ms": ms(1, 0),
        "overhead": median(ratios),
        "rounds": ratios,
        "thread_ms": thread_ms,
        "thread_share": thread_ms / bare_ms,
    }


def show(rows: list[dict], facts: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = "step", "bare ms", "in the loop ms", "overhead", "rounds (quartiles)"
    table = Table(*columns, "loop's own CPU ms", "of the step", box=None)
    for r in rows:
        low, _, high = statistics.quantiles(r["rounds"])
        table.add_row(
            r["step"],
            f"{r['bare_ms']:.1f}",
            f"{r['loop_ms']:.1f}",
            f"{r['overhead']:+.1%}",
            f"{low:+.1%} to {high:+.1%}",
            f"{r['thread_ms']:.2f}",
            f"{r['thread_share']:.1%}",
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for line in report.lines(facts):
        print(line)


if __name__ == "__main__":
    main()
