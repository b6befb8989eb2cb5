# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What checkpoints cost: time of the step loop, memory of a restore, time to leave.

python benchmarks/checkpoint.py > benchmarks/results/checkpoint.md
python benchmarks/checkpoint.py --parts=restore --layers=4     a smaller model

save      the model of peers/tiny_gpt.py with a save every 20 steps and with none, taken
          in turns: the share of the run that saves held up the loop, and what the steps
          took longer while files were written behind them
restore   a model of 1.0e9 parameters with Muon's moments, in float32: peak memory of the
          process above the state itself, beside Orbax with its defaults on the same
          files. Takes 20 GB of memory and 8 GB of disk
leave     from SIGTERM to the end of the process, saved
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).parent
CONFIG = str(HERE / "peers" / "tiny_gpt.py")
PARTS = ("save", "restore", "leave")
NUM_STEPS, EVERY = 80, 20
NEVER = 1_000_000


# --- time of the step loop --------------------------------------------------------------


def command(folder: Path, workdir: Path, **settings: Any) -> list[str]:
    data = folder / "data"
    if not data.exists():
        source = str(HERE.parent / "src")
        args = (f"--input={source}", "--tokenizer=bytes", f"--output={data}")
        prepare = [sys.executable, "-m", "podium.prepare", *args]
        subprocess.run(prepare, check=True, capture_output=True)
    more = [f"--config.{name}={value}" for name, value in settings.items()]
    return [
        *(sys.executable, "-m", "podium.train", f"--config={CONFIG}"),
        f"--config.data.paths=('{data}',)",
        "--config.model.vocab_size=257",
        f"--workdir={workdir}",
        *more,
    ]


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trained(folder: Path, name: str, every: int) -> tuple[float, float]:
    """(median step, seconds; share of the loop's time that saves held it up)."""
    workdir = folder / name
    settings = {"num_steps": NUM_STEPS, "checkpoint.every_steps": every}
    args = command(folder, workdir, **settings)
    process = subprocess.Popen(
        args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    report.favour(process.pid)
    if process.wait():
        raise RuntimeError(f"{args} ended with {process.returncode}")
    steps = [row["step_secs"] for row in jsonl(workdir / "metrics.jsonl")[5:]]
    saves = [
        e["secs"]
        for e in jsonl(workdir / "events.jsonl")
        if e["event"] == "checkpoint" and e["step"] < NUM_STEPS  # the last one ends it
    ]
    return statistics.median(steps), sum(saves) / (sum(steps) + sum(saves))


def save(folder: Path, repeats: int) -> list[str]:
    trained(folder, "warm", NEVER)  # fills the compilation cache
    found: dict[int, list[tuple[float, float]]] = {EVERY: [], NEVER: []}
    for i in range(repeats):
        for every, results in found.items():
            results.append(trained(folder, f"save{every}-{i}", every))
    held = [share for _, share in found[EVERY]]
    ratios = [a / b for (a, _), (b, _) in zip(found[EVERY], found[NEVER], strict=True)]
    step = statistics.median(secs for secs, _ in found[NEVER])
    return [
        "| a save every | seconds | held up the loop | a step took |",
        "|---|--:|--:|--:|",
        f"| {EVERY} steps | {EVERY * step:.0f} | {statistics.median(held):.2%} "
        f"({min(held):.2%} to {max(held):.2%}) | {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}) of one in a run without saves |",
    ]


# --- memory of a restore ----------------------------------------------------------------


def large(layers: int):
    from podium import config, config_model

    model = config_model.ModelConfig(
        vocab_size=32_000,
        num_layers=layers,
        embed_dim=2048,
        attention=config_model.AttentionConfig(
            num_heads=16, num_kv_heads=16, head_dim=128
        ),
        mlp=config_model.MlpConfig(dim=5632),
    )
    return config.TrainConfig(
        model=model,
        num_steps=1000,
        global_batch_seqs=1,
        data=config.DataConfig(seq_len=16),
        optim=config.OptimConfig(optimizer=config.MuonConfig()),
    )


def memory(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", status)[1])


def write_large(folder: Path, layers: int) -> None:
    import jax

    from podium.checkpoint import Checkpoints
    from podium.config import CheckpointConfig
    from podium.trainer.setup import setup
    from podium.trainer.state import init_state

    cfg = large(layers)
    parts = setup(cfg, jax.devices()[:1])
    state = init_state(cfg.model, 0, parts.optimizer, parts.layout)
    with_checkpoints = Checkpoints(folder, CheckpointConfig())
    with_checkpoints.save(state, step=1, cfg=cfg, fingerprints=["f"], eval_loss=None)
    with_checkpoints.wait()
    with_checkpoints.close()


def read_large(folder: Path, layers: int, who: str) -> None:
    import jax

    from podium.checkpoint import Checkpoints, _tree
    from podium.config import CheckpointConfig
    from podium.trainer.setup import setup

    cfg = large(layers)
    layout = setup(cfg, jax.devices()[:1]).layout
    checkpoints = Checkpoints(folder, CheckpointConfig())
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmRSS"), time.monotonic()
    if who == "podium":
        state: Any = checkpoints.restore(1, layout)
    else:
        import orbax.checkpoint as ocp

        want = _tree(layout.abstract())
        args = ocp.checkpoint_utils.construct_restore_args(want)
        path = folder / "checkpoints" / "1" / "state"
        with ocp.PyTreeCheckpointer() as reader:
            state = reader.restore(
                path, args=ocp.args.PyTreeRestore(want, restore_args=args)
            )
    jax.block_until_ready(state)
    arrays = [x for x in jax.tree.leaves(state) if isinstance(x, jax.Array)]
    print(
        json.dumps(
            {
                "secs": time.monotonic() - start,
                "state_bytes": sum(x.nbytes for x in arrays),
                "peak_bytes": memory("VmHWM") - before,
            }
        )
    )


def child(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, __file__, *args], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def restore(folder: Path, layers: int) -> list[str]:
    child("--child=write", f"--folder={folder}", f"--layers={layers}")
    lines = [
        "| who reads | state, GB | peak above what was there | of the state | seconds |",
        "|---|--:|--:|--:|--:|",
    ]
    for who, name in (("podium", "Podium"), ("orbax", "Orbax, its defaults")):
        out = child(f"--child={who}", f"--folder={folder}", f"--layers={layers}")
        found = json.loads(out.splitlines()[-1])
        state, peak = found["state_bytes"], found["peak_bytes"]
        lines.append(
            f"| {name} | {state / 1e9:.2f} | {peak / 1e9:.2f} | {peak / state:.2f} "
            f"| {found['secs']:.0f} |"
        )
    return lines


# --- time to leave ------------------------------------------------------------------------


def leave(folder: Path, repeats: int) -> list[str]:
    secs, step_secs = [], []
    for i in range(repeats):
        workdir = folder / f"leave{i}"
        settings = {"num_steps": NEVER, "checkpoint.every_steps": NEVER}
        process = subprocess.Popen(
            command(folder, workdir, **settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        rows = workdir / "metrics.jsonl"
        while not rows.exists() or len(rows.read_text().splitlines()) < 10:
            if process.poll() is not None:
                raise RuntimeError(f"the run ended with {process.returncode}")
            time.sleep(0.1)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        if process.wait() != 75:
            raise RuntimeError(f"the run ended with {process.returncode}, not 75")
        secs.append(time.monotonic() - start)
        step_secs += [row["step_secs"] for row in jsonl(rows)[2:]]
    return [
        "| from SIGTERM to the end of the process | median s | slowest | a step takes |",
        "|---|--:|--:|--:|",
        f"| the step under way, a save of 130 MB, exit 75 | {statistics.median(secs):.1f} "
        f"| {max(secs):.1f} | {statistics.median(step_secs):.1f} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="which of them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=18, help="of the large model")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "write":
        write_large(args.folder, args.layers)
        return
    if args.child:
        read_large(args.folder, args.layers, args.child)
        return
    print("# python benchmarks/checkpoint.py")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in args.parts.split(","):
            if part == "save":
                lines = save(folder, args.repeats)
            elif part == "restore":
                lines = restore(folder, args.layers)
            else:
                lines = leave(folder, args.repeats)
            print("\n" + "\n".join(lines), flush=True)
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


if __name__ == "__main__":
    main()
