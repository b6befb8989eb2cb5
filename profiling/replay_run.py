# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A run held at one state: steps of it are repeated, tried and taken apart."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from podium.config import TrainConfig
from podium.input.batch import Batch
from podium.input.device import Feed
from podium.input.ledger import documents_of_step
from podium.input.loader import Loader
from podium.input.spec import StreamSpec
from podium.models.adapters import bound
from podium.starts import reference_step
from podium.trainer.first_state import first_state
from podium.trainer.guard import LAYER_NORM
from podium.trainer.reference import reference_of
from podium.trainer.setup import Setup, setup
from podium.trainer.state import TrainState
from podium.trainer.step import batch_sharding, make_eval_step, step_with_gradients
from profiling.layer_stats import LayerStats, layer_stats

_SHOWN = 3  # tensors of a layer


class Replay:
    """The state after some step of a run, on this machine's devices."""

    def __init__(self, cfg: TrainConfig, workdir: Path, start: int):
        """`start` is a checkpoint, or 0 for the beginning."""
        sizes = cfg.mesh.sizes().values()
        self._devices = None if -1 in sizes else jax.devices()[: math.prod(sizes)]
        self._parts = setup(cfg, self._devices)
        self._cfg = cfg
        shape = (cfg.global_batch_seqs, cfg.data.seq_len)
        self._feed = Feed.of(batch_sharding(self._parts.rules), shape)
        self._loader = Loader(
            StreamSpec(
                data=cfg.data,
                split="train",
                seed=cfg.seed,
                global_batch_seqs=cfg.global_batch_seqs,
                rows=self._feed.rows,
            )
        )
        self._state = self._restored(workdir, start)
        self._observe = _observer(self._parts)

    def _restored(self, workdir: Path, start: int) -> TrainState:
        from podium.checkpoint import Checkpoints

        checkpoints = Checkpoints(workdir, self._cfg.checkpoint)
        try:
            state, _ = first_state(
                self._parts, workdir, start or None, checkpoints.restore
            )
        finally:
            checkpoints.close()
        if not self._cfg.has_reference:
            return state
        step = reference_step(workdir, self._cfg, is_new=False, is_first=False)
        shardings = self._parts.layout.shardings.reference
        reference = reference_of(self._cfg, shardings, step, self._parts.rules)
        return dataclasses.replace(state, reference=reference)

    def _weights(self, state: TrainState) -> Any:
        """What the model computes with, of a state or its shardings."""
        return bound(self._cfg.lora, state.params, state.frozen)

    def train(self, batch: int) -> None:
        """One step on a batch of the order."""
        self._state, _ = self._parts.train_step(self._state, self._batch(batch))

    def observe(self, batch: int) -> dict[str, Any]:
        """What a step on that batch would come to; the state stays."""
        return _scalars(self._observe(self._state, self._batch(batch)))

    def observe_in_float32(self, batch: int) -> dict[str, Any]:
        """The same, computed in float32 without quantisation."""
        model = dataclasses.replace(self._cfg.model, dtype="float32", quantization=None)
        parts = setup(dataclasses.replace(self._cfg, model=model), self._devices)
        return _scalars(_observer(parts)(self._state, self._batch(batch)))

    def layer_stats(self, batch: int) -> list[LayerStats]:
        """The activations of a batch."""
        return layer_stats(self._parts, self._weights(self._state), self._batch(batch))

    def gradient_overflow(self, batch: int) -> str | None:
        """The tensors at which the backward pass of a batch first comes to no number; it
        goes from the last layer to the first."""
        values = jax.device_get(self._observe(self._state, self._batch(batch)))
        bad = [
            (_depth(name.removeprefix(LAYER_NORM), i), name.removeprefix(LAYER_NORM), i)
            for name, norms in values.items()
            if name.startswith(LAYER_NORM)
            for i in np.flatnonzero(~np.isfinite(norms)).tolist()
        ]
        first = [(name, i) for depth, name, i in bad if depth == max(bad)[0]]
        shown = [f"{name} of layer {i}" if i else name for name, i in first[:_SHOWN]]
        return ", ".join(shown) or None

    def worst_documents(self, batch: int, num_rows: int) -> list[dict[str, Any]]:
        """Those of the rows with the highest loss, worst first; of pairs with the highest
        loss of their answers' tokens."""
        whole = self._loader.batch(batch)
        num_rows_all, T = whole.targets.shape
        eval_step = make_eval_step(
            self._cfg,
            self._parts.model,
            self._parts.rules,
            self._weights(self._parts.layout.shardings),
            num_groups=num_rows_all,
        )
        row_of = np.repeat(np.arange(num_rows_all, dtype=np.int32)[:, None], T, axis=1)
        sums = eval_step(
            self._weights(self._state),
            self._feed.put(whole),
            self._feed.put_one(row_of),
        )
        counts = np.maximum(np.asarray(sums.tokens_G), 1)
        means = np.asarray(sums.cross_entropy_G) / counts
        losses = np.where(np.isfinite(means), means, np.inf).tolist()
        worst = np.argsort(losses)[::-1][:num_rows].tolist()
        entries = documents_of_step(
            self._cfg.data,
            seed=self._cfg.seed,
            global_batch_seqs=self._cfg.global_batch_seqs,
            step=batch,
        )
        return [
            {"row_loss": losses[row], **dataclasses.asdict(entry)}
            for row in worst
            for entry in entries
            if entry.row == row
        ]

    def _batch(self, batch: int) -> Batch:
        return self._feed.put(self._loader.batch(batch))


def _depth(name: str, layer: int) -> tuple[int, int]:
    order = ("embed", "position", "prefix", "stack", "tail")
    part = name.split("/")[0]
    return (order.index(part) if part in order else len(order)), layer


def _observer(parts: Setup) -> Any:
    """The step, jitted without taking the state."""
    step = step_with_gradients(
        parts.cfg,
        parts.model,
        parts.optimizer,
        parts.schedule,
        parts.rules,
        parts.layout,
    )
    return jax.jit(lambda state, batch: step(state, batch)[1])


def _scalars(metrics: dict[str, jax.Array]) -> dict[str, Any]:
    return {k: float(v) for k, v in jax.device_get(metrics).items() if np.ndim(v) == 0}
