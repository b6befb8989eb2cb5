# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Podium's own step, built through the library as `podium.train` builds it.

Environment: Podium's own.  python benchmarks/peers/podium_step.py --steps=10
"""

import time

_start = time.perf_counter()
import jax

from podium.input.batch import Batch
from podium.trainer.setup import setup
from podium.trainer.state import init_state
from podium.trainer.step import batch_sharding

_import_secs = time.perf_counter() - _start
import numpy as np
import serve
import tiny_gpt
from serve import B, T


def main():
    args = serve.arguments(list(tiny_gpt.LOOPS), __doc__)
    parts = setup(tiny_gpt.train_config(args.variant, args.dtype))
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
