# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""sample.py's peer: `generate` of transformers, on a folder of `podium.convert --to=hf`.

python -m venv ENV && ENV/bin/pip install torch==2.13.0 "transformers>=5,<6" safetensors
"""

import sys
import time

import generate_serve
import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    dtype, folder = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.eval()

    def generate(tokens: torch.Tensor, num_tokens: int) -> torch.Tensor:
        return model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=num_tokens,
            min_new_tokens=num_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )

    @torch.inference_mode()
    def run(prompts: list[list[int]], num_tokens: int):
        tokens = torch.tensor(prompts)
        start = time.perf_counter()
        generate(
            tokens, 1
        )  # the prefill alone, as `generate` does not say what it took
        prefill_secs = time.perf_counter() - start
        start = time.perf_counter()
        out = generate(tokens, num_tokens)
        decode_secs = time.perf_counter() - start - prefill_secs
        return out[:, tokens.shape[1] :].tolist(), prefill_secs, decode_secs

    generate_serve.serve(run, model.config.vocab_size, ("torch", "transformers"))


if __name__ == "__main__":
    main()
