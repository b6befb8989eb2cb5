# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Batched generation with a KV cache: one compiled prefill, one compiled decode step.

Prompts of different lengths share a batch: shorter ones are padded in front, so that
every row's last prompt token stands in the last column, and the padding is invisible.
"""

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from podium.config_model import ModelConfig
from podium.config_positions import LearnedPositionConfig
from podium.errors import ConfigError
from podium.models.bind import Params, abstract, bind
from podium.models.transformer import KVCache
from podium.sampling import Sampling, check_num_tokens

FINISHED = -1  # stands for a token of a row that has met its end
PROMPT_BUCKET = 64  # tokens; prompts of similar length share a compiled prefill


def stream(
    cfg: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    num_tokens: int,
    sampling: Sampling,
    seed: int = 0,
    end_ids: Collection[int] = (),
) -> Iterator[np.ndarray]:
    """Yields up to `num_tokens` times the next token of every row, int32 [B].

    A row that drew one of `end_ids` yields it, then FINISHED; all rows finished ends the
    stream. Raises ConfigError for prompts that the model cannot hold.
    """
    tokens_BT, positions_BT = _pad_in_front(cfg, prompts, num_tokens)
    params = _as_used(params, cfg.dtype)
    key = jax.random.key(seed)
    B, T = tokens_BT.shape
    token_B, position_B, cache = _prefill(
        params, tokens_BT, positions_BT, key, cfg, sampling, T + num_tokens
    )
    is_done_B = np.zeros(B, bool)
    for step in range(1, num_tokens + 1):
        drawn_B = token_B
        if step < num_tokens:  # enqueued before the host waits for the last token
            token_B, position_B, cache = _decode(
                params, token_B, position_B, cache, key, cfg, sampling
            )
        shown_B = np.where(is_done_B, FINISHED, np.asarray(drawn_B))
        yield shown_B
        is_done_B |= np.isin(shown_B, list(end_ids))
        if is_done_B.all():
            return


def generate(
    cfg: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    num_tokens: int,
    sampling: Sampling,
    seed: int = 0,
    end_ids: Collection[int] = (),
) -> list[list[int]]:
    """The new tokens of every prompt, up to and with one of `end_ids`; see `stream`."""
    steps = stream(
        cfg,
        params,
        prompts,
        num_tokens=num_tokens,
        sampling=sampling,
        seed=seed,
        end_ids=end_ids,
    )
    rows_BT = np.stack(list(steps), axis=1)
    return [[int(t) for t in row if t != FINISHED] for row in rows_BT]


def draw(logits_BV: Array, key: Array, sampling: Sampling) -> Array:
    """One token per row, int32 [B]."""
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits_BV.shape[-1]:
        kth_B1 = jax.lax.top_k(logits_BV, sampling.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= kth_B1, logits_BV, -jnp.inf)
    if sampling.top_p < 1:
        sorted_BV = -jnp.sort(-logits_BV, axis=-1)
        probs_BV = jax.nn.softmax(sorted_BV, axis=-1)
        # A token stays while the mass before it is short of top_p; the first always.
        before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
        stays_BV = jnp.where(before_BV < sampling.top_p, sorted_BV, jnp.inf)
        logits_BV = jnp.where(
            logits_BV >= jnp.min(stays_BV, axis=-1, keepdims=True), logits_BV, -jnp.inf
        )
    return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("cfg", "sampling", "max_tokens"))
def _prefill(
    params: Params,
    tokens_BT: Array,
    positions_BT: Array,
    key: Array,
    cfg: ModelConfig,
    sampling: Sampling,
    max_tokens: int,
) -> tuple[Array, Array, KVCache]:
    model = bind(abstract(cfg).graphdef, params)
    cache = model.init_cache(tokens_BT.shape[0], max_tokens)
    hidden_BTD, cache = model.decode(tokens_BT, positions_BT, cache)
    logits_BV = model.logits(hidden_BTD[:, -1])
    token_B = draw(logits_BV, jax.random.fold_in(key, cache.length), sampling)
    return token_B, positions_BT[:, -1] + 1, cache


@functools.partial(
    jax.jit, static_argnames=("cfg", "sampling"), donate_argnames="cache"
)
def _decode(
    params: Params,
    token_B: Array,
    position_B: Array,
    cache: KVCache,
    key: Array,
    cfg: ModelConfig,
    sampling: Sampling,
) -> tuple[Array, Array, KVCache]:
    model = bind(abstract(cfg).graphdef, params)
    hidden_B1D, cache = model.decode(token_B[:, None], position_B[:, None], cache)
    logits_BV = model.logits(hidden_B1D[:, 0])
    token_B = draw(logits_BV, jax.random.fold_in(key, cache.length), sampling)
    return token_B, position_B + 1, cache


def _pad_in_front(
    cfg: ModelConfig, prompts: Sequence[Sequence[int]], num_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(p) for p in prompts]
    if not prompts or min(lengths) == 0:
        raise ConfigError("generation needs at least one token in every prompt")
    check_num_tokens(num_tokens)
    highest = max(max(p) for p in prompts)
    if highest >= cfg.vocab_size:
        raise ConfigError(
            f"a prompt holds token {highest}, but the model has vocab_size="
            f"{cfg.vocab_size}: is this the tokenizer it was trained with?"
        )
    position = cfg.position
    room = position.max_tokens if isinstance(position, LearnedPositionConfig) else None
    if room is not None and max(lengths) + num_tokens > room:
        raise ConfigError(
            f"a prompt of {max(lengths)} tokens and {num_tokens} new ones are beyond "
            f"the model's learned positions ({room}); shorten one of them"
        )
    T = -(-max(lengths) // PROMPT_BUCKET) * PROMPT_BUCKET
    tokens_BT = np.zeros((len(prompts), T), np.int32)
    positions_BT = np.full((len(prompts), T), -1, np.int32)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, T - len(prompt) :] = prompt
        positions_BT[row, T - len(prompt) :] = np.arange(len(prompt))
    return tokens_BT, positions_BT


def _as_used(params: Params, dtype: str) -> Params:
    """Weights in the type they are cast to where they are used: half the bytes to read.

    The scales of norms stay as they are, since norms compute in float32.
    """

    def cast(path: tuple[Any, ...], leaf: Array) -> Array:
        return leaf if path[-1].key == "scale" else leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params)
