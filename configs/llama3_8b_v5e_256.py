# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 8B on v5e-256 (256 chips), 2,097,152 tokens a step.

Planned: 7.5 of 15.75 GiB a chip, a step of at least 3.33 s,
2,459 tokens/s a chip, 64.2% MFU.

python -m profiling.plan --config=configs/llama3_8b_v5e_256.py --topology=v5e-256
"""

import dataclasses

from configs import families
from podium.config import TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    model = dataclasses.replace(families.llama_3_1_8b(), remat="full")
    cfg = to_config_dict(TrainConfig(global_batch_seqs=256, model=model))
    cfg.num_steps = 500_000
    cfg.data.seq_len = 8192
    cfg.mesh.fsdp = 256
    cfg.optim.peak_lr = 3e-4
    cfg.optim.schedule.warmup_steps = 2000
    cfg.checkpoint.every_steps = 500
    return cfg
