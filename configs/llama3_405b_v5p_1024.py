# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 405B on v5p-1024 (512 chips), 8,388,608 tokens a step.

Planned: 88.5 of 95.74 GiB a chip, a step of at least 125.70 s,
130 tokens/s a chip, 71.7% MFU.

python -m profiling.plan --config=configs/llama3_405b_v5p_1024.py --topology=v5p-1024
"""

import dataclasses

from configs import families
from podium.config import TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    model = dataclasses.replace(families.llama_3_1_405b(), remat="full")
    cfg = to_config_dict(TrainConfig(global_batch_seqs=1024, model=model))
    cfg.num_steps = 500_000
    cfg.data.seq_len = 8192
    cfg.mesh.fsdp = 512
    cfg.optim.peak_lr = 8e-5
    cfg.optim.schedule.warmup_steps = 2000
    cfg.checkpoint.every_steps = 500
    return cfg
