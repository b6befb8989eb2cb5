# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers sample.py: a line "rows prompt_tokens new_tokens" in, a JSON object out."""

import importlib.metadata
import json
import random
import sys
from collections.abc import Callable


def serve(run: Callable, vocab_size: int, packages: tuple[str, ...]) -> None:
    """`run(prompts, num_tokens)` gives the new tokens, prefill and decode seconds."""
    versions = {p: importlib.metadata.version(p) for p in packages}
    print(json.dumps({"versions": versions}), flush=True)
    for line in sys.stdin:
        rows, prompt_tokens, new_tokens = map(int, line.split())
        draw = random.Random(0)
        prompts = [
            [draw.randrange(vocab_size) for _ in range(prompt_tokens)]
            for _ in range(rows)
        ]
        tokens, prefill_secs, decode_secs = run(prompts, new_tokens)
        answer = {"prefill_secs": prefill_secs, "decode_secs": decode_secs}
        print(json.dumps({**answer, "tokens": tokens}), flush=True)
