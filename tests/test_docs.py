# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import pathlib
import re
import subprocess
import sys

import pytest

README = pathlib.Path("README.md").read_text()
PAGES = sorted(pathlib.Path("docs").glob("*.md"))


def test_the_files_and_pages_that_the_readme_names_exist():
    paths = re.findall(r"`((?:src|configs|docs|tests|benchmarks)/[\w/.-]+)`", README)
    paths += re.findall(r"\]\(([\w/.-]+)\)", README)
    assert len(paths) > 8
    for path in paths:
        assert pathlib.Path(path).exists(), path


def test_the_map_lists_every_folder_and_command():
    for path in pathlib.Path("src/podium").glob("*/__init__.py"):
        assert f"  {path.parent.name}/" in README
    for path in pathlib.Path("src/podium").glob("*.py"):
        if "cli.run(main)" in path.read_text():
            assert path.name in README, path


def test_every_page_is_in_the_readme_and_ends_in_an_example():
    for page in PAGES:
        assert f"({page})" in README
        assert "```" in page.read_text()


def test_the_library_trains_as_its_page_says_and_wants_a_train_config():
    page = pathlib.Path("docs/training.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert example.count("\n") <= 20
    example += """
from podium.config_dict import to_config_dict
try:
    podium.setup(to_config_dict(cfg))
except podium.ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=True
    )
    assert [line[:14] for line in done.stdout.splitlines()[:3]] == [
        f"step {i}: loss 5" for i in (1, 2, 3)
    ]
    assert "got a ConfigDict; expected a TrainConfig" in done.stdout


@pytest.mark.parametrize("page", ["README.md", *map(str, PAGES)])
def test_every_command_in_the_documents_exists(page):
    text = pathlib.Path(page).read_text()
    for module in re.findall(r"python -m (podium\.\w+)", text):
        assert pathlib.Path("src", *module.split(".")).with_suffix(".py").exists()
    for script in re.findall(r"python (benchmarks/[\w/]+\.py)", text):
        assert pathlib.Path(script).exists()
