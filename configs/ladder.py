# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Small models of many widths on the quickstart's corpus, on a CPU.

python -m profiling.ladder --config=configs/ladder.py --workdir=ladders/first \\
    --widths=32,64,96 --tokens=65536,131072,262144

Settings are those of width 64; muP carries them to the others (docs/scaling.md).
"""

import sysconfig

from podium.config import AdamWConfig, DataConfig, OptimConfig, TrainConfig
from podium.config_dict import to_config_dict
from podium.config_model import AttentionConfig, MlpConfig, ModelConfig
from podium.config_width import MupConfig


def get_config():
    model = ModelConfig(
        vocab_size=1024,
        num_layers=2,
        embed_dim=64,
        attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=16),
        mlp=MlpConfig(dim=192),
        # Near 1 / sqrt(64). At 0.02 a width of 64 learns slowly, and wider ones no better.
        init_std=0.1,
        width_transfer=MupConfig(base_embed_dim=64, base_mlp_dim=192, base_num_heads=4),
        dtype="float32",
    )
    data = DataConfig(
        text=sysconfig.get_paths()["stdlib"],
        tokenizer="bpe:1024",
        eval_fraction=0.005,
        seq_len=128,
    )
    optim = OptimConfig(optimizer=AdamWConfig(), peak_lr=1e-2)
    cfg = to_config_dict(TrainConfig(model=model, data=data, optim=optim))
    cfg.global_batch_seqs = 8
    cfg.optim.schedule.warmup_steps = 20
    cfg.checkpoint.every_steps = 500
    return cfg
