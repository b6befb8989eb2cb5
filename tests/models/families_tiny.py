# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every family of configs/families.py shrunk to a few thousand parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from configs.families import FAMILIES
from podium.config_model import (
    DensePrefixConfig,
    LatentAttentionConfig,
    ModelConfig,
    MoeConfig,
)
from podium.config_positions import Llama3Scaling, RopeConfig, YarnScaling
from podium.models.bind import Params, abstract

HEAD_DIM = 16
NUM_LAYERS = {"gemma_2_2b": 5, "gemma_3_1b": 8}  # tails behind the pattern; others 3


def tiny(name: str, **changes) -> ModelConfig:
    """The family with its parts as published, and small dimensions, in float32."""
    cfg = FAMILIES[name]()
    a = cfg.attention
    if isinstance(a, LatentAttentionConfig):
        attention = dataclasses.replace(
            a,
            num_heads=4,
            q_lora_rank=a.q_lora_rank and 20,
            kv_lora_rank=12,
            qk_nope_head_dim=10,
            qk_rope_head_dim=8,
            v_head_dim=6,
        )
    else:
        attention = dataclasses.replace(
            a,
            num_heads=4,
            num_kv_heads=4 if a.num_kv_heads == a.num_heads else min(a.num_kv_heads, 2),
            head_dim=HEAD_DIM,
            window_tokens=5 if a.window_tokens else None,
            query_scale=0.3 if a.query_scale else None,
            soft_cap=2.0 if a.soft_cap else None,
        )
    position = cfg.position
    scaled = (Llama3Scaling, YarnScaling)
    if isinstance(position, RopeConfig) and isinstance(position.scaling, scaled):
        scaling = dataclasses.replace(position.scaling, original_max_tokens=64)
        position = dataclasses.replace(position, scaling=scaling)
    mlp = dataclasses.replace(cfg.mlp, dim=40)
    if isinstance(mlp, MoeConfig):
        few = {"num_experts": 4, "experts_per_token": 2}
        if mlp.num_groups > 1:  # room for a choice of groups and inside them
            few = {"num_experts": 12, "experts_per_token": 3}
            few |= {"num_groups": 4, "groups_per_token": 2}
        mlp = dataclasses.replace(mlp, **few)
    prefix = cfg.dense_prefix and DensePrefixConfig(
        num_layers=1, mlp=dataclasses.replace(cfg.dense_prefix.mlp, dim=48)
    )
    small = dataclasses.replace(
        cfg,
        vocab_size=61,
        num_layers=NUM_LAYERS.get(name, 3),
        embed_dim=24,
        position=position,
        attention=attention,
        mlp=mlp,
        dense_prefix=prefix,
        final_soft_cap=3.0 if cfg.final_soft_cap else None,
        dtype="float32",
    )
    return dataclasses.replace(small, **changes)


def random_params(cfg: ModelConfig, seed: int = 0) -> Params:
    """Large random values everywhere, so that no term of the formula hides."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        std = 0.4 if name in ("scale",) or name.endswith("bias") else 0.25
        offset = 0.0
        if name == "scale":
            offset = 1.0 - getattr(cfg.norm, "scale_offset", 0.0)
        return jnp.asarray(offset + std * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract(cfg).shapes)
