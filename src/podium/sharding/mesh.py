# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Devices -> Mesh. No chip is ever left over, and the shape always says why."""

import dataclasses
import logging
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from podium.config import MeshConfig
from podium.config_mesh import MESH_AXES
from podium.errors import ShardingError

log = logging.getLogger(__name__)


def fit(
    cfg: MeshConfig, num_devices: int, num_slices: int = 1
) -> tuple[dict[str, int], dict[str, int]]:
    """Axis sizes with -1 filled in, and how much of each lies across slices.

    Raises ShardingError unless all devices and slices are used and every axis divides
    by its part.
    """
    is_along_data = num_slices > 1 and cfg.slices.data == -1
    sizes = _fit(
        *(cfg.sizes(), num_devices, "mesh", "devices"),
        "data" if is_along_data else None,
    )
    asked = dataclasses.asdict(cfg.slices)
    across = _fit(asked, num_slices, "mesh.slices", "slices")
    across = {name: across.get(name, 1) for name in MESH_AXES}
    for name, part in across.items():
        if sizes[name] % part:
            raise ShardingError(
                f"mesh.{name} ({sizes[name]}) does not divide by mesh.slices.{name} "
                f"({part}): that many slices lie along it. Use a multiple, as "
                f"--config.mesh.{name}={part}."
            )
    return sizes, across


def make_mesh(cfg: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices (or the given ones), axes outermost first.

    Neighbours along an axis are neighbours on the torus where the hardware has one.
    Across several slices, `mesh.slices` says which axes leave a slice. CPU devices
    have no slices: where the config asks for some, equal blocks of devices act them.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = _slices(cfg, devices)
    sizes, across = fit(cfg, len(devices), len(slices))
    inside = tuple(sizes[name] // across[name] for name in MESH_AXES)
    blocks = np.empty((len(slices), *inside), object)
    for i, members in enumerate(slices):
        blocks[i] = _inside_a_slice(inside, members)
    # [slices of data, of fsdp, .., inside data, inside fsdp, ..], interleaved
    grid = blocks.reshape(*across.values(), *inside)
    n = len(inside)
    order = [axis for i in range(n) for axis in (i, n + i)]
    grid = grid.transpose(order).reshape(tuple(sizes.values()))
    # Auto: the compiler propagates layouts between our constraints.
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _inside_a_slice(shape: tuple[int, ...], devices: list[Any]) -> np.ndarray:
    if max(shape) == len(devices) > 1 and hasattr(devices[0], "coords"):
        return np.array(_along_the_torus(devices), object).reshape(shape)
    try:
        return mesh_utils.create_device_mesh(shape, devices)
    except NotImplementedError:
        # The shape does not lie along the torus; splitting a physical axis between
        # two mesh axes is right but its collectives share links.
        axes = [f"{a} {n}" for a, n in zip(MESH_AXES, shape, strict=True) if n > 1]
        log.warning("mesh %s: two of these share a ring of links", " x ".join(axes))
        return mesh_utils.create_device_mesh(
            shape, devices, allow_split_physical_axes=True
        )


def _along_the_torus(devices: list[Any]) -> list[Any]:
    """One mesh axis over a whole slice: row by row, the longest torus dim outermost.

    Its rings are what gradients travel along, see `models/ring_scatter.py`.
    """
    lengths = [
        len(set(along)) for along in zip(*(d.coords for d in devices), strict=True)
    ]
    order = sorted(range(len(lengths)), key=lambda dim: -lengths[dim])
    return sorted(
        devices, key=lambda d: (*(d.coords[dim] for dim in order), d.core_on_chip)
    )


def _slices(cfg: MeshConfig, devices: list[Any]) -> list[list[Any]]:
    indices = slice_indices(cfg, devices)
    return [
        [d for d, i in zip(devices, indices, strict=True) if i == index]
        for index in dict.fromkeys(indices)
    ]


def slice_indices(cfg: MeshConfig, devices: Sequence[Any]) -> list[int]:
    """The slice of every device; `devices` in the order that `make_mesh` was given."""
    indices = [getattr(d, "slice_index", 0) for d in devices]
    if devices[0].platform == "cpu":
        asked = [s for s in dataclasses.asdict(cfg.slices).values() if s != -1]
        num = math.prod(asked)
        if len(devices) % num:
            raise ShardingError(
                f"mesh.slices asks for {num} slices; {len(devices)} devices do not "
                "divide into them."
            )
        block = len(devices) // num
        indices = [i // block for i in range(len(devices))]
    return indices


def in_full(cfg: MeshConfig) -> dict[str, int]:
    """The smallest sizes without -1 that are multiples of what the config asks for."""
    slices = dataclasses.asdict(cfg.slices)
    return {
        axis: math.lcm(max(size, 1), max(slices.get(axis, 1), 1))
        for axis, size in cfg.sizes().items()
    }


def _fit(
    sizes: dict[str, int], num: int, key: str, what: str, best_free: str | None = None
) -> dict[str, int]:
    """`best_free`: the axis that an error proposes to leave open, else the largest."""
    sizes = dict(sizes)
    fixed = math.prod(s for s in sizes.values() if s != -1)
    free = [name for name, s in sizes.items() if s == -1]
    shown = " x ".join(f"{k}={v}" for k, v in sizes.items() if v != 1) or "of size 1"
    if free:
        if num % fixed:
            raise ShardingError(
                f"{key} {shown}: {num} {what} do not divide by {fixed}. "
                f"Use sizes whose product divides {num}, as --config.{key}.NAME=SIZE."
            )
        sizes[free[0]] = num // fixed
    elif fixed != num:
        open_ = best_free or max(sizes, key=lambda name: sizes[name])
        raise ShardingError(
            f"{key} {shown} takes {fixed} {what}, but there are {num}. "
            f"Set one axis to -1, as --config.{key}.{open_}=-1, or make the "
            f"product {num}."
        )
    return sizes


def use_virtual_cpu_devices(cfg: MeshConfig, num_processes: int = 1) -> None:
    """On a CPU, makes as many devices as a fully written mesh asks for, this process
    its share of them.

    Call before any backend starts; GPUs and TPUs are not touched. A mesh with a -1
    takes the devices there are.
    """
    sizes = list(cfg.sizes().values())
    # A mesh that does not divide is refused, with the reason, once devices are counted.
    share = max(1, math.prod(sizes) // num_processes)
    if -1 not in sizes and jax.config.jax_num_cpu_devices < 0:  # pyright: ignore
        jax.config.update("jax_num_cpu_devices", share)
    if (devices := _num_cpu_devices()) > 1 or num_processes > 1:
        give_threads(devices)


def _num_cpu_devices() -> int:
    """How many devices the CPU will be, by jax's setting or XLA's flag."""
    if jax.config.jax_num_cpu_devices > 0:  # pyright: ignore
        return jax.config.jax_num_cpu_devices  # pyright: ignore
    flag = r"--xla_force_host_platform_device_count=(\d+)"
    given = re.findall(flag, os.environ.get("XLA_FLAGS", ""))
    return int(given[-1]) if given else 1


def give_threads(num_cpu_devices: int) -> None:
    """Lets XLA have threads for all that may wait at once; before a backend starts.

    A collective blocks a thread until every device has come to it. XLA has as many
    threads as devices or cores, and runs collectives that do not depend on one another
    at once: where those of some devices hold all threads, the others never come, and
    XLA aborts after 40 seconds.
    """
    threads = (os.cpu_count() or 1) + 4 * num_cpu_devices
    given = os.environ.get("NPROC", "")
    os.environ["NPROC"] = str(max(threads, int(given) if given.isdigit() else 0))
