# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What each generation's compiler needs to be told, and why. The only such table.

The trainer and the planner compile with the same options, so that a plan is a plan of
the step that runs.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the planner sets jax's platform before it is imported
    from jax.sharding import Mesh

_SC = "xla_tpu_enable_sparse_core_collective_offload"
# The SparseCores move the data while the core computes. Without them gathers stop it,
# and gradients are all-reduced whole instead of scattered.
_SPARSE_CORES = {
    f"{_SC}_all_gather": "true",
    f"{_SC}_2d_all_gather": "true",
    f"{_SC}_3d_all_gather": "true",
    f"{_SC}_reduce_scatter": "true",
    f"{_SC}_nd_reduce_scatter": "true",
}


def _scoped_vmem(mib: int) -> dict[str, str]:
    """What a fusion may take of the vector memory; 16 MiB by default.

    With more, matmuls work on larger blocks and wait less for HBM. A compile takes two
    to three times as long; more than below gained less than 1% where it was tried.
    """
    return {"xla_tpu_scoped_vmem_limit_kib": str(mib * 1024)}


TPU_OPTIONS: dict[str, dict[str, str]] = {
    # Without it all-gathers stop the core: a 102B step on v4-256 takes 7% longer.
    # More scoped memory changes nothing there.
    "TPU v4": {"xla_enable_async_all_gather": "true"},
    # All-gathers ride in matmul fusions by default; with these so do the all-reduces
    # that a matmul follows: 1.5% of a 7B step on v5e-256, docs/tpu-layout-trials.md.
    "TPU v5 lite": {
        "xla_enable_async_all_reduce": "true",
        "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
        "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter": "true",
        **_scoped_vmem(32),  # matmuls of a 32B step: 82 -> 93% of peak
    },
    "TPU v5": {**_SPARSE_CORES, **_scoped_vmem(32)},  # v5p; 85 -> 95%, the same model
    "TPU v6 lite": {**_SPARSE_CORES, **_scoped_vmem(96)},  # 58 -> 84%, Llama 3.1 8B
    # TPU7x: the sparse cores carry collectives by default.
}

# In a pipeline the compiler takes the gather of each weight over `fsdp` apart into a loop
# of permutes and partial matmuls, 29,040 a step: 40.1 s of a 70B step in 4 stages on
# v5p-256. As gathers, which the matmuls before them hide, 33.7 s. So many MiB no array has.
_PIPELINE = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def compiler_options(mesh: "Mesh") -> dict[str, str]:
    """XLA's options for a step on this mesh; {} where none help."""
    device = mesh.devices.flat[0]
    is_pipeline = device.platform == "tpu" and mesh.shape.get("stage", 1) > 1
    kind = TPU_OPTIONS.get(device.device_kind, {})
    return {**kind, **_PIPELINE} if is_pipeline else kind
