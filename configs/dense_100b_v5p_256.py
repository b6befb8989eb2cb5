# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The dense 102B of dense_100b_v4_256.py on v5p-256 (128 chips), 1,048,576 tokens a step.

Planned: 76.8 of 95.74 GiB a chip, a step of at least 12.95 s,
633 tokens/s a chip, 85.1% MFU.

python -m profiling.plan --config=configs/dense_100b_v5p_256.py --topology=v5p-256
"""

from configs import dense_100b_v4_256


def get_config():
    cfg = dense_100b_v4_256.get_config()
    cfg.model.remat = "dots"
    return cfg
