# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes pretrained.json: tiny model folders of every family as transformers sees them.

For each family the config.json and the tensors' names and shapes that transformers
writes, and what it makes of such a folder whose weights are drawn by name: logits of
the last positions, and greedy tokens. Torch is no dependency of ours; run this from the
repository root with a Python 3.11 of its own that has torch 2.13.0 (CPU) and
transformers 5:

    python -m tests.golden.make_pretrained
    python -m tests.golden.make_pretrained --exports=DIR

The second compares model folders that Podium exported (tests/golden/export_families.py
makes them) with the committed values, and writes nothing. The test that reads the file
is tests/pretrained/test_golden.py.
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers as hf
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.golden import hf_weights as w
from tests.golden.make_family_logits import make_model

PATH = pathlib.Path(__file__).parent / "pretrained.json"
NUM_LOGITS, NUM_GREEDY = 4, 12


def ask(folder):
    """Logits of the last positions and greedy tokens of a model folder."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.set_attn_implementation("eager")
    model.eval()
    tokens = torch.from_numpy(w.TOKENS)
    with torch.no_grad():
        logits = model(tokens).logits[0].numpy()
        for _ in range(NUM_GREEDY):
            after = model(tokens).logits[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, after], dim=1)
    return logits[-NUM_LOGITS:], tokens[0, w.TOKENS.shape[1] :].tolist()


def make(name, folder):
    """A folder as transformers writes it, its weights drawn anew by their names."""
    make_model(name).save_pretrained(folder)
    path = pathlib.Path(folder, "model.safetensors")
    with safe_open(path, "numpy") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    drawn = {key: w.weight(name, key, tuple(shape)) for key, shape in shapes.items()}
    save_file(drawn, path, metadata={"format": "pt"})
    config = json.loads(pathlib.Path(folder, "config.json").read_text())
    return config, shapes


def write():
    old = json.loads(PATH.read_text())["families"] if PATH.exists() else {}
    rows = []
    for name in w.NAMES:
        with tempfile.TemporaryDirectory() as folder:
            config, shapes = make(name, folder)
            logits, greedy = ask(folder)
        change = "new"
        if name in old:
            change = np.abs(logits - np.array(old[name]["logits"])).max()
        print(f"{name:16} std {logits.std():.3f} change {change}")
        found = {
            "config": config,
            "tensors": shapes,
            "logits": [[round(float(x), 6) for x in row] for row in logits],
            "greedy": greedy,
        }
        rows.append(f'"{name}": {json.dumps(found)}')
    made_by = {"torch": torch.__version__, "transformers": hf.__version__}
    text = ",\n".join(rows)
    PATH.write_text(
        f'{{"made_by": {json.dumps(made_by)},\n"families": {{\n{text}\n}}}}\n'
    )


def compare(exports):
    golden = json.loads(PATH.read_text())["families"]
    for name, want in golden.items():
        for folder in sorted(pathlib.Path(exports).glob(f"{name}.*")):
            logits, greedy = ask(folder)
            error = np.abs(logits - np.array(want["logits"])).max()
            same = greedy == want["greedy"]
            print(
                f"{folder.name:32} error {error:.1e} greedy {'same' if same else 'NO'}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--exports")
    exports = parser.parse_args().exports
    compare(exports) if exports else write()
