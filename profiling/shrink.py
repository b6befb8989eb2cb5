# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A config of the same architecture, small enough for virtual devices on a CPU."""

import dataclasses
import math
from collections.abc import Iterable

from podium.config import AdamWConfig, LossConfig, TrainConfig
from podium.config_model import AttentionConfig, LatentAttentionConfig, MoeConfig
from podium.config_positions import LearnedPositionConfig
from podium.config_width import MupConfig

PARTS = 8  # every dimension divides by it, so that any axis of 8 devices can split it


def parts_for(num_devices: Iterable[int]) -> int:
    """What dimensions must divide by, for meshes of that many devices to split them."""
    return math.lcm(PARTS, *num_devices)


def shrink(cfg: TrainConfig, parts: int = PARTS) -> TrainConfig:
    """Every kind of part, feature and rule of `cfg`, in float32, a few thousand parameters.

    One turn of the attention pattern before the experts, some after, and the part of
    one that is left over; grouped queries stay grouped, windows stay windows, chunks of
    the loss stay several. A mesh whose size divides `parts` and that `cfg` can be laid
    out on takes the result too: dimensions divide by `parts`, the vocabulary by what it
    and `parts` share.
    """
    model = cfg.model
    a = model.attention
    seq_len = 8 * parts
    prefix, first = model.dense_prefix, 0
    turns, rest = divmod(model.num_layers, len(a.pattern))
    if prefix is not None:
        turns -= prefix.num_layers // len(a.pattern)
        first = len(a.pattern)
        prefix_mlp = dataclasses.replace(prefix.mlp, dim=16 * parts)
        prefix = dataclasses.replace(prefix, num_layers=first, mlp=prefix_mlp)
    # Deep enough for a pipeline over all devices, or two turns of a long pattern.
    turns = max(2, parts // len(a.pattern)) if turns > 1 else turns
    repeats = min(model.pipeline.repeats, 2) if turns % 2 == 0 else 1
    position = model.position
    if isinstance(position, LearnedPositionConfig):
        position = dataclasses.replace(position, max_tokens=seq_len)
    optimizer = cfg.optim.optimizer
    if isinstance(optimizer, AdamWConfig):
        # Else Adam lifts a gradient of pure rounding noise to full size.
        optimizer = dataclasses.replace(optimizer, eps=1e-5)
    mlp = dataclasses.replace(model.mlp, dim=16 * parts)
    if isinstance(mlp, MoeConfig):
        groups = min(mlp.num_groups, 4)
        mlp = dataclasses.replace(
            mlp,
            num_experts=2 * parts,
            experts_per_token=min(mlp.experts_per_token, 4),
            num_shared_experts=min(mlp.num_shared_experts, 2),
            num_groups=groups,
            groups_per_token=min(mlp.groups_per_token, max(1, groups // 2)),
        )
    is_padded = model.vocab_multiple > 1
    rows = 2 * parts * math.gcd(cfg.grad_accum_steps, 2)
    return dataclasses.replace(
        cfg,
        model=dataclasses.replace(
            model,
            vocab_size=12 * parts - math.gcd(model.vocab_size, parts) % parts,
            num_layers=first + turns * len(a.pattern) + rest,
            pipeline=dataclasses.replace(model.pipeline, repeats=repeats),
            embed_dim=8 * parts,
            position=position,
            attention=_attention(a, parts),
            mlp=mlp,
            dense_prefix=prefix,
            vocab_multiple=math.gcd(model.vocab_rows, parts) if is_padded else 1,
            width_transfer=_width_transfer(model.width_transfer, parts),
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


def _width_transfer(mup: MupConfig | None, parts: int) -> MupConfig | None:
    """Of a base half as wide."""
    return mup and dataclasses.replace(
        mup,
        base_embed_dim=4 * parts,
        base_mlp_dim=mup.base_mlp_dim and 8 * parts,
        base_num_heads=None,
        base_head_dim=mup.base_head_dim and 4,
        zero_init=(),  # every term is felt
    )


def _attention(
    a: AttentionConfig | LatentAttentionConfig, parts: int
) -> AttentionConfig | LatentAttentionConfig:
    if isinstance(a, LatentAttentionConfig):
        return dataclasses.replace(
            a,
            num_heads=parts,
            q_lora_rank=a.q_lora_rank and 3 * parts,
            kv_lora_rank=2 * parts,
            qk_nope_head_dim=8,
            qk_rope_head_dim=4,
            v_head_dim=6,
            implementation="auto",
        )
    is_grouped = a.num_kv_heads != a.num_heads
    return dataclasses.replace(
        a,
        num_heads=2 * parts if is_grouped else parts,
        num_kv_heads=parts,
        head_dim=8,
        window_tokens=a.window_tokens and 2 * parts,
        query_scale=a.query_scale and 8**-0.5,
        implementation="auto",
    )
