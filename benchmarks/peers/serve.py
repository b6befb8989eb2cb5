# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What every peer shares: the task, its batches, and the conversation with cpu_step.py.

The task is a GPT-2 block of 6 layers, width 384, 6 heads, bytes as tokens, 12 rows of
256: 10.8 M parameters, AdamW 1e-3, gradient clipped to norm 1. A peer builds it, runs
one step, prints a JSON line, then answers each line N on standard input with the
seconds and losses of N more steps. Idle between questions, peers can be measured in
turns. Standard library and NumPy only: every environment has them.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

L, D, N, H, F, V = 6, 384, 6, 64, 1536, 256
B, T = 12, 256
LEARNING_RATE, CLIP_NORM = 1e-3, 1.0
INIT_STD = 0.02


def arguments(variants: list[str], doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=variants, default=variants[0])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--text", help="file of bytes to train on; default: random")
    parser.add_argument(
        "--steps", type=int, help="run this many and stop; default: ask stdin"
    )
    return parser.parse_args()


def batches(text: str | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same (tokens, targets), int32 [B, T] each, for every peer."""
    rng = np.random.default_rng(0)
    data = (
        np.fromfile(text, np.uint8)
        if text
        else rng.integers(0, V, 4_000_000).astype(np.uint8)
    )
    while True:
        starts = rng.integers(0, len(data) - T - 1, B)
        rows = np.stack([data[s : s + T + 1] for s in starts]).astype(np.int32)
        yield np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])


def process_secs() -> float:
    """Seconds since this process was started (Linux)."""
    with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
        started_ticks = int(stat.read().rsplit(")", 1)[1].split()[19])
        return float(uptime.read().split()[0]) - started_ticks / os.sysconf(
            "SC_CLK_TCK"
        )


def serve(
    args: argparse.Namespace,
    step: Callable[[np.ndarray, np.ndarray], float],
    versions: dict[str, str],
    *,
    import_secs: float,
    num_params: int,
) -> None:
    """Answers on standard output until standard input ends. `step` returns the loss."""
    stream = batches(args.text)

    def run(num: int) -> dict[str, list[float]]:
        secs, losses = [], []
        for _ in range(num):
            tokens, targets = next(stream)
            start = time.perf_counter()
            losses.append(step(tokens, targets))
            secs.append(time.perf_counter() - start)
        return {"secs": secs, "losses": losses}

    first = run(1)
    hello = {
        "import_secs": import_secs,
        "first_step_secs": first["secs"][0],
        "start_secs": process_secs(),
        "first_loss": first["losses"][0],
        "num_params": num_params,
        "versions": {"python": sys.version.split()[0], **versions},
    }
    print(json.dumps(hello), flush=True)
    if args.steps:
        result = run(args.steps)
        median = float(np.median(result["secs"]))
        result["tokens_per_sec"] = [B * T / median]
        print(json.dumps({**result, "peak_rss_mb": peak_rss_mb()}), flush=True)
        return
    for line in sys.stdin:
        answer = run(int(line))
        print(json.dumps({**answer, "peak_rss_mb": peak_rss_mb()}), flush=True)


def peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
