# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Asks the planner whether a run fits its slice, before anything is paid for."""

import importlib.util
import subprocess
import sys
from typing import Any

from podium import cli
from podium.config import TrainConfig
from podium.errors import ConfigError
from podium.sharding_tables import secs_text, size_text
from profiling import plan_cache


def consult(cfg: TrainConfig, topology: str, flags: list[str], *, is_made: bool) -> str:
    """What the planner says, in a line. Raises ConfigError where the run cannot fit.

    `flags` say the config to the planner's command line. `is_made`: where there is no
    plan yet, one is made, which takes minutes and the TPU compiler.
    """
    plan = plan_cache.load(cfg, topology)
    if plan is None:
        if not is_made:
            return "none was made for this config, slice and code; --plan makes one"
        plan = _make(cfg, topology, flags)
    if not plan["fits"]:
        needs = (
            size_text(plan["hbm_bytes_per_chip"])
            if plan["hbm_bytes_per_chip"]
            else "more"
        )
        change = (plan.get("proposal") or {}).get("change")
        raise ConfigError(
            f"this run does not fit {topology}: a chip needs {needs} of "
            f"{size_text(plan['hbm_capacity_bytes'])}; "
            + (f"this fits: {change}" if change else "take a larger slice")
        )
    return (
        f"fits, {size_text(plan['hbm_bytes_per_chip'])} of "
        f"{size_text(plan['hbm_capacity_bytes'])} a chip; a step of at least "
        f"{secs_text(plan['step_secs'])}, at most {plan['tokens_per_sec_per_chip']:,.0f} "
        f"tokens/s a chip, MFU {plan['mfu_bound']:.0%}"
    )


def _make(cfg: TrainConfig, topology: str, flags: list[str]) -> dict[str, Any]:
    python = [sys.executable]
    if importlib.util.find_spec("libtpu") is None:
        python = ["uv", "run", "--isolated", "--extra", "tpu", "python"]
    command = ["-m", "profiling.plan", f"--topology={topology}", *flags]
    try:
        done = subprocess.run(
            [*python, *command], stdout=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        raise ConfigError(
            "--plan needs the TPU compiler: install uv, or sync with --extra tpu"
        ) from error
    plan = plan_cache.load(cfg, topology)
    if plan is None or done.returncode not in (0, cli.EXIT_FAILED):
        raise ConfigError(
            f"the planner gave no answer (exit code {done.returncode}, its words are "
            f"above); try it alone: python {' '.join(command)}"
        )
    return plan
