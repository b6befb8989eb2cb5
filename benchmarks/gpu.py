# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Podium's train step beside a torch.compile'd peer on one NVIDIA GPU, in bfloat16.

python benchmarks/gpu.py --torch=PYTHON          (PYTHON: one that has torch with CUDA)
python benchmarks/gpu.py --tiny --torch=PYTHON   (small shapes, to try it on a CPU)

Podium needs its `cuda` extra: uv run --extra cuda python benchmarks/gpu.py …
Runs unattended, prints one table. Podium and the peer run in turns, each in a process of
its own that has the whole GPU; a figure is the median over windows of five steps, one
synchronisation a window. Both compute in bfloat16 over float32 weights, with the same
shapes, rows of one document each, AdamW (8B: Adafactor, as AdamW's moments leave no room
for activations), clipping to norm 1. GPT-2's vocabulary of 50,257 is rounded up to a
multiple of 128 for both: no matmul of theirs is fast with an odd width.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
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
    tied: bool = True
    goal: int = 0  # tokens/s on one H200
    # Podium's settings: docs/gpu.md says why these.
    remat: str = "none"
    layer_loop: str = "unroll"
    documents: int = 1  # in a row; more: packed, with segment ids
    # The peer's.
    peer_compiles: str = "model"  # or "block": the same code once, not 32 times
    peer_recomputes: bool = False


CASES = {
    "gpt2-124m": Case(
        "gpt2", 12, 768, 12, 12, 64, 3072, 50_304, 1024, 32, goal=460_000
    ),
    "llama-1b": Case("llama", 16, 2048, 32, 8, 64, 8192, 128_256, 2048, 8, goal=46_000),
    "llama-8b": Case(
        *("llama", 32, 4096, 32, 8, 128, 14_336, 128_256, 8192, 1),
        optimizer="adafactor",
        tied=False,
        goal=6_700,
        remat="query,key,value,attention_out,gate,up,block_middle",
        layer_loop="scan",
        peer_compiles="block",
    ),
}


def tiny(case: Case) -> Case:
    """The same structure, small enough for a CPU."""
    group = case.N // case.K
    return dataclasses.replace(
        case, L=2, D=64, N=4, K=4 // group, H=16, F=128, V=512, T=128, B=2, goal=0
    )


def podium_config(case: Case):
    from podium import config, config_model, config_positions

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
        position=config_positions.LearnedPositionConfig(max_tokens=case.T)
        if is_gpt2
        else config_positions.RopeConfig(theta=500_000.0),
        norm=config_model.LayerNormConfig()
        if is_gpt2
        else config_model.RMSNormConfig(),
        attention=attention,
        mlp=config_model.MlpConfig(kind=mlp_kind, dim=case.F, use_bias=is_gpt2),
        tie_embeddings=case.tied,
        dtype="bfloat16",
        remat=case.remat,
        layer_loop=case.layer_loop,  # type: ignore[arg-type]
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
        # All logits at once: there is room, and none are computed twice.
        loss=config.LossConfig(chunk_tokens=case.B * case.T),
    )


def lower(case: Case) -> tuple[Any, Any, Any]:
    """The parts of the run, its batch, and the step for the compiler."""
    import jax
    import numpy as np

    from podium.input.batch import Batch
    from podium.trainer.setup import setup
    from podium.trainer.step import batch_sharding

    parts = setup(podium_config(case), jax.devices()[:1])
    rng = np.random.default_rng(0)
    rows = rng.integers(0, case.V, (case.B, case.T + 1)).astype(np.int32)
    at = np.tile(np.arange(case.T, dtype=np.int32), (case.B, 1))
    length = case.T // case.documents
    # Rows of one document need no segment ids, as the peer's causal attention has none.
    segments: Any = None if case.documents == 1 else 1 + at // length
    batch = Batch(rows[:, :-1], rows[:, 1:], segments, at % length)
    sharding = batch_sharding(parts.rules)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), batch
    )
    return parts, batch, parts.train_step.lower(parts.arguments()[0], shapes)


def run_podium(case: Case, windows: int) -> dict[str, Any]:
    """The worker: builds the step as `podium.train` does and times it."""
    import jax

    from podium.models import flops
    from podium.trainer.compiler_options import compiler_options
    from podium.trainer.metrics import peak_flops_per_sec
    from podium.trainer.state import init_state
    from podium.trainer.step import batch_sharding

    start = time.perf_counter()
    device = jax.devices()[0]
    parts, batch, lowered = lower(case)
    cfg = parts.cfg
    step = lowered.compile(compiler_options=compiler_options(parts.mesh) or None)
    compile_secs = time.perf_counter() - start
    state = init_state(cfg.model, 0, parts.optimizer, parts.layout)
    batch = jax.device_put(batch, batch_sharding(parts.rules))

    def window() -> float:
        nonlocal state
        start = time.perf_counter()
        values = {}
        for _ in range(STEPS_PER_WINDOW):
            state, values = step(state, batch)
        loss.append(float(values["loss"]))
        return (time.perf_counter() - start) / STEPS_PER_WINDOW

    loss: list[float] = []
    compile_secs += window() * STEPS_PER_WINDOW
    secs = [window() for _ in range(windows)]
    work = case.B * case.T * flops.train_flops_per_token(cfg.model, case.T)
    peak = peak_flops_per_sec(device, "bfloat16")
    stats = device.memory_stats() or {}
    return {
        "secs": secs,
        "loss": loss[0],
        "compile_secs": compile_secs,
        "peak_gib": stats.get("peak_bytes_in_use", 0) / 2**30,
        "mfu": work / statistics.median(secs) / peak if peak else None,
        "device": device.device_kind,
        "version": f"jax {jax.__version__}",
    }


