# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Podium's train step beside a torch.compile'd peer on one NVIDIA GPU, in bfloat16.

python benchmarks/gpu.py --torch=PYTHON          (PYTHON: one that has torch with CUDA)
python benchmarks/gpu.py --tiny --torch=PYTHON   (small shapes, to try it on a CPU)

Podium needs its `cuda` extra: uv run --extra cuda python benchmarks/gpu.py …
Runs unattended, prints one table. Per case Podium and the peer run in turns, each in a
process of its own that has the whole GPU; a figure is the median over windows of five
steps, one synchronisation a window. Both compute in bfloat16 over float32 weights, with
the same shapes, rows of one document each, AdamW (8B: Adafactor, as AdamW's moments
leave no room for activations), clipping to norm 1.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).parent
STEPS_PER_WINDOW = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes of one model, in the repository's letters, and how it is run."""

    kind: str  # gpt2: LayerNorm, GELU, learned positions, biases; llama: the rest
    L: int
    D: int
    N: int
    K: int
    H: int
    F: int
    V: int
    T: int
    B: int
    optimizer: str = "adamw"
    remat: str = "none"
    tied: bool = True
    goal: int = 0  # tokens/s on one H200


CASES = {
    "gpt2-124m": Case(
        "gpt2", 12, 768, 12, 12, 64, 3072, 50_257, 1024, 32, goal=460_000
    ),
    "llama-1b": Case("llama", 16, 2048, 32, 8, 64, 8192, 128_256, 2048, 8, goal=46_000),
    "llama-8b": Case(
        *("llama", 32, 4096, 32, 8, 128, 14_336, 128_256, 8192, 1),
        optimizer="adafactor",
        remat="full",
        tied=False,
        goal=6_700,
    ),
}


def tiny(case: Case) -> Case:
    """The same structure, small enough for a CPU."""
    group = case.N // case.K
    return dataclasses.replace(
        case, L=2, D=64, N=4, K=4 // group, H=16, F=128, V=512, T=128, B=2, goal=0
    )


def podium_config(case: Case):
    from podium import config, config_model

    is_gpt2 = case.kind == "gpt2"
    attention = config_model.AttentionConfig(
        num_heads=case.N,
        num_kv_heads=case.K,
        head_dim=case.H,
        use_qkv_bias=is_gpt2,
        use_out_bias=is_gpt2,
    )
    mlp_kind = "gelu" if is_gpt2 else "swiglu"
    model = config_model.ModelConfig(
        vocab_size=case.V,
        num_layers=case.L,
        embed_dim=case.D,
        position=config_model.LearnedPositionConfig(max_tokens=case.T)
        if is_gpt2
        else config_model.RopeConfig(theta=500_000.0),
        norm=config_model.LayerNormConfig()
        if is_gpt2
        else config_model.RMSNormConfig(),
        attention=attention,
        mlp=config_model.MlpConfig(kind=mlp_kind, dim=case.F, use_bias=is_gpt2),
        tie_embeddings=case.tied,
        dtype="bfloat16",
        remat=case.remat,  # type: ignore[arg-type]
    )
    rules = {"adamw": config.AdamWConfig(), "adafactor": config.AdafactorConfig()}
    return config.TrainConfig(
        global_batch_seqs=case.B,
        num_steps=1_000_000,
        model=model,
        data=config.DataConfig(seq_len=case.T),
        optim=config.OptimConfig(
            optimizer=rules[case.optimizer],
            schedule=config.ScheduleConfig(kind="constant", warmup_steps=0),
        ),
        loss=config.LossConfig(chunk_tokens=8192),
    )


