# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The dense 102B of dense_100b_v4_256.py on 4 slices of v5e-256, 2,097,152 tokens a step.

Planned: 13.9 of 15.75 GiB a chip, a step of at least 9.59 s,
214 tokens/s a chip, 66.9% MFU.

python -m profiling.plan --config=configs/dense_100b_v5e_256x4.py --topology=v5e-256x4
"""

from configs import dense_100b_v4_256


def get_config():
    cfg = dense_100b_v4_256.get_config()
    cfg.global_batch_seqs = 1024
    cfg.grad_accum_steps = 1
    cfg.mesh.data = 4  # the slices
    cfg.mesh.fsdp = 256
    cfg.num_steps = 1_000_000
    return cfg
