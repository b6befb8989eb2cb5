# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What `model.quantization` gains on TPUs, and what it does to a loss.

python benchmarks/quantization.py [--only=v5e] > benchmarks/results/quantization.md

First: four layers of Llama 3.1 8B, fsdp 8, a row of 4,096 tokens a device, remat full,
compiled by the real TPU compiler and read by the planner's reader, beside the closed form
of `profiling.plan --search`; needs the extra `tpu`, one to five minutes a row. The
vocabulary is cut as the layers are, so the output head, which is not quantised, has the
share of the step that it has in the whole model.
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import report
from configs.families import llama_3_1_8b
from podium.aot import compile as aot
from podium.aot.chips import parse_slice
from podium.aot.hlo import read
from podium.aot.network import Network
from podium.aot.roofline import roofline
from podium.config import DataConfig, MeshConfig, TrainConfig
from podium.config_quantization import Fp8Config, Int8Config, Quantization

LAYERS, ROW = 4, 4096
BACKWARD = ("none", "inputs", "all")
INT8 = tuple(Int8Config(backward=b) for b in BACKWARD)
FP8 = tuple(Fp8Config(backward=b) for b in BACKWARD)
SLICES = (("v5e-8", INT8), ("v6e-8", INT8), ("tpu7x-8", FP8))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows that match, e.g. 'v5e-8 int8'")
    args = parser.parse_args()
    aot.without_tpus()
    print("# python benchmarks/quantization.py\n")
    print(
        "| slice | multiplied | step s | to bfloat16 | matmuls s | other fusions s "
        "| collectives waited for s | HBM GiB | step s estimated | to compiled |\n"
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for topology, every in SLICES:
        kinds = [k for k in every if re.search(args.only, f"{topology} {words(k)}")]
        if kinds:
            rows(topology, kinds)
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


def words(quantization: Quantization | None) -> str:
    if quantization is None:
        return "bfloat16"
    return f"{quantization.kind}, backward {quantization.backward}"


def rows(topology: str, kinds: Sequence[Quantization]) -> None:
    """Prints a slice's rows, bfloat16 first."""
    from podium.trainer.setup import setup
    from profiling.search import own

    where, plain = parse_slice(topology), None
    for quantization in (None, *kinds):
        cfg = config(quantization, where.num_devices)
        parts = setup(cfg, devices=aot.devices(where))
        compiled = aot.compile_step(parts, where)
        network = Network.of(where, list(parts.mesh.devices.flat))
        times = roofline(read(compiled.hlo), network).times
        plain = plain or times.step_secs
        guess = own(cfg, where).step_secs
        print(
            f"| {topology} | {words(quantization)} | {times.step_secs:.4f} "
            f"| {times.step_secs / plain:.2f} | {times.matmul_secs:.4f} "
            f"| {times.fusion_secs - times.matmul_secs:.4f} "
            f"| {times.sync_secs + times.exposed_secs:.4f} "
            f"| {compiled.peak_bytes * where.chip.devices_per_chip / 2**30:.2f} "
            f"| {guess:.4f} | {guess / times.step_secs:.2f} |",
            flush=True,
        )


def config(quantization: Quantization | None, num_devices: int) -> TrainConfig:
    whole = llama_3_1_8b()
    model = dataclasses.replace(
        whole,
        num_layers=LAYERS,
        vocab_size=whole.vocab_size * LAYERS // whole.num_layers,
        remat="full",
        quantization=quantization,
    )
    return TrainConfig(
        num_steps=1000,
        global_batch_seqs=num_devices,
        model=model,
        data=DataConfig(seq_len=ROW),
        mesh=MeshConfig(fsdp=num_devices),
    )


if __name__ == "__main__":
    main()