def run_podium(case: Case, windows: int) -> dict[str, Any]:
    """The worker: builds the step as `podium.train` does and times it."""
    import jax
    import numpy as np

    from podium.input.batch import Batch
    from podium.models import flops
    from podium.trainer.metrics import peak_flops_per_sec
    from podium.trainer.setup import setup
    from podium.trainer.state import init_state
    from podium.trainer.step import batch_sharding

    cfg = podium_config(case)
    parts = setup(cfg, jax.devices()[:1])
    state = init_state(cfg.model, 0, parts.optimizer, parts.layout)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, case.V, (case.B, case.T + 1)).astype(np.int32)
    positions = np.tile(np.arange(case.T, dtype=np.int32), (case.B, 1))
    # No segment ids: rows of one document, as the peer's causal attention has them.
    batch: Any = Batch(rows[:, :-1], rows[:, 1:], None, positions)  # type: ignore
    batch = jax.device_put(batch, batch_sharding(parts.rules))

    def window() -> float:
        nonlocal state
        start = time.perf_counter()
        values = {}
        for _ in range(STEPS_PER_WINDOW):
            state, values = parts.train_step(state, batch)
        loss.append(float(values["loss"]))
        return (time.perf_counter() - start) / STEPS_PER_WINDOW

    loss: list[float] = []
    compile_secs = window() * STEPS_PER_WINDOW
    device = jax.devices()[0]
    secs = [window() for _ in range(windows)]
    work = case.B * case.T * flops.train_flops_per_token(cfg.model, case.T)
    peak = peak_flops_per_sec(device, "bfloat16")
    stats = device.memory_stats() or {}
    return {
        "secs": secs,
        "loss": loss[-1],
        "compile_secs": compile_secs,
        "peak_gib": stats.get("peak_bytes_in_use", 0) / 2**30,
        "mfu": work / statistics.median(secs) / peak if peak else None,
        "device": device.device_kind,
        "version": f"jax {jax.__version__}",
    }


def worker(name: str, case: Case, args) -> dict[str, Any]:
    """Runs one process to its end and returns the JSON line it prints last."""
    spec = json.dumps({**dataclasses.asdict(case), "windows": args.windows})
    if name == "podium":
        command = [sys.executable, str(HERE / "gpu.py"), f"--worker={spec}"]
    else:
        command = [args.torch, str(HERE / "peers" / "torch_llm.py"), spec]
        command += ["--eager"] if args.tiny else []
    env = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.94", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"secs": [], "error": reason[:100]}
    return json.loads(lines[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", help="Python that has torch; none: Podium alone")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=2, help="turns of each")
    parser.add_argument("--windows", type=int, default=6, help="of five steps, a turn")
    parser.add_argument("--tiny", action="store_true", help="small shapes, eager peer")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        spec = json.loads(args.worker)
        windows = spec.pop("windows")
        print(json.dumps(run_podium(Case(**spec), windows)))
        return
    names = ["podium", "torch"] if args.torch else ["podium"]
    rows = []
    for label in args.cases.split(","):
        case = tiny(CASES[label]) if args.tiny else CASES[label]
        turns: dict[str, list[dict]] = {name: [] for name in names}
        for i in range(args.rounds):
            for name in names:
                print(f"{label}: {name}, turn {i + 1}", file=sys.stderr, flush=True)
                turns[name].append(worker(name, case, args))
        rows += [row(label, case, name, turns[name]) for name in names]
    facts = {**report.provenance(), "device": rows[0]["device"]}
    if args.json:
        print(json.dumps({**facts, "rows": rows}))
    else:
        show(rows, facts)


def row(label: str, case: Case, name: str, turns: list[dict]) -> dict[str, Any]:
    secs = [s for turn in turns for s in turn["secs"]]
    last = turns[-1]
    speed = case.B * case.T / statistics.median(secs) if secs else None
    return {
        "case": label,
        "shape": f"{case.B} x {case.T}, {case.optimizer}",
        "remat": case.remat if name == "podium" else "none",
        "who": name,
        "tokens_per_sec": speed,
        "goal": case.goal or None if name == "podium" else None,
        "mfu": last.get("mfu"),
        "peak_gib": last.get("peak_gib"),
        "compile_secs": last.get("compile_secs"),
        "loss": last.get("loss"),
        "error": last.get("error", ""),
        "device": last.get("device", ""),
        "version": last.get("version", ""),
    }


def show(rows: list[dict[str, Any]], facts: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = "case", "shape", "who", "tok/s", "ratio", "goal", "MFU", "GiB"
    table = Table(*columns, "compile s", "loss", "error", box=None)
    for r in rows:
        peer = [p for p in rows if p["case"] == r["case"] and p["who"] != "podium"]
        base = peer[0]["tokens_per_sec"] if peer else None
        speed = r["tokens_per_sec"]
        values = (
            (speed, "{:,.0f}"),
            (speed / base if speed and base else None, "{:.2f}"),
            (r["goal"], "{:,}"),
            (r["mfu"], "{:.1%}"),
            (r["peak_gib"], "{:.1f}"),
            (r["compile_secs"], "{:.0f}"),
            (r["loss"], "{:.3f}"),
        )
        shown = ("" if v is None else form.format(v) for v, form in values)
        table.add_row(r["case"], r["shape"], r["who"], *shown, r["error"])
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print("ratio: to the peer. versions:", {r["version"] for r in rows if r["version"]})
    for line in report.lines(facts):
        print(line)


if __name__ == "__main__":
    main()
