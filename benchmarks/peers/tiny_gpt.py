# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The task of serve.py as a Podium config file: a GPT-2 of 10.8 M parameters on bytes.

python -m podium.train --config=benchmarks/peers/tiny_gpt.py \\
    --config.data.paths=D --workdir=runs/tiny     (D from podium.prepare, bytes)
"""

from podium import config, config_model, config_positions
from podium.config_dict import to_config_dict

LOOPS = {
    "scan_dots": {"layer_loop": "scan", "remat": "dots"},
    "scan_remat": {"layer_loop": "scan", "remat": "full"},
    "scan": {"layer_loop": "scan", "remat": "none"},
    "unroll": {"layer_loop": "unroll", "remat": "none"},
}


def train_config(variant: str = "scan_dots", dtype: str = "float32"):
    attention = config_model.AttentionConfig(
        num_heads=6, num_kv_heads=6, head_dim=64, use_qkv_bias=True, use_out_bias=True
    )
    model = config_model.ModelConfig(
        vocab_size=256,
        num_layers=6,
        embed_dim=384,
        position=config_positions.LearnedPositionConfig(max_tokens=256),
        norm=config_model.LayerNormConfig(),
        attention=attention,
        mlp=config_model.MlpConfig(kind="gelu", dim=1536, use_bias=True),
        dtype=dtype,  # type: ignore[arg-type]
        **LOOPS[variant],  # type: ignore[arg-type]
    )
    return config.TrainConfig(
        global_batch_seqs=12,
        num_steps=1_000_000,
        model=model,
        data=config.DataConfig(seq_len=256),
        optim=config.OptimConfig(
            optimizer=config.AdamWConfig(b2=0.999),
            peak_lr=1e-3,
            schedule=config.ScheduleConfig(kind="constant", warmup_steps=0),
            weight_decay=1e-4,  # these two are optax.adamw's defaults
            clip_norm=1.0,
        ),
        eval=None,
    )


def get_config():
    return to_config_dict(train_config())
