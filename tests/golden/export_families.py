# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Prints the table of docs/models.md: each family in, asked, out again, and compared.

python -m tests.golden.export_families --output=DIR

The model folders that it leaves in DIR are for `make_pretrained.py --exports=DIR`, which
asks transformers what it makes of them.
"""

import argparse
import os
import pathlib
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np

from podium.pretrained.safetensors_files import read_folder
from tests.pretrained.folders import GOLDEN, answers, check_equal, exported, imported


def main(output: pathlib.Path) -> None:
    print("| family | tensors in | logits error | greedy tokens | out again |")
    print("|---|--:|--:|---|---|")
    for name, want in GOLDEN.items():
        with tempfile.TemporaryDirectory() as folder:
            home = pathlib.Path(folder)
            run = imported(name, home)
            logits, greedy = answers(run, len(want["greedy"]))
            theirs = np.array(want["logits"])
            error = np.abs(logits[-len(theirs) :] - theirs).max()
            out = exported(run, output / f"{name}.hf")
            check_equal(home / "hf", out)
            same = "the same" if greedy == want["greedy"] else "OTHERS"
            tensors = len(read_folder(out))
            print(f"| `{name}` | {tensors} | {error:.1e} | {same} | to the bit |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True, type=pathlib.Path)
    main(parser.parse_args().output)
