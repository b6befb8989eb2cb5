# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters beside full fine-tuning: the same model, texts and steps, in turn.

python benchmarks/lora.py --model=smol --data=gold > benchmarks/results/lora.md

--model is an imported run folder, --data gold data of its tokenizer (docs/fine-tuning.md
makes both). Held-out loss, trained parameters, bytes of a checkpoint, the most memory
that the process held, and the median of the seconds of a step.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile

import report

from podium.config import TrainConfig
from podium.models import bind
from podium.resume import load_run
from podium.trainer.metrics import read_metrics

WAYS = {
    "all weights": ("--config.optim.peak_lr=5e-5",),
    "LoRA, rank 8": ("--config.optim.peak_lr=1e-3", "--config.lora.rank=8"),
    "DoRA, rank 8": ("--config.optim.peak_lr=1e-3", "--config.lora.kind=dora"),
    "LoRA, rank 8, int8 base": (
        "--config.optim.peak_lr=1e-3",
        "--config.lora.base_dtype=int8",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--seq_len", type=int, default=256)
    parser.add_argument("--eval_batches", type=int, default=None)
    parser.add_argument("--ways", default=",".join(map(str, range(len(WAYS)))))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        still = pathlib.Path(folder, "before")
        before = _train("all weights", args, still, 1, "--config.optim.peak_lr=0")
    print(f"Held-out loss before: {before:.3f}\n")
    print(
        "| trained | parameters | held-out loss | checkpoint | peak memory | s/step |\n"
        "|---|--:|--:|--:|--:|--:|"
    )
    for i in map(int, args.ways.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            print(_row(list(WAYS)[i], args, pathlib.Path(folder)), flush=True)
    print("\n" + "\n".join(report.lines(report.provenance())))


def _row(name: str, args: argparse.Namespace, folder: pathlib.Path) -> str:
    after = _train(name, args, folder / "after", args.steps)
    steps = [r for r in read_metrics(folder / "after") if r.get("step_secs")]
    secs = statistics.median(r["step_secs"] for r in steps[1:])
    memory = max(r["device_memory_bytes"] for r in steps if "device_memory_bytes" in r)
    saved = folder / "after" / "checkpoints" / str(args.steps)
    size = sum(p.stat().st_size for p in saved.rglob("*") if p.is_file())
    params = _trained(load_run(folder / "after"))
    return (
        f"| {name} | {params:,} | {after:.3f} | {size / 1e6:,.1f} MB | "
        f"{memory / 1e9:.1f} GB | {secs:.1f} |"
    )


def _train(
    name: str, args: argparse.Namespace, workdir: pathlib.Path, steps: int, *more: str
) -> float:
    config = pathlib.Path(args.model, "config.json")
    batches = args.eval_batches
    subprocess.run(
        [
            *(sys.executable, "-m", "podium.train", f"--config={config}"),
            f"--workdir={workdir}",
            f"--config.data.paths={args.data}",
            f"--config.data.seq_len={args.seq_len}",
            f"--config.global_batch_seqs={args.rows}",
            f"--config.num_steps={steps}",
            f"--config.eval.num_batches={batches}",
            "--config.optim.schedule.warmup_steps=0",
            "--config.log_every_steps=1",
            *WAYS[name],
            *more,
        ],
        check=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    losses = [r["eval_loss"] for r in read_metrics(workdir) if "eval_loss" in r]
    return losses[-1]


def _trained(cfg: TrainConfig) -> int:
    import jax

    from podium.models import adapters

    model = bind.abstract(cfg.model)
    if cfg.lora is not None:
        model = adapters.trained(model, cfg.lora)
    return sum(x.size for x in jax.tree.leaves(model.shapes))


if __name__ == "__main__":
    main()