def worker(name: str, case: Case, args, env: dict[str, str]) -> dict[str, Any]:
    """Runs one process to its end and returns the JSON line it prints last."""
    spec = json.dumps({**dataclasses.asdict(case), "windows": args.windows})
    if name == "podium":
        command = [sys.executable, str(HERE / "gpu.py"), f"--worker={spec}"]
    else:
        command = [args.torch, str(HERE / "peers" / "torch_llm.py"), spec]
        command += ["--eager"] if args.tiny else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, timeout=args.timeout
        )
    except subprocess.TimeoutExpired:
        return {"secs": [], "error": f"nothing in {args.timeout} s"}
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
    parser.add_argument("--documents", type=int, default=1, help="in Podium's rows")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each")
    parser.add_argument("--windows", type=int, default=6, help="of five steps, a turn")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for a turn")
    parser.add_argument("--secs", type=int, help="after these no new turn starts")
    parser.add_argument("--tiny", action="store_true", help="small shapes, eager peer")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        spec = json.loads(args.worker)
        windows = spec.pop("windows")
        print(json.dumps(run_podium(Case(**spec), windows)))
        return
    cases = {label: CASES[label] for label in args.cases.split(",")}
    if args.tiny:
        cases = {label: tiny(case) for label, case in cases.items()}
    cases = {
        label: dataclasses.replace(case, documents=args.documents)
        for label, case in cases.items()
    }
    names = ["podium", "torch"] if args.torch else ["podium"]
    turns: dict[tuple[str, str], list[dict]] = {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        # A second turn finds the program compiled, as a second start of a run does.
        env = {
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.94",
            "JAX_COMPILATION_CACHE_DIR": cache,
            **os.environ,
        }
        plan = [
            (i, label, n) for i in range(args.rounds) for label in cases for n in names
        ]
        for i, label, name in plan:
            if args.secs and time.monotonic() - begun > args.secs:
                print(f"{label}: {name}: no time is left", file=sys.stderr)
                continue
            found = worker(name, cases[label], args, env)
            turns.setdefault((label, name), []).append(found)
            speed = tokens_per_sec(cases[label], [found])
            at = f"{speed:,.0f} tokens/s" if speed else found.get("error")
            print(f"turn {i + 1}, {label}: {name}: {at}", file=sys.stderr, flush=True)
    rows = [row(*key, cases[key[0]], found) for key, found in turns.items()]
    facts = {**report.provenance(), "device": rows[0]["device"]}
    if args.json:
        print(json.dumps({**facts, "rows": rows}))
    else:
        show(rows, facts)


def tokens_per_sec(case: Case, turns: list[dict]) -> float | None:
    secs = [s for turn in turns for s in turn["secs"]]
    return case.B * case.T / statistics.median(secs) if secs else None


def row(label: str, name: str, case: Case, turns: list[dict]) -> dict[str, Any]:
    first = next((turn for turn in turns if turn["secs"]), turns[0])
    each = [tokens_per_sec(case, [turn]) for turn in turns if turn["secs"]]
    return {
        "case": label,
        "shape": f"{case.B} x {case.T}, {case.optimizer}",
        "who": name,
        "tokens_per_sec": tokens_per_sec(case, turns),
        "turns": each,
        "goal": case.goal or None if name == "podium" else None,
        "mfu": first.get("mfu"),
        "peak_gib": first.get("peak_gib"),
        "compile_secs": first.get("compile_secs"),
        "loss": first.get("loss"),
        "error": turns[-1].get("error", ""),
        "device": first.get("device", ""),
        "version": first.get("version", ""),
    }


def show(rows: list[dict[str, Any]], facts: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = "case", "shape", "who", "tok/s", "ratio", "goal", "turns", "MFU", "GiB"
    table = Table(*columns, "compile s", "loss 5", "error", box=None)
    for r in rows:
        peer = [p for p in rows if p["case"] == r["case"] and p["who"] != "podium"]
        base = peer[0]["tokens_per_sec"] if peer else None
        speed = r["tokens_per_sec"]
        values = (
            (speed, "{:,.0f}"),
            (speed / base if speed and base else None, "{:.2f}"),
            (r["goal"], "{:,}"),
            (len(r["turns"]), "{}"),
            (r["mfu"], "{:.1%}"),
            (r["peak_gib"], "{:.1f}"),
            (r["compile_secs"], "{:.0f}"),
            (r["loss"], "{:.3f}"),
        )
        shown = ("" if v is None else form.format(v) for v, form in values)
        table.add_row(r["case"], r["shape"], r["who"], *shown, r["error"])
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print("ratio: to the peer; compile s: to the fifth step; loss 5: at that step")
    print("versions:", {r["version"] for r in rows if r["version"]})
    for line in report.lines(facts):
        print(line)


if __name__ == "__main__":
    main()
