# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "input.md"


def test_the_example_of_the_page_runs():
    example = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[-1]
    assert example.count("\n") < 150
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=True
    )
    assert "row 0 begins with: This is" in done.stdout
