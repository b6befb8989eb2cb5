# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How fast text becomes gold data: python benchmarks/prepare.py

Prepares the Python standard library from the start of the command to the finished
folder: once with bpe:8192 to be learned, once with that tokenizer given. Beside them,
the same texts through the `tokenizers` library, encode_batch_fast, texts in
memory, nothing written. Prints one Markdown table; each figure is the median of several
runs, taken in turn. MB are 10**6 bytes of UTF-8 text; CPU seconds are those of all
processes and threads, so MB per CPU second says what a core does even on a busy machine.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from typing import NamedTuple

_PEER = """
import json, pathlib, sys
import tokenizers
tok = tokenizers.Tokenizer.from_file(sys.argv[1])
texts = []
for line in sys.stdin.read().splitlines():
    try:
        texts.append(pathlib.Path(line).read_bytes().decode())
    except UnicodeDecodeError:
        pass
start = time.perf_counter(), time.process_time()
for i in range(0, len(texts), 256):
    tok.encode_batch_fast(texts[i : i + 256], add_special_tokens=False)
secs = time.perf_counter() - start[0], time.process_time() - start[1]
print(json.dumps([sum(len(t.encode()) for t in texts), *secs]))
"""


class Timing(NamedTuple):
    """One run."""

    text_bytes: int
    secs: float
    cpu_secs: float
    tokens: int


def prepare(output: pathlib.Path, *, tokenizer: str, text: str, workers: int) -> Timing:
    """Runs the command."""
    start, cpu = time.perf_counter(), _cpu_secs()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "podium.prepare", f"--input={text}", "--json"),
            *(f"--tokenizer={tokenizer}", f"--output={output}"),
            f"--num_workers={workers}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    secs, cpu = time.perf_counter() - start, _cpu_secs() - cpu
    result = json.loads(done.stdout)
    tokens = sum(split["tokens"] for split in result["splits"].values())
    return Timing(result["text_bytes"], secs, cpu, tokens)


def encode_batch(tokenizer: pathlib.Path, files: list[str], workers: int) -> Timing:
    """Runs the peer."""
    threads = {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(workers)}
    done = subprocess.run(
        [sys.executable, "-c", "import time" + _PEER, tokenizer],
        input="\n".join(files).encode(),
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | threads,
    )
    text_bytes, secs, cpu_secs = json.loads(done.stdout)
    return Timing(text_bytes, secs, cpu_secs, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", default=sysconfig.get_path("stdlib"))
    parser.add_argument("--num_runs", type=int, default=3)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    files = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(args.input)
        for name in names
        if name.endswith(".py") and "site-packages" not in folder
    ]
    learned, given, peer = [], [], []
    with tempfile.TemporaryDirectory() as name:
        for i in range(args.num_runs):
            folder, workers = pathlib.Path(name), args.num_workers
            first = folder / f"learned-{i}"
            known = first / "tokenizer.json"
            learned.append(
                prepare(first, tokenizer="bpe:8192", text=args.input, workers=workers)
            )
            given.append(
                prepare(
                    folder / f"given-{i}",
                    tokenizer=str(known),
                    text=args.input,
                    workers=workers,
                )
            )
            peer.append(encode_batch(known, files, workers))
    print(
        f"{learned[0].text_bytes / 1e6:.1f} MB, {learned[0].tokens / 1e6:.2f} M tokens; "
        f"{args.num_workers} workers on {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}; median of "
        f"{args.num_runs}; {datetime.date.today()}, commit {_commit()}\n"
    )
    print("| what | seconds | MB/s | M tokens/s | CPU seconds | MB per CPU second |")
    print("|---|---|---|---|---|---|")
    tokens_per_byte = learned[0].tokens / learned[0].text_bytes
    speeds = []
    for what, runs in (
        ("podium.prepare, bpe:8192 learned", learned),
        ("podium.prepare, tokenizer given", given),
        ("encode_batch_fast of tokenizers", peer),
    ):
        megabytes = runs[0].text_bytes / 1e6
        secs = statistics.median(run.secs for run in runs)
        cpu_secs = statistics.median(run.cpu_secs for run in runs)
        speeds.append(megabytes / cpu_secs)
        print(
            f"| {what} | {secs:.1f} | {megabytes / secs:.1f} "
            f"| {megabytes / secs * tokens_per_byte:.2f} "
            f"| {cpu_secs:.1f} | {speeds[-1]:.1f} |"
        )
    print(
        f"\nMB per CPU second, given / encode_batch_fast: {speeds[1] / speeds[2]:.1f}"
    )


def _cpu_secs() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return done.stdout.strip() or "none"


if __name__ == "__main__":
    main()
