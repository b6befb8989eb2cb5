# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 8B on rows of 131,072 tokens, v5p-128 (64 chips), 1,048,576 tokens a step.

Planned: 51.9 of 95.74 GiB a chip, a step of at least 8.73 s,
1,876 tokens/s a chip, 60.5% MFU.

Eight devices share a row in a ring of splash kernels. The plan takes kernels at 100% of
peak, and here they are 5.5 of its seconds: at half of peak the step takes as much longer.
Attention's output is kept, so that the ring does not go round again for the backward pass.

python -m profiling.plan --config=configs/llama3_8b_128k_v5p_128.py --topology=v5p-128
"""

import dataclasses

from configs import families
from podium.config import TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    model = dataclasses.replace(families.llama_3_1_8b(), remat="dots,attention_out")
    cfg = to_config_dict(TrainConfig(global_batch_seqs=8, model=model))
    cfg.num_steps = 10_000
    cfg.data.seq_len = 131_072
    cfg.mesh.fsdp = 8
    cfg.mesh.context = 8
    cfg.optim.peak_lr = 1e-4
    cfg.optim.schedule.warmup_steps = 500
    cfg.checkpoint.every_steps = 200
    return cfg
