# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""DeepSeek-V3 on v5p-2048 (1,024 chips), 4,194,304 tokens a step.

Planned: 22.5 of 95.74 GiB a chip, a step of at least 7.07 s,
580 tokens/s a chip, 31.6% MFU.

Experts take 1.25 times their even share of a row's tokens (`dispatch.kind=capacity`), so
that the eight devices of an expert group exchange slots; without a limit each of them
would hold the tokens of all. DeepSeek-V3 itself was trained without a limit.

python -m profiling.plan --config=configs/deepseek_v3_v5p_2048.py --topology=v5p-2048
"""

import dataclasses

from configs import families
from podium.config import TrainConfig
from podium.config_dict import to_config_dict
from podium.config_model import CapacityConfig


def get_config():
    model = families.deepseek_v3()
    experts = dataclasses.replace(model.mlp, dispatch=CapacityConfig(factor=1.25))
    model = dataclasses.replace(model, mlp=experts, remat="full")
    cfg = to_config_dict(TrainConfig(global_batch_seqs=1024, model=model))
    cfg.num_steps = 1_000_000
    cfg.data.seq_len = 4096
    cfg.mesh.fsdp = 128
    cfg.mesh.expert = 8
    cfg.sharding.latent = ("fsdp",)  # 512 latents do not divide by fsdp x expert
    cfg.optim.peak_lr = 2.2e-4
    cfg.optim.schedule.warmup_steps = 2000
    cfg.checkpoint.every_steps = 500
    return cfg
