# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Faults inside of a process, for `profiling.drill`; Python imports this by itself.

Where this folder is on PYTHONPATH the command that runs is the user's own, with

    PODIUM_DRILL_NAN_STEP=N   a weight becomes no number before step N, in memory
    PODIUM_DRILL_CLOCK=FILE   the wall clock is off by the seconds that FILE holds
"""

import importlib.abc
import importlib.util
import os
import sys
import time

_SETUP = "podium.trainer.setup"


def _shift_clock(path: str) -> None:
    real = time.time

    def shifted() -> float:
        try:
            with open(path) as file:
                return real() + float(file.read() or 0)
        except (OSError, ValueError):
            return real()

    time.time = shifted


class _AfterSetup(importlib.abc.MetaPathFinder):
    """Changes podium.trainer.setup once it is imported."""

    def __init__(self, step: int):
        self._step = step

    def find_spec(self, fullname, path, target=None):
        if fullname != _SETUP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            _poison(module.Setup, self._step)

        spec.loader.exec_module = exec_module
        return spec


def _poison(setup_class, step: int) -> None:
    compile_step = setup_class.compile_step

    def poisoned(self):
        program = compile_step(self)

        def train_step(state, batch):
            import dataclasses

            import jax

            if int(state.step) == step - 1:
                leaves, tree = jax.tree.flatten(state.params)
                leaves[0] = leaves[0] * float("nan")
                params = jax.tree.unflatten(tree, leaves)
                state = dataclasses.replace(state, params=params)
            return program(state, batch)

        return train_step

    setup_class.compile_step = poisoned


if _clock := os.environ.get("PODIUM_DRILL_CLOCK"):
    _shift_clock(_clock)
if _step := os.environ.get("PODIUM_DRILL_NAN_STEP"):
    sys.meta_path.insert(0, _AfterSetup(int(_step)))
