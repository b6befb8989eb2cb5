# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Learning rate, its decay and the batch of the quickstart, shortened: some minutes.

python -m launch.sweep --config=configs/quickstart.py --workdir=sweeps/quickstart \\
    --sweep=configs/sweeps/quickstart.py --config.num_steps=60 \\
    --config.eval.every_steps=20
"""

from podium.config_sweep import Choice, Range, SweepConfig


def get_sweep() -> SweepConfig:
    return SweepConfig(
        space={
            "optim.peak_lr": Range(5e-4, 2e-2, scale="log"),
            "optim.weight_decay": Choice((0.0, 0.1)),
            "global_batch_seqs": Choice((4, 8)),
        },
        num_trials=12,
        parallel=2,
    )
