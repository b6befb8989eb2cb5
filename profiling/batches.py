# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Batches of random packed documents: no data set needed to try a layout."""

import numpy as np

from podium.config import TrainConfig
from podium.input.batch import Batch


def random_batch(cfg: TrainConfig, seed: int) -> Batch:
    """Rows of two documents each and some padding, borders where the seed says.

    int32 [B, T]; a pure function of the config's shapes and the seed.
    """
    B, T = cfg.global_batch_seqs, cfg.data.seq_len
    rng = np.random.default_rng(seed)
    tokens_BT1 = rng.integers(0, cfg.model.vocab_size, (B, T + 1), dtype=np.int32)
    border_B1 = rng.integers(1, T // 2, (B, 1))
    end_B1 = rng.integers(T // 2, T + 1, (B, 1))
    at_1T = np.arange(T)[None]
    segments_BT = np.where(at_1T < border_B1, 1, 2) * (at_1T < end_B1)
    is_last_BT = (at_1T == border_B1 - 1) | (at_1T == end_B1 - 1)
    targets_BT = np.where((segments_BT > 0) & ~is_last_BT, tokens_BT1[:, 1:], -1)
    positions_BT = np.where(at_1T < border_B1, at_1T, at_1T - border_B1)
    fields = (tokens_BT1[:, :-1], targets_BT, segments_BT, positions_BT)
    return Batch(*(np.ascontiguousarray(x, np.int32) for x in fields))
