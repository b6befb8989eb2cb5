# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""sample.py's Podium: a run folder, in Podium's own environment."""

import dataclasses
import sys

import generate_serve

from podium.checkpoint import restore_params
from podium.generate import Generator
from podium.sampling import Sampling


def main() -> None:
    dtype, workdir = sys.argv[1:]
    cfg, params = restore_params(workdir)
    generator = Generator(dataclasses.replace(cfg.model, dtype=dtype), params)
    del params

    def run(prompts: list[list[int]], num_tokens: int):
        rows = generator.generate(
            prompts, num_tokens=num_tokens, sampling=Sampling(temperature=0)
        )
        return rows, generator.speed.prefill_secs, generator.speed.decode_secs

    generate_serve.serve(run, cfg.model.vocab_size, ("jax", "jaxlib"))


if __name__ == "__main__":
    main()
