# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Generation from a real model beside `generate` of transformers, in turns.

python benchmarks/sample.py --workdir=smol --hf=smol-hf --peer=ENV/bin/python

docs/models.md says how to get SmolLM2-135M as the run folder `smol`, and its export
`smol-hf`; the head of peers/generate_transformers.py how to make ENV. Greedy, prompts
of random tokens, no end token. Both compute in float32, then in bfloat16. Each is
warmed up, then they answer in turn, so that a busy machine slows both alike. Figures
are medians; a ratio is the median over rounds of Podium's speed over the peer's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import report

PEERS = Path(__file__).parent / "peers"


class Peer:
    """A process that answers how long a batch took."""

    def __init__(self, python: str, script: str, dtype: str, model: str):
        self._process = subprocess.Popen(
            [python, str(PEERS / script), dtype, model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )
        report.favour(self._process.pid)
        self.versions = self._answer()["versions"]

    def run(self, rows: int, prompt_tokens: int, new_tokens: int) -> dict:
        assert self._process.stdin
        self._process.stdin.write(f"{rows} {prompt_tokens} {new_tokens}\n")
        self._process.stdin.flush()
        answer = self._answer()
        answer["prefill"] = rows * prompt_tokens / answer["prefill_secs"]
        answer["decode"] = rows * (new_tokens - 1) / answer["decode_secs"]
        return answer

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a peer ended without an answer; see above")
        return json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, help="run folder of the model")
    parser.add_argument("--hf", required=True, help="its export")
    parser.add_argument("--peer", required=True, help="python with transformers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="1,8", help="batch sizes")
    parser.add_argument("--prompt_tokens", type=int, default=128)
    parser.add_argument("--num_tokens", type=int, default=64)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    rows, versions = [], {}
    for dtype in args.dtypes.split(","):
        ours = Peer(sys.executable, "generate_podium.py", dtype, args.workdir)
        theirs = Peer(args.peer, "generate_transformers.py", dtype, args.hf)
        versions = {**ours.versions, **theirs.versions}
        for size in map(int, args.rows.split(",")):
            rows.append({"dtype": dtype, **compare(ours, theirs, size, args)})
        ours.close()
        theirs.close()
    facts = report.provenance()
    if args.json:
        print(json.dumps({**facts, "versions": versions, "rows": rows}))
        return
    print(
        "| type | rows | part | Podium tok/s | transformers tok/s | ratio | same tokens |"
    )
    print("|---|--:|---|--:|--:|--:|--:|")
    for row in rows:
        for part in ("prefill", "decode"):
            ours, theirs, ratio = row[part]
            same = f"{row['same']:.0%}" if part == "decode" else ""
            print(
                f"| {row['dtype']} | {row['rows']} | {part} | {ours:,.1f} | "
                f"{theirs:,.1f} | {ratio:.2f} | {same} |"
            )
    print()
    shape = f"prompts of {args.prompt_tokens} tokens, {args.num_tokens} new ones"
    print(f"{shape}, {args.rounds} rounds")
    for line in report.lines({**facts, **versions}):
        print(line)


def compare(ours: Peer, theirs: Peer, rows: int, args) -> dict:
    shape = (rows, args.prompt_tokens, args.num_tokens)
    found = []
    for i in range(args.rounds + 1):
        pair = ours.run(*shape), theirs.run(*shape)
        line = ", ".join(f"{a['prefill']:.0f} {a['decode']:.1f}" for a in pair)
        print(f"{rows} rows, round {i}: {line}", file=sys.stderr)
        found.append(pair)
    last, found = found[-1], found[1:]  # the first compiles and warms up
    pairs = zip(last[0]["tokens"], last[1]["tokens"], strict=True)
    equal = [a == b for x, y in pairs for a, b in zip(x, y, strict=True)]
    out: dict = {"rows": rows, "same": sum(equal) / len(equal)}
    for part in ("prefill", "decode"):
        speeds = [(a[part], b[part]) for a, b in found]
        mid = [statistics.median(each) for each in zip(*speeds, strict=True)]
        out[part] = (*mid, statistics.median(a / b for a, b in speeds))
    return out


if __name__ == "__main__":
    main()
