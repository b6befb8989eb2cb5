# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes what tests/golden/make_peft.py asks peft about: models and their adapters.

python -m tests.golden.export_peft --output=DIR
"""

import argparse
import os
import pathlib
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"

from podium.pretrained.to_hf import plan_export
from podium.pretrained.to_peft import export_peft, plan_peft
from tests.pretrained.peft_folders import TARGETS, adapted


def main(output: pathlib.Path) -> None:
    for each in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            run = adapted(*each.split("."), pathlib.Path(folder))
            out = output / each
            export_peft(plan_peft(plan_export(run, 0)), out / "adapter", "F32")
            shutil.copytree(run.parent / "hf", out / "hf")
        print(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True, type=pathlib.Path)
    main(parser.parse_args().output)
