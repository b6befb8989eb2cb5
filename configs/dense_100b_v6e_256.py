# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The dense 102B of dense_100b_v4_256.py on v6e-256 (256 chips), 1,048,576 tokens a step.

Planned: 16.9 of 31.25 GiB a chip, a step of at least 4.91 s,
834 tokens/s a chip, 56.1% MFU.

python -m profiling.plan --config=configs/dense_100b_v6e_256.py --topology=v6e-256
"""

from configs import dense_100b_v4_256


def get_config():
    cfg = dense_100b_v4_256.get_config()
    cfg.grad_accum_steps = 1
    cfg.mesh.fsdp = 256
    return cfg
