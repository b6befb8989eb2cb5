# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every test runs on 8 virtual CPU devices, with strict dtype and rank promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["EPATH_USE_TF"] = "false"  # etils asks once, early; see podium.storage
# The tests are compilations above all, in this process and in those that it starts: three
# times faster without optimizations, and again with kernels that LLVM alone makes.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_use_fusion_emitters=false"]
)

import jax
import pytest
from jaxtyping import install_import_hook

# Shapes and types of these packages are checked at every call, before they are imported.
install_import_hook(
    ["podium.models", "podium.sharding", "podium.trainer"], "beartype.beartype"
)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure():
    from podium.sharding.mesh import give_threads  # after the hook, before a backend

    give_threads(8)


@pytest.fixture(scope="session", autouse=True)
def _eight_devices():
    assert jax.device_count() == 8, "the tests need 8 virtual CPU devices"


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory):
    """A worker's tests compile many programs twice: the second time they are read.

    Of one worker and one session, as what two write at once, jax may read half-written.
    """
    folder = str(tmp_path_factory.mktemp("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module")
def standard_promotion():
    """For tests that run optax's transformations, which mix dtypes on purpose."""
    with jax.numpy_dtype_promotion("standard"):
        yield
