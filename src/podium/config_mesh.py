# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The devices of a run, and which axis of an array lies along which of them."""

import dataclasses
from typing import Literal

from podium.config_setting import setting
from podium.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlicesConfig:
    """How much of each mesh axis lies across slices, over the data-centre network.

    The product is the number of slices; the rest of each axis stays inside one.
    """

    stage: int = setting(1, "slices along stage", low=-1)
    data: int = setting(-1, "slices along data; -1: what is left", low=-1)
    fsdp: int = setting(1, "slices along fsdp", low=-1)

    def __post_init__(self):
        sizes = dataclasses.asdict(self)
        if 0 in sizes.values() or list(sizes.values()).count(-1) > 1:
            shown = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise ConfigError(
                f"mesh.slices {shown}: sizes are 1 or more, one of them may be -1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis, outermost first; one axis may be -1: what is left."""

    stage: int = setting(1, "layers are split: a pipeline; the batch too", low=-1)
    data: int = setting(1, "replicas of the weights; the batch is split", low=-1)
    fsdp: int = setting(-1, "weights and batch are split", low=-1)
    expert: int = setting(1, "experts and batch are split", low=-1)
    context: int = setting(1, "each row's positions are split", low=-1)
    tensor: int = setting(1, "heads, MLP and vocabulary are split", low=-1)
    slices: SlicesConfig = setting(SlicesConfig(), "the part of each axis over DCN")

    def __post_init__(self):
        sizes = self.sizes()
        if zero := [name for name, size in sizes.items() if size == 0]:
            raise ConfigError(f"mesh.{zero[0]} is 0; use 1, or -1 for what is left")
        open_ = [name for name, size in sizes.items() if size == -1]
        if len(open_) > 1:
            raise ConfigError(
                f"mesh.{open_[0]} and mesh.{open_[1]} are both -1, what is left; give one "
                f"of them its size, as --config.mesh.{open_[1]}=1"
            )

    def sizes(self) -> dict[str, int]:
        """Axis -> devices along it, outermost first, -1 not yet filled in."""
        return {name: getattr(self, name) for name in MESH_AXES}


MESH_AXES = ("stage", "data", "fsdp", "expert", "context", "tensor")  # outermost first
MeshAxes = tuple[Literal["stage", "data", "fsdp", "expert", "context", "tensor"], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingConfig:
    """Logical axis -> mesh axes that split it, major first; () leaves it whole.

    Weights use embed, heads, kv_heads, head_dim, latent, mlp, vocab, layers, experts
    and expert_embed; activations use batch, length and the act_ names.
    """

    batch: MeshAxes = setting(
        ("stage", "data", "fsdp", "expert"), "rows of the global batch"
    )
    length: MeshAxes = setting(("context",), "positions, in attention and MLP")
    act_length: MeshAxes = setting(
        ("context", "tensor"),
        "positions between the blocks' parts: norms and residuals (arXiv:2205.05198)",
    )
    embed: MeshAxes = setting(("fsdp", "expert", "context"), "model width of a weight")
    opt_embed: MeshAxes | None = setting(
        None,
        "model width of optimizer moments and averaged weights; with 'data' in front: "
        "ZeRO-1; None: as embed",
    )
    heads: MeshAxes = setting(("tensor",), "query heads")
    kv_heads: MeshAxes = setting(("tensor",), "key and value heads")
    head_dim: MeshAxes = setting((), "channels of a head")
    latent: MeshAxes = setting(
        ("fsdp", "expert", "context"),
        "what latent attention compresses to, in the weights that read it",
    )
    mlp: MeshAxes = setting(("tensor",), "hidden width of the MLP")
    vocab: MeshAxes = setting(("tensor",), "rows of the embedding, logits")
    layers: MeshAxes = setting(("stage",), "stacked blocks; 'stage': as a pipeline")
    experts: MeshAxes = setting(("expert",), "experts of a layer")
    expert_embed: MeshAxes = setting(
        ("fsdp", "context"), "model width of an expert's weight"
    )
    act_embed: MeshAxes = setting((), "model width of an activation")
