# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A dense 102B transformer on v4-256 (128 chips), 1,048,576 tokens a step.

Planned: 26.9 of 30.75 GiB a chip, a step of at least 28.34 s,
289 tokens/s a chip, 64.9% MFU.

python -m profiling.plan --config=configs/dense_100b_v4_256.py --topology=v4-256
"""

from podium.config import TrainConfig
from podium.config_dict import to_config_dict
from podium.config_model import AttentionConfig, MlpConfig, ModelConfig


def get_config():
    cfg = to_config_dict(
        TrainConfig(
            global_batch_seqs=512,
            model=ModelConfig(
                vocab_size=50_304,
                num_layers=80,
                embed_dim=10_240,
                attention=AttentionConfig(num_heads=80, num_kv_heads=80, head_dim=128),
                mlp=MlpConfig(kind="gelu", dim=40_960),
                tie_embeddings=False,
                remat="full",
            ),
        )
    )
    cfg.num_steps = 2_000_000
    cfg.grad_accum_steps = 2
    cfg.data.seq_len = 2048
    cfg.mesh.fsdp = 128
    cfg.optim.peak_lr = 1e-4
    cfg.optim.schedule.warmup_steps = 2000
    cfg.checkpoint.every_steps = 500
    return cfg
