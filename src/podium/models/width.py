# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What width changes: the rules of `model.width_transfer`, and a model at other widths.

Maximal update parametrisation, Yang et al. 2022, arXiv:2203.03466, table 8, its form for
Adam. Every factor is to a power of a ratio, a size over that of the base model:

    weight                      starts at            moves by (Adam and alike)
    embedding, positions        init_std             1
    vectors: norms, biases      1 and 0              1
    kernel                      init_std / sqrt(r)   1 / r      r: of what it sums over
    router                      init_std / r         1 / r
    output head, own or tied    init_std             1          logits times 1 / r

With wider heads, scores are divided by the width of a head, not by its root. A router
has as many outputs at any width, so it is an output of the paper, in the form of its
table 3. Experts are kernels; their number does not count as width.

Signs (Lion) and factored moments (Adafactor) move a weight as Adam does. Muon's step has
a fixed spectral norm, before the factor for its shape: here that norm goes as sqrt(fan_out
/ fan_in), arXiv:2310.17813, condition 1. Weight decay is left alone, learning rate times
weight_decay at any width: scaled along, it would fade with width (arXiv:2405.13698).
"""

import dataclasses
import math
from typing import Literal, NamedTuple

from podium.config_model import LatentAttentionConfig, ModelConfig
from podium.config_width import MupConfig
from podium.errors import ConfigError
from podium.models.axes import STACKED, inner, is_matrix

Summed = Literal["embed", "heads", "mlp"]  # what a kernel sums over
Axes = tuple[str | None, ...]


class Ratios(NamedTuple):
    """A model's sizes over its base's; all 1 without `width_transfer`."""

    embed: float = 1.0
    mlp: float = 1.0
    heads: float = 1.0  # all channels of all heads
    head_dim: float = 1.0


def ratios(cfg: ModelConfig) -> Ratios:
    """How much wider than its base a model is."""
    mup, a = cfg.width_transfer, cfg.attention
    if mup is None:
        return Ratios()
    embed = cfg.embed_dim / mup.base_embed_dim
    head_dim = 1.0 if mup.base_head_dim is None else a.head_dim / mup.base_head_dim
    heads = embed
    if mup.base_num_heads is not None:
        heads = a.num_heads / mup.base_num_heads * head_dim
    mlp = embed if mup.base_mlp_dim is None else cfg.mlp.dim / mup.base_mlp_dim
    return Ratios(embed, mlp, heads, head_dim)


def kernel_std(cfg: ModelConfig, sums: Summed, *, is_output: bool = False) -> float:
    """Standard deviation of a new kernel; outputs keep their number at any width."""
    ratio = getattr(ratios(cfg), sums)
    return cfg.init_std / (ratio if is_output else math.sqrt(ratio))


def query_scale(cfg: ModelConfig) -> float:
    """What queries are multiplied by, of grouped attention."""
    a, by = cfg.attention, ratios(cfg).head_dim
    assert not isinstance(a, LatentAttentionConfig)
    if a.query_scale is not None:
        return a.query_scale / by
    return a.head_dim**-0.5 / math.sqrt(by)


def step_factor(of: Ratios, axes: Axes) -> float:
    """What the step of a parameter is multiplied by, under Adam and alike."""
    return 1.0 / fans(of, axes)[0]


def muon_factor(of: Ratios, axes: Axes, shape: tuple[int, ...]) -> float:
    """As `step_factor`, of a kernel whose step is orthogonal times sqrt(larger side)."""
    into, out = fans(of, axes)
    sizes = [n for n, axis in zip(shape, axes, strict=True) if axis not in STACKED]
    cut = _cut(inner(axes))
    sides = math.prod(sizes[:cut]), math.prod(sizes[cut:])
    grown = max(sides) / max(sides[0] / into, sides[1] / out)
    return math.sqrt(out / into / grown)


def fans(of: Ratios, axes: Axes) -> tuple[float, float]:
    """Ratios of what a kernel sums over and of what it makes; (1, 1) of all others."""
    if "vocab" in axes or not is_matrix(axes):
        return 1.0, 1.0
    by = {"embed": of.embed, "expert_embed": of.embed, "mlp": of.mlp}
    by |= {"heads": of.heads, "kv_heads": of.heads}
    own = inner(axes)
    sides = own[: _cut(own)], own[_cut(own) :]
    into, out = (math.prod(by.get(axis or "", 1.0) for axis in side) for side in sides)
    return into, out


def _cut(own: list[str | None]) -> int:
    """Of a kernel's axes, how many it sums over: the model width is alone on a side."""
    return len(own) - 1 if own[-1] in ("embed", "expert_embed") else 1


def based_on_itself(cfg: ModelConfig) -> ModelConfig:
    """The model as its own base, or on the base that it has. Raises ConfigError."""
    if cfg.width_transfer is not None:
        return cfg
    mup = MupConfig(
        base_embed_dim=cfg.embed_dim,
        base_mlp_dim=cfg.mlp.dim,
        base_num_heads=cfg.attention.num_heads,
    )
    return dataclasses.replace(cfg, width_transfer=mup)


def at_width(cfg: ModelConfig, embed_dim: int) -> ModelConfig:
    """The model at another width: MLPs too, and more heads, or wider ones where
    `width_transfer.base_head_dim` says so. Raises ConfigError where one is no whole number.
    """
    a, prefix = cfg.attention, cfg.dense_prefix
    if isinstance(a, LatentAttentionConfig):
        raise ConfigError(
            "model.attention.kind='latent' has no rule for other widths; use 'grouped'"
        )
    is_wider = cfg.width_transfer is not None and cfg.width_transfer.base_head_dim
    names = ("head_dim",) if is_wider else ("num_heads", "num_kv_heads")
    parts = [(name, getattr(a, name)) for name in names] + [("mlp.dim", cfg.mlp.dim)]
    parts += [("dense_prefix.mlp.dim", prefix.mlp.dim)] if prefix else []
    multiple = cfg.embed_dim // math.gcd(cfg.embed_dim, *(n for _, n in parts))
    for name, size in parts:
        if size * embed_dim % cfg.embed_dim or embed_dim < 1:
            raise ConfigError(
                f"at width {embed_dim} {name} would be "
                f"{size * embed_dim / cfg.embed_dim:.4g}; use multiples of {multiple}"
            )

    def grown(size: int) -> int:
        return size * embed_dim // cfg.embed_dim

    def wider(mlp):
        return dataclasses.replace(mlp, dim=grown(mlp.dim))

    heads = {name: grown(getattr(a, name)) for name in names}
    return dataclasses.replace(
        cfg,
        embed_dim=embed_dim,
        attention=dataclasses.replace(a, **heads),
        mlp=wider(cfg.mlp),
        dense_prefix=prefix and dataclasses.replace(prefix, mlp=wider(prefix.mlp)),
    )
