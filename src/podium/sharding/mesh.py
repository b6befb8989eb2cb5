# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Devices -> Mesh. No chip is ever left over, and the shape always says why."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from podium.config import MeshConfig
from podium.errors import ShardingError

MESH_AXES = tuple(f.name for f in dataclasses.fields(MeshConfig))  # outermost first


def fit(cfg: MeshConfig, num_devices: int) -> dict[str, int]:
    """Axis sizes with -1 filled in. Raises ShardingError unless all devices are used."""
    sizes = {name: getattr(cfg, name) for name in MESH_AXES}
    fixed = math.prod(s for s in sizes.values() if s != -1)
    free = [name for name, s in sizes.items() if s == -1]
    shown = " x ".join(f"{k}={v}" for k, v in sizes.items())
    if free:
        if num_devices % fixed:
            raise ShardingError(
                f"mesh {shown}: {num_devices} devices do not divide by {fixed}. "
                f"Use sizes whose product divides {num_devices}."
            )
        sizes[free[0]] = num_devices // fixed
    elif fixed != num_devices:
        raise ShardingError(
            f"mesh {shown} takes {fixed} devices, but there are {num_devices}. "
            f"Set one axis to -1, or make the product {num_devices}."
        )
    return sizes


def make_mesh(cfg: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices (or the given ones), axes outermost first."""
    devices = jax.devices() if devices is None else devices
    sizes = fit(cfg, len(devices))
    # Auto: the compiler propagates layouts between our constraints.
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )


def use_virtual_cpu_devices(cfg: MeshConfig) -> None:
    """On a CPU, makes as many devices as a fully written mesh asks for.

    Call before any backend starts; GPUs and TPUs are not touched. A mesh with a -1
    takes the devices there are.
    """
    sizes = [getattr(cfg, name) for name in MESH_AXES]
    if -1 not in sizes and jax.config.jax_num_cpu_devices < 0:  # pyright: ignore
        jax.config.update("jax_num_cpu_devices", math.prod(sizes))
