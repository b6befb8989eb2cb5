# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""One module out of a package without what the package's `__init__` imports.

That of `google.cloud.aiplatform_v1` imports the clients of some forty services, seconds of
work for a command that asks one of them.
"""

import importlib.util
import sys
from typing import Any


def make_lean(package: str) -> None:
    """From now on importing a module of a package imports that module alone.

    `__init__` runs when the package itself is asked for a name that is none of its
    modules. Nothing happens where the package is imported already, or not installed.
    """
    if package in sys.modules:
        return
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # nor is what it lies in
        return
    if spec is None or spec.loader is None:
        return
    loader = spec.loader
    module: Any = importlib.util.module_from_spec(spec)

    def ask(name: str) -> Any:
        is_module = importlib.util.find_spec(f"{package}.{name}") is not None
        if name.startswith("__") or is_module:
            raise AttributeError(name)  # a module is imported by whoever asks for it
        del module.__getattr__
        loader.exec_module(module)
        return getattr(module, name)

    module.__getattr__ = ask
    sys.modules[package] = module
