# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What `model.quantization` does to a loss, on a CPU.

python benchmarks/quantization_loss.py >> benchmarks/results/quantization.md

A small transformer learns the Python standard library's sources, configs/quickstart.py
with two layers of width 128 in bfloat16, 300 steps of 1,024 tokens: with every kind of
quantization from the same weights over the same batches, once a seed. A minute a run on
two cores. Eight-bit numbers are slow on CPUs: nothing here speaks of time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from benchmarks.quantization import FP8, INT8, words
from podium.config_quantization import Quantization

KINDS: tuple[Quantization | None, ...] = (None, *INT8, *FP8)
SETTINGS = {
    "sample": None,
    "checkpoint.every_steps": 1_000_000,
    "global_batch_seqs": 4,
    "eval.every_steps": 25,
    "eval.ngram_baselines": False,
    "model.num_layers": 2,
    "model.embed_dim": 128,
    "model.mlp.dim": 384,
    "model.dtype": "bfloat16",
}
Curve = dict[int, float]  # step -> held-out loss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--runs", help="keeps the runs here; what is done is not repeated"
    )
    args = parser.parse_args()
    curves: dict[Quantization | None, list[Curve]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.runs or temporary)
        data = prepare(folder / "gold")
        for seed in range(args.seeds):
            for kind in KINDS:
                run = folder / f"{words(kind)}, seed {seed}"
                curves[kind].append(train(run, data, kind, seed, args.steps))
                print(f"{run.name}: {last(curves[kind][-1]):.4f}", file=sys.stderr)
    print("\n# python benchmarks/quantization_loss.py\n")
    print(
        f"Held-out loss in nats a token, {args.steps} steps, seeds: {args.seeds}; a "
        "difference is to bfloat16 of the same seed.\n"
    )
    print(
        "| multiplied | at the end, mean | lowest to highest seed | difference at the "
        "end, mean | largest | largest on the curve, 50 steps on |\n"
        "|---|--:|--:|--:|--:|--:|"
    )
    for kind in KINDS:
        print(row(kind, curves[kind], curves[None]))
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


def prepare(folder: Path) -> Path:
    """The quickstart's data."""
    text = sysconfig.get_paths()["stdlib"]
    flags = (f"--input={text}", "--tokenizer=bpe:1024", "--eval_fraction=0.005")
    python("podium.prepare", *flags, f"--output={folder}")
    return folder


def train(
    run: Path, data: Path, kind: Quantization | None, seed: int, steps: int
) -> Curve:
    """Trains in a process of its own."""
    settings = SETTINGS | {"data.paths": data, "num_steps": steps, "seed": seed}
    if kind is not None:
        settings["model.quantization.kind"] = kind.kind
        settings["model.quantization.backward"] = kind.backward
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    python("podium.train", "--config=configs/quickstart.py", f"--workdir={run}", *flags)
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {r["step"]: r["eval_loss"] for r in rows if "eval_loss" in r}


def python(module: str, *flags: str) -> None:
    subprocess.run(
        [sys.executable, "-m", module, *flags],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


def last(curve: Curve) -> float:
    return curve[max(curve)]


def row(kind: Quantization | None, ours: list[Curve], plain: list[Curve]) -> str:
    ends = [last(c) for c in ours]
    head = f"| {words(kind)} | {statistics.mean(ends):.4f} "
    head += f"| {min(ends):.4f} to {max(ends):.4f} "
    if kind is None:
        return f"{head}| – | – | – |"
    at_end = [last(a) - last(b) for a, b in zip(ours, plain, strict=True)]
    on_curve = [
        a[step] - b[step]
        for a, b in zip(ours, plain, strict=True)
        for step in a
        if step >= 50
    ]
    return (
        f"{head}| {statistics.mean(at_end):+.4f} | {max(at_end, key=abs):+.4f} "
        f"| {max(on_curve, key=abs):+.4f} |"
    )


if __name__ == "__main__":
    main()
