# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Podium's own step, built through the library as `podium.train` builds it.

Environment: Podium's own.  python benchmarks/peers/podium_step.py --steps=10
"""

import time

_start = time.perf_counter()
import jax

from podium import config
from podium.input.batch import Batch
from podium.trainer.setup import setup
from podium.trainer.state import init_state
from podium.trainer.step import batch_sharding

_import_secs = time.perf_counter() - _start
import numpy as np
import serve
from serve import CLIP_NORM, INIT_STD, LEARNING_RATE, B, D, F, H, L, N, T, V

VARIANTS = {
    "unroll": {"layer_loop": "unroll", "remat": "none"},
    "scan": {"layer_loop": "scan", "remat": "none"},
    "scan_remat": {"layer_loop": "scan", "remat": "full"},
}


def train_config(variant: str, dtype: str) -> config.TrainConfig:
    model = config.ModelConfig(
        vocab_size=V,
        num_layers=L,
        embed_dim=D,
        position=config.LearnedPositionConfig(max_tokens=T),
        norm=config.LayerNormConfig(),
        attention=config.AttentionConfig(
            num_heads=N,
            num_kv_heads=N,
            head_dim=H,
            use_qkv_bias=True,
            use_out_bias=True,
        ),
        mlp=config.MlpConfig(kind="gelu", dim=F, use_bias=True),
        init_std=INIT_STD,
        dtype=dtype,
        **VARIANTS[variant],
    )
    return config.TrainConfig(
        global_batch_seqs=B,
        num_steps=1_000_000,
        model=model,
        data=config.DataConfig(seq_len=T),
        optim=config.OptimConfig(
            peak_lr=LEARNING_RATE,
            schedule=config.ScheduleConfig(kind="constant", warmup_steps=0),
            weight_decay=1e-4,  # optax.adamw's default, which the other peers use
            clip_norm=CLIP_NORM,
        ),
    )


def main():
    args = serve.arguments(list(VARIANTS), __doc__)
    parts = setup(train_config(args.variant, args.dtype))
    state = init_state(parts.cfg.model, 0, parts.optimizer, parts.layout)
    sharding = batch_sharding(parts.rules)
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    positions = np.tile(np.arange(T, dtype=np.int32), (B, 1))
    segments = np.ones((B, T), np.int32)

    def step(tokens, targets):
        nonlocal state
        batch = Batch(tokens, targets, segments, positions)
        state, metrics = parts.train_step(state, jax.device_put(batch, sharding))
        return float(metrics["loss"])

    serve.serve(
        args,
        step,
        {"jax": jax.__version__},
        import_secs=_import_secs,
        num_params=num_params,
    )


if __name__ == "__main__":
    main()
