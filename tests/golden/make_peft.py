# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes peft.json: what `peft` makes of adapters that Podium exported.

For each folder of tests/golden/export_peft.py the logits of the last positions, with
the adapters on the model, and the SHA-256 of the adapters' file, by which the test knows
that it still writes the file that peft has read. Torch is no dependency of ours; run
this from the repository root with a Python 3.11 of its own that has torch 2.13.0 (CPU),
transformers 5 and peft:

    python -m tests.golden.make_peft --exports=DIR

The test that reads the file is tests/pretrained/test_peft.py.
"""

import argparse
import hashlib
import json
import pathlib

import peft
import torch
import transformers as hf

from tests.golden import hf_weights as w

PATH = pathlib.Path(__file__).parent / "peft.json"
NUM_LOGITS = 4


def ask(folder):
    """Logits of the last positions without and with the adapters."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32)
    model.set_attn_implementation("eager")
    model.eval()
    tokens = torch.from_numpy(w.TOKENS)
    with torch.no_grad():
        plain = model(tokens).logits[0].numpy()[-NUM_LOGITS:].copy()
        adapted = peft.PeftModel.from_pretrained(model, folder / "adapter").eval()
        return plain, adapted(tokens).logits[0].numpy()[-NUM_LOGITS:]


def main(exports):
    rows = []
    for folder in sorted(pathlib.Path(exports).iterdir()):
        plain, logits = ask(folder)
        change = abs(logits - plain).max()
        print(f"{folder.name:24} std {logits.std():.3f}, {change:.3f} off the base")
        found = {
            "logits": [[round(float(x), 6) for x in row] for row in logits],
            "sha256": hashlib.sha256(
                (folder / "adapter" / "adapter_model.safetensors").read_bytes()
            ).hexdigest(),
            "config": json.loads(
                (folder / "adapter" / "adapter_config.json").read_text()
            ),
        }
        rows.append(f'"{folder.name}": {json.dumps(found)}')
    made_by = {
        "torch": torch.__version__,
        "transformers": hf.__version__,
        "peft": peft.__version__,
    }
    text = ",\n".join(rows)
    PATH.write_text(
        f'{{"made_by": {json.dumps(made_by)},\n"adapters": {{\n{text}\n}}}}\n'
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--exports", required=True)
    main(parser.parse_args().exports)
