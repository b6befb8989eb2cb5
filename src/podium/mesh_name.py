# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Meshes as words on a command line: `data2.tensor4`. No jax."""

import dataclasses
import re

from podium.config import MeshConfig
from podium.config_mesh import MESH_AXES
from podium.errors import ConfigError


def mesh_of(shape: dict[str, int]) -> MeshConfig:
    """The mesh of these sizes; axes not named have size 1."""
    return dataclasses.replace(MeshConfig(), **dict.fromkeys(MESH_AXES, 1) | shape)


def parse_mesh(word: str, flag: str) -> MeshConfig:
    """`data2.tensor4` -> a mesh. Raises ConfigError in terms of `flag`."""
    shape: dict[str, int] = {}
    for part in word.split("."):
        match = re.fullmatch(r"([a-z]+)([1-9]\d*)", part)
        if not match or match[1] not in MESH_AXES:
            raise ConfigError(
                f"{flag}: {part!r} in {word!r} is not an axis and a size, such as "
                f"data2.tensor4; axes: {', '.join(MESH_AXES)}"
            )
        shape[match[1]] = int(match[2])
    return mesh_of(shape)


def name_of(mesh: MeshConfig) -> str:
    """`data2.tensor4`; what `parse_mesh` reads."""
    return ".".join(f"{axis}{n}" for axis, n in mesh.sizes().items() if n > 1) or "one"
