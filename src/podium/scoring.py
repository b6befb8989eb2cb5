# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of given tokens: many texts at a time, on any mesh.

The forward pass of training, one text a row, padded behind. Texts go longest first, in
batches of one size and lengths in steps, so that few programs are compiled.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from podium.config import LossConfig
from podium.config_model import ModelConfig
from podium.errors import ConfigError
from podium.generate import bucket
from podium.input.batch import PADDING, Batch
from podium.models import bind
from podium.models.bind import Params
from podium.sharding.constrain import shard, use_rules
from podium.sharding.rules import ShardingRules
from podium.trainer.loss import lse_and_label, over_chunks
from podium.trainer.state import param_layout
from podium.trainer.step import batch_sharding, run_blocks


class Text(NamedTuple):
    """Tokens, of which the last `num_scored` are scored: at least one is before them."""

    tokens: Sequence[int]
    num_scored: int


class Score(NamedTuple):
    """Of the scored tokens of a text."""

    logprob: float  # sum, in nats
    is_greedy: bool  # each was the most likely one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _RowSums:
    logprob_B: Any  # float32
    misses_B: Any  # int32, scored tokens that were not the most likely ones


class Scorer:
    """A model ready to score texts, on the mesh where its weights lie."""

    def __init__(
        self,
        model: ModelConfig,
        params: Params,
        rules: ShardingRules,
        *,
        loss: LossConfig,
        batch_seqs: int,
    ):
        """`params` lie as `rules` say; `batch_seqs` texts are scored at once."""
        self._vocab_size, self._params, self._rules = model.vocab_size, params, rules
        shards = rules.num_shards("batch")
        self._batch_seqs = -(-batch_seqs // shards) * shards
        self._rows = batch_sharding(rules)
        self._program = _program(model, rules, loss)

    def score(self, texts: Sequence[Text]) -> list[Score]:
        """The scores in the order of the texts. Raises ConfigError for foreign tokens."""
        for text in texts:
            if max(text.tokens) >= self._vocab_size:
                raise ConfigError(
                    f"a text holds token {max(text.tokens)}, but the model has "
                    f"vocab_size={self._vocab_size}: is this its tokenizer?"
                )
        scores: list[Score | None] = [None] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i].tokens))
        under_way: tuple[list[int], _RowSums] | None = None
        for at in range(0, len(order), self._batch_seqs):
            part = order[at : at + self._batch_seqs]
            batch = self._pad_behind([texts[i] for i in part])
            done = under_way
            on_devices = jax.device_put(batch, self._rows)
            under_way = part, self._program(self._params, on_devices)
            if done is not None:  # read while the next batch is computed
                _take(scores, *done)
        if under_way is not None:
            _take(scores, *under_way)
        return [score for score in scores if score is not None]

    def _pad_behind(self, texts: Sequence[Text]) -> Batch:
        T = bucket(max(len(text.tokens) for text in texts) - 1)
        shape = (self._batch_seqs, T)
        out = Batch(*(np.full(shape, fill, np.int32) for fill in PADDING))
        for row, (tokens, num_scored) in enumerate(texts):
            n = len(tokens) - 1
            out.tokens[row, :n] = tokens[:-1]
            out.segment_ids[row, :n] = 1
            out.positions[row, :n] = np.arange(n)
            out.targets[row, n - num_scored : n] = tokens[len(tokens) - num_scored :]
        return out


def _take(scores: list[Score | None], texts: list[int], sums: _RowSums) -> None:
    logprobs, misses = np.asarray(sums.logprob_B), np.asarray(sums.misses_B)
    for row, i in enumerate(texts):
        scores[i] = Score(float(logprobs[row]), misses[row] == 0)


@functools.lru_cache(8)
def _program(model: ModelConfig, rules: ShardingRules, loss: LossConfig) -> Any:
    """The jitted (params, batch) -> sums of every row, the same on all devices."""
    parts = bind.abstract(model)

    def score(params: Params, batch: Batch) -> _RowSums:
        def chunk_sums(hidden_BCD: Array, targets_BC: Array) -> _RowSums:
            logits_BCV = shard(run.net.logits(hidden_BCD), "batch", "length", "vocab")
            lse_BC, label_BC = lse_and_label(logits_BCV, targets_BC)
            scored_BC = targets_BC >= 0
            is_miss_BC = scored_BC & (jnp.argmax(logits_BCV, axis=-1) != targets_BC)
            logprob_B = jnp.sum(jnp.where(scored_BC, label_BC - lse_BC, 0.0), axis=1)
            return _RowSums(logprob_B, jnp.sum(is_miss_BC, axis=1, dtype=jnp.int32))

        with use_rules(rules):
            run = run_blocks(parts, params, batch)
            B = batch.tokens.shape[0]
            zero = _RowSums(jnp.zeros(B, jnp.float32), jnp.zeros(B, jnp.int32))
            return over_chunks(
                chunk_sums, zero, run.hidden_BTD, (run.targets_BT,), loss
            )

    return jax.jit(
        score,
        in_shardings=(param_layout(parts, rules), batch_sharding(rules)),
        out_shardings=NamedSharding(rules.mesh, P()),
    )
