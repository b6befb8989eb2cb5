# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Mixtral 8x7B on v5p-128 (64 chips), 1,048,576 tokens a step.

Planned: 22.8 of 95.74 GiB a chip, a step of at least 4.30 s,
3,808 tokens/s a chip, 66.1% MFU.

python -m profiling.plan --config=configs/mixtral_8x7b_v5p_128.py --topology=v5p-128
"""

import dataclasses

from configs import families
from podium.config import TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    model = dataclasses.replace(families.mixtral_8x7b(), remat="full")
    cfg = to_config_dict(TrainConfig(global_batch_seqs=256, model=model))
    cfg.num_steps = 1_000_000
    cfg.data.seq_len = 4096
    cfg.mesh.fsdp = 64
    cfg.optim.peak_lr = 2e-4
    cfg.optim.schedule.warmup_steps = 2000
    cfg.checkpoint.every_steps = 500
    return cfg
