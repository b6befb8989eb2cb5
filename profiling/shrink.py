# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A config of the same architecture, small enough for virtual devices on a CPU."""

import dataclasses
import math

from podium.config import AdamWConfig, LossConfig, TrainConfig
from podium.config_model import (
    AttentionConfig,
    LatentAttentionConfig,
    LearnedPositionConfig,
    MoeConfig,
)

PARTS = 8  # every dimension divides by it, so that any axis of 8 devices can split it


def shrink(cfg: TrainConfig) -> TrainConfig:
    """Every kind of part, feature and rule of `cfg`, in float32, a few thousand parameters.

    One turn of the attention pattern before the experts, some after, and the part of
    one that is left over; grouped queries stay grouped, windows stay windows, chunks of
    the loss stay several, an uneven vocabulary stays uneven.
    """
    model = cfg.model
    a = model.attention
    seq_len = 8 * PARTS
    prefix, first = model.dense_prefix, 0
    turns, rest = divmod(model.num_layers, len(a.pattern))
    if prefix is not None:
        turns -= prefix.num_layers // len(a.pattern)
        first = len(a.pattern)
        prefix_mlp = dataclasses.replace(prefix.mlp, dim=16 * PARTS)
        prefix = dataclasses.replace(prefix, num_layers=first, mlp=prefix_mlp)
    # Deep enough for a pipeline over 8 devices, or two turns of a long pattern.
    turns = max(2, PARTS // len(a.pattern)) if turns > 1 else turns
    repeats = min(model.pipeline.repeats, 2) if turns % 2 == 0 else 1
    position = model.position
    if isinstance(position, LearnedPositionConfig):
        position = dataclasses.replace(position, max_tokens=seq_len)
    optimizer = cfg.optim.optimizer
    if isinstance(optimizer, AdamWConfig):
        # Else Adam lifts a gradient of pure rounding noise to full size.
        optimizer = dataclasses.replace(optimizer, eps=1e-5)
    mlp = dataclasses.replace(model.mlp, dim=16 * PARTS)
    if isinstance(mlp, MoeConfig):
        groups = min(mlp.num_groups, 4)
        mlp = dataclasses.replace(
            mlp,
            num_experts=2 * PARTS,
            experts_per_token=min(mlp.experts_per_token, 4),
            num_shared_experts=min(mlp.num_shared_experts, 2),
            num_groups=groups,
            groups_per_token=min(mlp.groups_per_token, max(1, groups // 2)),
        )
    rows = 2 * PARTS * math.gcd(cfg.grad_accum_steps, 2)
    return dataclasses.replace(
        cfg,
        model=dataclasses.replace(
            model,
            vocab_size=96 if model.vocab_size % PARTS == 0 else 93,
            num_layers=first + turns * len(a.pattern) + rest,
            pipeline=dataclasses.replace(model.pipeline, repeats=repeats),
            embed_dim=8 * PARTS,
            position=position,
            attention=_attention(a, seq_len),
            mlp=mlp,
            dense_prefix=prefix,
            vocab_multiple=PARTS if model.vocab_multiple > 1 else 1,
            init_std=0.1,  # larger than in training: every term is felt
            dtype="float32",
        ),
        data=dataclasses.replace(cfg.data, seq_len=seq_len, paths=(), text=None),
        loss=LossConfig(z_loss=cfg.loss.z_loss, chunk_tokens=4 * seq_len),
        global_batch_seqs=rows,
        grad_accum_steps=math.gcd(cfg.grad_accum_steps, 2),
        num_steps=100,
        optim=dataclasses.replace(
            cfg.optim,
            optimizer=optimizer,
            schedule=dataclasses.replace(cfg.optim.schedule, warmup_steps=1),
        ),
    )


def _attention(
    a: AttentionConfig | LatentAttentionConfig, seq_len: int
) -> AttentionConfig | LatentAttentionConfig:
    if isinstance(a, LatentAttentionConfig):
        return dataclasses.replace(
            a,
            num_heads=PARTS,
            q_lora_rank=a.q_lora_rank and 3 * PARTS,
            kv_lora_rank=2 * PARTS,
            qk_nope_head_dim=8,
            qk_rope_head_dim=4,
            v_head_dim=6,
            implementation="auto",
        )
    return dataclasses.replace(
        a,
        num_heads=PARTS,
        num_kv_heads=PARTS if a.num_kv_heads == a.num_heads else PARTS // 2,
        head_dim=8,
        window_tokens=a.window_tokens and seq_len // 4,
        query_scale=a.query_scale and 8**-0.5,
        implementation="auto",
    )
