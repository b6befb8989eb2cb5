# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which code runs: the git commit that data, runs and exports are marked with."""

import contextlib
import json
import subprocess
from pathlib import Path

_SOURCE_FILE = Path(".podium/source.json")  # in a checkout that launch.vertex packaged


def commit() -> str:
    """Of the code that runs, "-dirty" behind it where files differ; "": not known, as of
    an installed package, whose folder may lie in a repository that is not ours."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        about = json.loads(_SOURCE_FILE.read_text())
        return about["commit"] + ("-dirty" if about["is_dirty"] else "")
    here = Path(__file__).resolve().parent
    if "site-packages" in here.parts:
        return ""
    try:
        head, state = (
            subprocess.run(
                ["git", "-C", str(here), *words],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("-dirty" if state else "")
