# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 70B on v5p-256 (128 chips), 2,097,152 tokens a step.

Planned: 34.4 of 95.74 GiB a chip, a step of at least 22.36 s,
733 tokens/s a chip, 71.7% MFU.

python -m profiling.plan --config=configs/llama3_70b_v5p_256.py --topology=v5p-256
"""

import dataclasses

from configs import families
from podium.config import TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    model = dataclasses.replace(families.llama_3_1_70b(), remat="full")
    cfg = to_config_dict(TrainConfig(global_batch_seqs=256, model=model))
    cfg.num_steps = 500_000
    cfg.data.seq_len = 8192
    cfg.mesh.fsdp = 128
    cfg.optim.peak_lr = 1.5e-4
    cfg.optim.schedule.warmup_steps = 2000
    cfg.checkpoint.every_steps = 500
    return cfg
