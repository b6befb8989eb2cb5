# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Logical axis -> mesh axes: the one table that decides where every array lives.

Modules name what a dimension *is* ("embed", "mlp"); this table says which mesh axes
split it. Another layout is another table, never another model.
"""

import dataclasses
import math

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from podium.config import ShardingConfig
from podium.errors import ShardingError

LOGICAL_AXES = tuple(f.name for f in dataclasses.fields(ShardingConfig))


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """The table on one mesh. `spec` is all a module ever sees of the mesh."""

    config: ShardingConfig
    mesh: Mesh

    def mesh_axes(self, logical: str | None) -> tuple[str, ...]:
        """The mesh axes, of size above 1, that split a logical axis."""
        if logical in (
            None,
            "repeats",
        ):  # blocks that every stage holds, or runs of them
            return ()
        if logical not in LOGICAL_AXES:
            raise ShardingError(
                f"unknown logical axis {logical!r}; known: {', '.join(LOGICAL_AXES)}"
            )
        axes = getattr(self.config, logical)
        if axes is None:  # opt_embed: moments lie as their weights do
            axes = self.config.embed
        return tuple(a for a in axes if self.mesh.shape[a] > 1)

    def num_shards(self, logical: str) -> int:
        """Into how many parts a logical axis is split."""
        return math.prod(self.mesh.shape[a] for a in self.mesh_axes(logical))

    def spec(self, *logical: str | None) -> P:
        """PartitionSpec of an array whose dims carry these logical axes.

        Raises ShardingError if one mesh axis would split two dims of the array.
        """
        seen: dict[str, str | None] = {}
        entries = []
        for name in logical:
            axes = self.mesh_axes(name)
            for axis in axes:
                if axis in seen:
                    raise ShardingError(
                        f"mesh axis {axis!r} would split two dims of one array: "
                        f"{seen[axis]!r} and {name!r} in {logical}. Change "
                        f"config.sharding.{name} or config.sharding.{seen[axis]}."
                    )
                seen[axis] = name
            entries.append(axes[0] if len(axes) == 1 else axes or None)
        return P(*entries)

    def sharding(
        self, logical: tuple[str | None, ...], shape: tuple[int, ...], name: str
    ) -> NamedSharding:
        """Sharding of one array; raises ShardingError where a dim does not divide."""
        if len(logical) != len(shape):
            raise ShardingError(
                f"{name} {shape}: {len(logical)} logical axes {logical}"
            )
        for dim, axis in zip(shape, logical, strict=True):
            for_axis = self.mesh_axes(axis)
            parts = math.prod(self.mesh.shape[a] for a in for_axis)
            if dim % parts:
                fix = _fix(dim, parts, axis, for_axis)
                raise ShardingError(
                    f"{name} {list(shape)}: axis {axis!r} ({dim}) does not divide by "
                    f"mesh axis {'*'.join(for_axis)} ({parts}). {fix}"
                )
        return NamedSharding(self.mesh, self.spec(*logical))


# What a user changes to make a logical axis longer.
SIZES = {
    "embed": "model.embed_dim",
    "opt_embed": "model.embed_dim",
    "expert_embed": "model.embed_dim",
    "heads": "model.attention.num_heads",
    "kv_heads": "model.attention.num_kv_heads",
    "head_dim": "model.attention.head_dim",
    "mlp": "model.mlp.dim",
    "layers": "model.num_layers",
    "experts": "model.mlp.num_experts",
}


def _fix(dim: int, parts: int, axis: str | None, mesh_axes: tuple[str, ...]) -> str:
    # The mesh keeps its devices: what leaves this axis goes to another.
    smaller = math.gcd(dim, parts)
    fewer = " * ".join(f"mesh.{mesh_axis}" for mesh_axis in mesh_axes)
    size = f"{SIZES.get(axis or '', axis)}={-(-dim // parts) * parts}"
    if axis == "vocab":
        size = f"model.vocab_multiple={parts}"
    rest = f" and {parts // smaller} times as many of another axis"
    # Stages split layers and nothing else: without that they would repeat each other.
    whole = "" if axis == "layers" else f", or sharding.{axis}=()"
    return f"Use {fewer}={smaller}{rest}, or {size}{whole}."
