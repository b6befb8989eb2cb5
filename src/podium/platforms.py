# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Which accelerators a machine may have, known before jax is imported."""

import glob
import importlib.util
import os


def has_tpu_devices() -> bool:
    """Whether the kernel shows TPU chips."""
    return bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))


def leave_out_absent_tpus() -> None:
    """Keeps jax from asking libtpu for chips that are not there.

    Where libtpu is installed (the extra `tpu`, which planning needs) and there is no
    TPU, it fills standard error with its complaints. Does nothing where somebody chose
    a platform, where the surroundings speak of a TPU, or where another accelerator's
    plugin is installed.
    """
    said = ("JAX_PLATFORMS", "JAX_FORCE_TPU_INIT", "TPU_NAME", "TPU_WORKER_HOSTNAMES")
    if any(name in os.environ for name in said) or has_tpu_devices():
        return
    is_there = importlib.util.find_spec
    if is_there("libtpu") and not is_there("jax_plugins"):
        os.environ["JAX_PLATFORMS"] = "cpu"
