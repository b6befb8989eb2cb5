# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A model of a few thousand parameters and the batches it is tried on."""

import dataclasses
import math

import jax
import numpy as np

from podium.config import (
    DataConfig,
    LossConfig,
    MeshConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)
from podium.config_model import AttentionConfig, MlpConfig, ModelConfig
from podium.input.batch import Batch
from podium.trainer.reference import with_itself
from podium.trainer.setup import Setup, setup
from podium.trainer.state import TrainState, init_state
from podium.trainer.step import batch_sharding

MODEL = ModelConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=32,
    dtype="float32",
    attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8),
    mlp=MlpConfig(dim=64),
)
ONE_DEVICE = MeshConfig(data=1, fsdp=1, tensor=1)
EIGHT = MeshConfig(data=2, fsdp=2, tensor=2)


def config(mesh: MeshConfig = ONE_DEVICE, **changes) -> TrainConfig:
    base = TrainConfig(
        model=MODEL,
        mesh=mesh,
        num_steps=100,
        global_batch_seqs=16,
        data=DataConfig(seq_len=16),
        loss=LossConfig(z_loss=1e-4),
        optim=OptimConfig(peak_lr=1e-2, schedule=ScheduleConfig(warmup_steps=2)),
    )
    return dataclasses.replace(base, **changes)


def batch(seed: int, B: int = 16, T: int = 16) -> Batch:
    """Packed rows: two documents each, uneven padding, borders unscored."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 64, (B, T + 1), dtype=np.int32)
    border, end = rng.integers(2, T // 2, B), rng.integers(T // 2, T + 1, B)
    at = np.arange(T)
    segment_ids = np.where(at < border[:, None], 1, 2) * (at < end[:, None])
    positions = np.where(at < border[:, None], at, at - border[:, None])
    is_last = (at == border[:, None] - 1) | (at == end[:, None] - 1)
    targets = np.where((segment_ids > 0) & ~is_last, tokens[:, 1:], -1)
    fields = (tokens[:, :-1], targets, segment_ids, positions)
    return Batch(*(np.ascontiguousarray(f, np.int32) for f in fields))


def start(cfg: TrainConfig) -> tuple[Setup, TrainState]:
    size = math.prod(cfg.mesh.sizes().values())
    parts = setup(cfg, jax.devices()[:size])
    state = init_state(cfg.model, cfg.seed, parts.optimizer, parts.layout, cfg.lora)
    return parts, with_itself(state, cfg, parts.layout)


def train(cfg: TrainConfig, steps: int) -> tuple[list[dict[str, float]], TrainState]:
    parts, state = start(cfg)
    step, rows = parts.compile_step(), []  # as podium.train does
    for i in range(steps):
        on_devices = jax.device_put(batch(i), batch_sharding(parts.rules))
        state, metrics = step(state, on_devices)
        rows.append({k: float(v) for k, v in metrics.items() if v.ndim == 0})
    return rows, state
