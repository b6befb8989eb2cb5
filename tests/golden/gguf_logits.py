# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A model that came from a GGUF, beside what transformers makes of it.

First in Podium's environment, from the repository root: logits of a page of Python's
documentation, by a run folder that `podium.convert --from=gguf` made.

    python -m tests.golden.gguf_logits --run=runs/smol --out=logits.npz

Then in an environment of its own, `pip install torch==2.13.0 'transformers>=5,<6'
safetensors numpy gguf`: the same text by the exported folder, and by transformers' own
reader of the GGUF, which undoes llama.cpp's order of rows in its own way.

    python -m tests.golden.gguf_logits --logits=logits.npz --export=smol-hf --gguf=FILE
"""

import argparse
import pathlib
import pydoc_data.topics

import numpy as np

TEXT = "The 3 capitals of 2024 are 17. " + pydoc_data.topics.topics["for"]
NUM_TOKENS = 256


def write(run: str, out: str) -> None:
    import jax
    import jax.numpy as jnp

    from podium.checkpoint import restore_params
    from podium.models.bind import abstract, bind
    from podium.pretrained.side_files import read_tokenizer

    cfg, params = restore_params(run)
    tok = read_tokenizer(pathlib.Path(run, "pretrained"))
    assert tok is not None
    ids = tok.encode(TEXT)

    @jax.jit
    def forward(params, tokens):
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        bound = bind(abstract(cfg.model).graphdef, params)
        return bound.logits(bound(tokens, positions, None))

    logits = forward(params, np.array(ids[:NUM_TOKENS], np.int32)[None])[0]
    np.savez(out, text=TEXT, ids=ids, logits=np.asarray(logits, np.float32))
    print(f"{out}: logits {logits.shape}, std {logits.std():.3f}")


def compare(saved: str, where: str, **how: str) -> None:
    import torch
    import transformers as hf

    found = np.load(saved)
    model = hf.AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **how)
    tok = hf.AutoTokenizer.from_pretrained(where, **how)
    ids = tok(str(found["text"]), add_special_tokens=False)["input_ids"]
    tokens = torch.from_numpy(found["ids"][None, : len(found["logits"])])
    with torch.no_grad():
        logits = model.eval()(tokens).logits[0].numpy()
    error = np.abs(logits - found["logits"]).max()
    print(
        f"{how.get('gguf_file', where)}: logits error {error:.1e} (std "
        f"{logits.std():.2f}), most likely tokens "
        f"{'the same' if (logits.argmax(-1) == found['logits'].argmax(-1)).all() else 'NO'}"
        f", ids {'the same' if ids == found['ids'].tolist() else 'NO'} ({len(ids)})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("run", "out", "logits", "export", "gguf"):
        parser.add_argument(f"--{flag}")
    args = parser.parse_args()
    if args.run:
        write(args.run, args.out)
    if args.export:
        compare(args.logits, args.export)
    if args.gguf:
        path = pathlib.Path(args.gguf)
        compare(args.logits, str(path.parent), gguf_file=path.name)
