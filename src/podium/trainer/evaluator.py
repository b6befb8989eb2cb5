# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The eval split, scored beside training: compiled when first asked for."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from podium.config import TrainConfig
from podium.input.damage import Damage
from podium.input.device import Feed, prefetch
from podium.input.groups import Groups
from podium.input.server import InputServer
from podium.input.spec import StreamSpec
from podium.trainer.evaluate import evaluate, evaluate_pairs
from podium.trainer.profile import EVALUATION
from podium.trainer.setup import Setup
from podium.trainer.state import TrainState, reference, weights
from podium.trainer.step import make_eval_step, make_pair_eval_step


class Evaluator:
    """Scores the held-out rows of one run's data."""

    def __init__(self, setup: Setup, feed: Feed, server: InputServer):
        self._setup, self._feed, self._server = setup, feed, server
        cfg = setup.cfg
        assert cfg.eval
        self._spec = StreamSpec(
            data=cfg.data,
            split="eval",
            seed=cfg.seed,
            global_batch_seqs=cfg.global_batch_seqs,
            rows=feed.rows,
            first_step=0,
            num_steps=cfg.eval.num_batches,
        )

    def run(self, state: TrainState) -> tuple[dict[str, float], list[Damage]]:
        """What a row of metrics.jsonl says, and the records that were left out."""
        cfg, feed = self._setup.cfg, self._feed
        stream = self._server.open(self._spec)
        with (
            jax.profiler.TraceAnnotation(EVALUATION),
            prefetch(stream, feed) as batches,
        ):
            if cfg.dpo is None:
                groups = self._groups
                rows = ((b, feed.put_one(groups.of_batch(i))) for i, b, _ in batches)
                found = evaluate(self._step, weights(cfg, state), rows, groups.names)
                result = found.to_metrics()
            else:
                rows = (b for _, b, _ in batches)
                result = evaluate_pairs(self._step, _pair(cfg, state), rows)
        return result, stream.take_damaged()

    @functools.cached_property
    def _groups(self) -> Groups:
        held_out = self._setup.cfg.eval
        assert held_out
        return Groups(self._spec, held_out.by, held_out.max_groups)

    @functools.cached_property
    def _step(self) -> Callable[..., Any]:
        cfg, model, rules = self._setup.cfg, self._setup.model, self._setup.rules
        shardings = self._setup.layout.shardings
        if cfg.dpo is not None:
            return make_pair_eval_step(cfg, model, rules, _pair(cfg, shardings))
        num_groups = len(self._groups.names)
        return make_eval_step(cfg, model, rules, weights(cfg, shardings), num_groups)


def _pair(cfg: TrainConfig, state: TrainState) -> tuple[Any, Any]:
    """What is trained and what it is measured against, of a state or of shardings."""
    return weights(cfg, state), reference(cfg, state)
