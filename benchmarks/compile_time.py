# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How long the train step takes to compile, by chips and by layers. No TPU needed.

uv run --isolated --extra tpu python benchmarks/compile_time.py \
    > benchmarks/results/compile_time.md

A dense 65B transformer (d 8192, 64 heads, MLP 32768 GELU), one row of 2048 tokens a
chip, remat full; every row in a process of its own, one to three minutes of CPU.
CPU seconds, all threads together, as wall time says more about what else the machine
does; `lower` is tracing and lowering, `compile` XLA alone. Nothing comes from a cache.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from configs.families import llama_2_7b
from podium.aot import compile as aot
from podium.aot.chips import parse_slice
from podium.config import DataConfig, MeshConfig, TrainConfig
from podium.config_mesh import SlicesConfig
from podium.config_model import MlpConfig


@dataclasses.dataclass(frozen=True)
class Case:
    """One compile."""

    topology: str
    mesh: MeshConfig
    layers: int = 80

    def config(self) -> TrainConfig:
        small = llama_2_7b()
        attention = dataclasses.replace(small.attention, num_heads=64, num_kv_heads=64)
        model = dataclasses.replace(
            small,
            num_layers=self.layers,
            embed_dim=8192,
            attention=attention,
            mlp=MlpConfig(kind="gelu", dim=32_768),
            remat="full",
        )
        return TrainConfig(
            num_steps=1000,
            global_batch_seqs=parse_slice(self.topology).num_chips,
            model=model,
            data=DataConfig(seq_len=2048),
            mesh=self.mesh,
        )


FSDP = MeshConfig()  # all chips on the fsdp axis


def _over(slices: int) -> MeshConfig:
    return MeshConfig(data=slices, slices=SlicesConfig(data=slices))


CASES = {
    **{
        f"fsdp {n}": Case(f"v5p-{2 * n}", FSDP)
        for n in (128, 256, 512, 1024, 2048, 4096)
    },
    "data 16 x fsdp 128": Case("v5p-4096", MeshConfig(data=16)),
    "data 32 x fsdp 128": Case("v5p-8192", MeshConfig(data=32)),
    "2 slices": Case("v5e-256x2", _over(2)),
    "16 slices": Case("v5e-256x16", _over(16)),
    **{f"{n} layers": Case("v5p-256", FSDP, n) for n in (8, 32, 126)},
}
KEPT = Path(__file__).parent / "results" / "compile_time.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose name has this")
    parser.add_argument("--case", help="compile this one; prints JSON")
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(measure(CASES[args.case])))
        return
    for name in CASES:
        if args.only in name:
            print(f"compiling {name}", file=sys.stderr, flush=True)
            found = in_a_process(name)
            kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
            text = json.dumps({**kept, name: found}, indent=1, sort_keys=True)
            KEPT.write_text(text + "\n")
    show(json.loads(KEPT.read_text()))


def in_a_process(name: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, f"--case={name}"], capture_output=True, text=True
    )
    about = report.provenance()
    about = {key: about[key] for key in ("date", "commit", "machine", "load")}
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["failed"])[-1][:200]
        return {**about, "error": why}
    return {**about, **json.loads(done.stdout.splitlines()[-1])}


def show(kept: dict[str, dict[str, Any]]) -> None:
    print("# python benchmarks/compile_time.py\n")
    print(
        "The train step of a dense model, d 8192, one row of 2048 tokens a chip, traced\n"
        "and compiled for slices that are not there. CPU seconds of the process.\n"
    )
    print(
        "| slice | chips | mesh | layers | import s | lower s | compile s | wall s "
        "| peak RSS GB | program MB | HBM GB a chip |"
    )
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, case in CASES.items():
        if name in kept:
            print(line(case, kept[name]))
    print()
    for name, found in kept.items():
        print(f"- {name}:", ", ".join(str(found[k]) for k in found if k in ABOUT))


ABOUT = ("packages", "date", "commit", "machine", "load")


def line(case: Case, found: dict[str, Any]) -> str:
    chips = parse_slice(case.topology).num_chips
    head = f"| {case.topology} | {chips:,} "
    if "error" in found:
        return f"{head}|  | {case.layers} | {found['error']} |" + " |" * 6
    return (
        f"{head}| {found['mesh']} | {case.layers} "
        f"| {found['import']:.0f} | {found['lower']:.0f} | {found['compile']:.0f} "
        f"| {found['wall']:.0f} | {found['rss'] / 1e9:.1f} "
        f"| {found['program'] / 1e6:.1f} | {found['hbm']} |"
    )


def measure(case: Case) -> dict[str, Any]:
    """CPU seconds and memory of this process, which does nothing else."""
    start = time.perf_counter()
    aot.without_tpus()
    import jax

    from podium.trainer.compiler_options import compiler_options
    from podium.trainer.setup import setup

    jax.config.update("jax_enable_compilation_cache", False)
    marks = [_cpu_secs()]
    devices = aot.devices(parse_slice(case.topology))
    parts = setup(case.config(), devices)
    lowered = aot.lower(parts)
    marks.append(_cpu_secs())
    options = compiler_options(parts.mesh)
    try:
        compiled = lowered.compile(compiler_options=options or None)
        memory = compiled.memory_analysis()
        hbm = f"{memory.peak_memory_in_bytes / 1e9:.1f}"
        program = len(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        hbm, program = f"needs {aot.needed_bytes(str(error)) / 1e9:.1f}", 0
    marks.append(_cpu_secs())
    return {
        "mesh": " x ".join(f"{k} {v}" for k, v in parts.mesh.shape.items() if v > 1),
        "import": marks[0],
        "lower": marks[1] - marks[0],
        "compile": marks[2] - marks[1],
        "wall": time.perf_counter() - start,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "hbm": hbm,
        "program": program,
        "packages": f"jax {jax.__version__}, libtpu {version('libtpu')}",
    }


def _cpu_secs() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
