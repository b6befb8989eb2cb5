# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""JAX's persistent compilation cache, on by default."""

import os
from pathlib import Path

import jax


def use_compile_cache() -> None:
    """Keeps compiled programs in ~/.cache/podium/jax, or JAX_COMPILATION_CACHE_DIR.

    Set PODIUM_COMPILE_CACHE=off to compile afresh.
    """
    if os.environ.get("PODIUM_COMPILE_CACHE") == "off":
        return
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "podium" / "jax"))
    # Start-up is many small programs; the default keeps only those over a second.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
