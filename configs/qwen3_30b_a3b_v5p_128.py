# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Qwen 3 30B-A3B on v5p-128 (64 chips), 1,048,576 tokens a step.

Planned: 14.6 of 95.74 GiB a chip, a step of at least 1.77 s,
9,281 tokens/s a chip, 46.7% MFU.

python -m profiling.plan --config=configs/qwen3_30b_a3b_v5p_128.py --topology=v5p-128
"""

import dataclasses

from configs import families
from podium.config import TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    model = dataclasses.replace(families.qwen_3_30b_a3b(), remat="full")
    cfg = to_config_dict(TrainConfig(global_batch_seqs=256, model=model))
    cfg.num_steps = 1_000_000
    cfg.data.seq_len = 4096
    cfg.mesh.fsdp = 64
    cfg.optim.peak_lr = 2e-4
    cfg.optim.schedule.warmup_steps = 2000
    cfg.checkpoint.every_steps = 500
    return cfg
