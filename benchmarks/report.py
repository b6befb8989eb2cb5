# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What every benchmark says about itself, and how it stands up to a busy machine."""

import contextlib
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path


def provenance() -> dict[str, str]:
    """Where, when and on what a table was measured."""
    with open("/proc/loadavg") as load:
        load1 = load.read().split()[0]
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "load": f"{load1} at the end",
        "command": " ".join(["python", *sys.argv]),
    }


def commit() -> str:
    """Short hash of HEAD, with + where files are changed."""

    def git(*args: str) -> str:
        folder = Path(__file__).parent.parent
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True
        )
        return done.stdout.strip()

    head = git("rev-parse", "--short", "HEAD") or "none"
    return head + ("+" if git("status", "--porcelain", "--", "src") else "")


def machine() -> str:
    """Cores, processor, memory."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores {cpu}, {gib:.0f} GiB"


def lines(facts: dict[str, str]) -> list[str]:
    return [f"{key}: {value}" for key, value in facts.items()]


def favour(pid: int) -> None:
    """Lets a session win over other work on the machine, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-18")
