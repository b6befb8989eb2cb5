# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How fast text becomes gold data: python benchmarks/prepare.py

Prepares the Python standard library with bpe:8192, from the start of the command to the
finished folder, and beside it tokenizes the same texts with the `tokenizers` library's
own encode_batch, as it comes. Prints one Markdown table; each figure is the median of
several runs taken in turn. MB are 10**6 bytes of UTF-8 text; the learning of the
tokenizer is included in the first row and named in the second.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time

_PEER = """
import pathlib, sys, time
import tokenizers
tok = tokenizers.Tokenizer.from_file(sys.argv[1])
texts = []
for line in sys.stdin.read().splitlines():
    try:
        texts.append(pathlib.Path(line).read_text())
    except UnicodeDecodeError:
        pass
start = time.perf_counter()
for i in range(0, len(texts), 256):
    tok.encode_batch(texts[i : i + 256])
secs = time.perf_counter() - start
print(sum(len(t.encode()) for t in texts) / 1e6 / secs)
"""


def prepare(folder: str, output: pathlib.Path, workers: int, text: str) -> dict:
    """Runs the command; its result, with the seconds of each stage."""
    start = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "podium.prepare", f"--input={text}", "--json"),
            *("--tokenizer=bpe:8192", f"--output={output}", f"--num_workers={workers}"),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    result = json.loads(done.stdout)
    result["wall"] = time.perf_counter() - start
    stages = re.findall(r"prepare: (\w+).*: done, .* in ([\d.]+) s", done.stderr)
    return result | {name: float(secs) for name, secs in stages}


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
    runs, peers = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.num_runs):
            output = pathlib.Path(folder, str(i))
            runs.append(prepare(folder, output, args.num_workers, args.input))
            peer = subprocess.run(
                [sys.executable, "-c", _PEER, output / "tokenizer.json"],
                input="\n".join(files),
                capture_output=True,
                text=True,
                check=True,
                env=os.environ
                | {
                    "TOKENIZERS_PARALLELISM": "true",
                    "RAYON_NUM_THREADS": str(args.num_workers),
                },
            )
            peers.append(float(peer.stdout))

    def median(key: str) -> float:
        return statistics.median(run[key] for run in runs)

    megabytes = runs[0]["text_bytes"] / 1e6
    tokens = sum(split["tokens"] for split in runs[0]["splits"].values())
    rate = megabytes / median("tokenizing")
    peer = statistics.median(peers)
    rows = [
        ("podium.prepare, all of it", median("wall"), megabytes / median("wall")),
        ("  of that: learning bpe:8192", median("learning"), None),
        ("  of that: read, tokenize, write", median("tokenizing"), rate),
        ("tokenizers encode_batch, texts in memory", megabytes / peer, peer),
    ]
    print(
        f"{megabytes:.1f} MB of text, {tokens / 1e6:.2f} M tokens, {args.num_workers} "
        f"workers; {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}; {datetime.date.today()}, "
        f"commit {_commit()}\n"
    )
    print("| stage | seconds | MB/s | M tokens/s |\n|---|---|---|---|")
    for name, secs, speed in rows:
        if speed is None:
            print(f"| {name} | {secs:.1f} | | |")
        else:
            per_sec = speed / megabytes * tokens / 1e6
            print(f"| {name} | {secs:.1f} | {speed:.1f} | {per_sec:.2f} |")
    print(f"\nread, tokenize, write / encode_batch: {rate / peer:.2f}")


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return done.stdout.strip() or "none"


if __name__ == "__main__":
    main()
