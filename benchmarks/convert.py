# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The host memory and time that bringing weights in and out takes.

python benchmarks/convert.py --input=FILE.gguf > benchmarks/results/convert.md

Each file is converted by `podium.convert --from=gguf`, the run folder by `--to=hf` in
float32, and that by `--from=hf`, each in a process of its own, whose peak resident memory
the system counts (VmHWM). What a tiny model takes (Python, jax, Orbax) is taken off: the
rest stands beside the model's largest tensor, in float32. The first file is given; the
others are made here, quantised as Q8_0, with random numbers.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import report

MIB = 1 << 20
# VmHWM is of the process alone; what wait4 gives begins with the parent's.
_CHILD = """
import sys
from podium import convert
convert.main(sys.argv[1:])
print(open("/proc/self/status").read())
"""


class Sizes(NamedTuple):
    """Of a made model: (vocabulary, width, layers, hidden width)."""

    vocab: int
    width: int
    layers: int
    hidden: int


MADE = {
    "made, 128k x 2,048": Sizes(128_256, 2_048, 2, 8_192),
}
TINY = Sizes(1_000, 64, 1, 128)


def make(path: Path, sizes: Sizes) -> Path:
    """A llama of these sizes in Q8_0, a tensor in memory at a time."""
    V, D, L, F = sizes
    head_dim = 64 if D > 64 else 32
    heads = D // head_dim
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=True)
    numbers = {
        "block_count": L,
        "context_length": 2048,
        "embedding_length": D,
        "feed_forward_length": F,
        "attention.head_count": heads,
        "attention.head_count_kv": heads,
    }
    for key, value in numbers.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", "smollm")
    writer.add_array(
        "tokenizer.ggml.tokens", ["a", "b", "ab", *(f"t{i}" for i in range(V - 3))]
    )
    writer.add_array("tokenizer.ggml.token_type", [3] + [1] * (V - 1))
    writer.add_array("tokenizer.ggml.merges", ["a b"])
    writer.add_uint32("tokenizer.ggml.eos_token_id", 0)
    kind = gguf.GGMLQuantizationType.Q8_0
    rng = np.random.default_rng(0)

    def add(name: str, rows: int, columns: int) -> None:
        raw = rng.integers(0, 60, (rows, columns // 32 * 34), np.uint8)
        writer.add_tensor(name, raw, raw_dtype=kind)

    add("token_embd.weight", V, D)
    norms = ["output_norm"]
    for layer in range(L):
        at = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{at}.{name}.weight", D, D)
        add(f"{at}.ffn_gate.weight", F, D)
        add(f"{at}.ffn_up.weight", F, D)
        add(f"{at}.ffn_down.weight", D, F)
        norms += [f"{at}.attn_norm", f"{at}.ffn_norm"]
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(D, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def convert(how: str, path: Path, folder: Path) -> tuple[float, float]:
    """(peak memory of the process in MiB, seconds)."""
    flags = [how, f"--input={path}", f"--output={folder}"]
    flags += ["--dtype=float32"] if how.startswith("--to") else []
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *flags],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    secs = time.perf_counter() - start
    return int(done.stdout.split("VmHWM:")[1].split()[0]) / 1024, secs


def all_ways(path: Path, folder: Path) -> dict[str, tuple[float, float]]:
    """Way -> what `convert` says of it, from a GGUF on."""
    run, hf, again = (folder / name for name in ("run", "hf", "again"))
    ways = [("--from=gguf", path, run), ("--to=hf", run, hf), ("--from=hf", hf, again)]
    found = {how: convert(how, source, to) for how, source, to in ways}
    for made in (run, hf, again):
        shutil.rmtree(made)
    return found


def sizes_of(path: Path) -> tuple[float, float]:
    """(all tensors, the largest) in MiB of float32."""
    sizes = [4 * tensor.n_elements / MIB for tensor in gguf.GGUFReader(path).tensors]
    return sum(sizes), max(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="a GGUF of llama")
    path = parser.parse_args().input
    print("# python benchmarks/convert.py\n")
    print(
        "| MiB | way | tensors, float32 | the largest | peak | beside a tiny model's | "
        "to the largest | seconds |\n|---|---|--:|--:|--:|--:|--:|--:|"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        usual = all_ways(make(folder / "tiny.gguf", TINY), folder)
        for how, (peak, secs) in usual.items():
            print(f"| tiny | `{how}` | | | {peak:,.0f} | | | {secs:.1f} |")
        for label in (path.stem, *MADE):
            at = folder / "model.gguf"
            at = make(at, MADE[label]) if label in MADE else path
            whole, largest = sizes_of(at)
            for how, (peak, secs) in all_ways(at, folder).items():
                over = peak - usual[how][0]
                print(
                    f"| {label} | `{how}` | {whole:,.0f} | {largest:,.0f} | {peak:,.0f} | "
                    f"{over:,.0f} | {over / largest:.2f} | {secs:.1f} |",
                    flush=True,
                )
    print("\n```")
    print("\n".join(report.lines(report.provenance())))
    print("```")


if __name__ == "__main__":
    main()
