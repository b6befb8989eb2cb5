# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Batched generation with a KV cache, on one device or on a mesh.

Prompts of different lengths share a batch: shorter ones are padded in front, so that
every row's last prompt token stands in the last column, and the padding is invisible.
A row's tokens are those of the row alone: draws go by the seed, the prompt, how many
equal prompts came before it, and the token's place in the row.
"""

import collections
import dataclasses
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from podium.config_model import ModelConfig
from podium.config_positions import LearnedPositionConfig
from podium.decoding import (
    CHUNK,
    FINISHED,
    Decoding,
    decode_program,
    grow_program,
    prefill_program,
    weights_apart,
)
from podium.errors import ConfigError
from podium.models.bind import Params
from podium.sampling import Sampling, check_num_tokens
from podium.serving_mesh import one_device
from podium.sharding.rules import ShardingRules

_LOOK_EVERY = 16  # tokens, after which rows are asked whether they are done
BUCKET = 64  # tokens; prompts and caches of similar length share a program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """What a batch took, compilation aside; padding is no token."""

    prompt_tokens: int
    prefill_secs: float  # to the first new token of every row
    new_tokens: int  # after the first of every row
    decode_secs: float

    @property
    def prefill_tokens_per_sec(self) -> float:
        """Prompt tokens of all rows."""
        return self.prompt_tokens / self.prefill_secs

    @property
    def decode_tokens_per_sec(self) -> float | None:
        """New tokens of all rows; None where the first ones were all."""
        return self.new_tokens / self.decode_secs if self.new_tokens else None

    def __str__(self) -> str:
        text = f"{self.prompt_tokens} tokens in, {self.prefill_tokens_per_sec:,.1f} /s"
        if rate := self.decode_tokens_per_sec:
            text += f"; {self.new_tokens} more out, {rate:,.1f} /s"
        return text

    def to_json(self) -> dict[str, float | None]:
        """Of the batch that a prompt was in."""
        return {
            "prefill_tokens_per_sec": self.prefill_tokens_per_sec,
            "decode_tokens_per_sec": self.decode_tokens_per_sec,
        }


class Generator:
    """A model ready to generate: its weights cast, layer by layer, on their mesh."""

    def __init__(
        self, cfg: ModelConfig, params: Params, rules: ShardingRules | None = None
    ):
        """`rules` as `serving_rules` makes them; None: one device."""
        self.cfg, self.rules = cfg, rules or one_device()
        self._weights = weights_apart(cfg, params, self.rules)
        self.speed: Speed | None = None  # of the last batch

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        end_ids: Collection[int] = (),
        draw_ids: Sequence[int] | None = None,
        is_done: Callable[[list[int]], bool] | None = None,
    ) -> list[list[int]]:
        """The new tokens of every prompt, up to and with one of `end_ids`.

        `is_done` is asked of the tokens of a row now and then: no more are made when all
        rows are done, and what a row has beyond is the caller's to cut off.
        """
        blocks: list[np.ndarray] = []
        parts = self.stream(
            prompts,
            num_tokens=num_tokens,
            sampling=sampling,
            seed=seed,
            end_ids=end_ids,
            draw_ids=draw_ids,
            most_at_once=CHUNK if is_done is None else _LOOK_EVERY,
        )
        for block in parts:
            blocks.append(block)
            if is_done is not None and all(
                is_done(row) or not set(row).isdisjoint(end_ids)
                for row in _rows(blocks)
            ):
                break
        return _rows(blocks)

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        end_ids: Collection[int] = (),
        draw_ids: Sequence[int] | None = None,
        most_at_once: int = 1,
    ) -> Iterator[np.ndarray]:
        """Yields up to `num_tokens` new tokens of every row, int32 [B, n] at a time.

        A row that drew one of `end_ids` yields it, then FINISHED; all rows finished
        ends the stream. `draw_ids` say by which draws each row goes (`draw_ids` of this
        module). Raises ConfigError for prompts that the model cannot hold.
        """
        check_prompts(self.cfg, prompts, num_tokens)
        if draw_ids is None:
            draw_ids = ids_of_draws(prompts)
        num = len(prompts)
        T = bucket(max(map(len, prompts)))
        slots = bucket(T + min(num_tokens, T + CHUNK))
        shards = self.rules.num_shards("batch")
        B = -(-num // shards) * shards
        ends = np.array(sorted(end_ids) or [FINISHED], np.int32)
        tokens_BT, positions_BT = _pad_in_front(prompts, B, T)
        draw_B = np.array([*draw_ids, *[0] * (B - num)], np.uint32)
        is_done_B = np.arange(B) >= num  # rows that only fill the batch
        shapes = (self.cfg, self.rules, sampling)
        prefill = prefill_program(*shapes, (B, T, slots), len(ends))
        decode = decode_program(*shapes, (B, slots), len(ends))
        put = self._put
        start = time.perf_counter()
        state: Decoding = prefill(
            self._weights,
            put(tokens_BT),
            put(positions_BT),
            put(draw_B),
            put(is_done_B),
            put(np.uint32(seed % 2**32)),
            put(ends),
        )
        first_B = np.asarray(state.token_B)[:num]
        prefill_secs = time.perf_counter() - start
        is_done_B = np.isin(first_B, ends)
        done, filled, new_tokens, decode_secs = 1, T, 0, 0.0
        speed = self.speed = Speed(
            prompt_tokens=sum(map(len, prompts)),
            prefill_secs=prefill_secs,
            new_tokens=0,
            decode_secs=0.0,
        )
        yield first_B[:, None]
        while done < num_tokens and not is_done_B.all():
            limit = min(most_at_once, CHUNK, num_tokens - done)
            if filled + limit > slots:
                more = bucket(min(T + num_tokens, 2 * slots))
                state = grow_program(self.cfg, self.rules, B, slots, more)(state)
                slots = more
                decode = decode_program(*shapes, (B, slots), len(ends))
            start = time.perf_counter()
            state, drawn_BC = decode(
                self._weights, state, put(np.int32(limit)), put(ends)
            )
            drawn = np.asarray(drawn_BC)[:num, :limit]
            decode_secs += time.perf_counter() - start
            drawn = drawn[:, (drawn != FINISHED).any(axis=0)]
            is_done_B |= np.isin(drawn, ends).any(axis=1)
            new_tokens += int((drawn != FINISHED).sum())
            self.speed = dataclasses.replace(
                speed, new_tokens=new_tokens, decode_secs=decode_secs
            )
            yield drawn
            done, filled = done + limit, filled + limit

    def _put(self, x: Any) -> jax.Array:
        everywhere = NamedSharding(self.rules.mesh, PartitionSpec())
        return jax.device_put(x, everywhere)


def _rows(blocks: Sequence[np.ndarray]) -> list[list[int]]:
    rows = np.concatenate(list(blocks), axis=1)
    return [[int(t) for t in row if t != FINISHED] for row in rows]


def generate(
    cfg: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    num_tokens: int,
    sampling: Sampling,
    seed: int = 0,
    end_ids: Collection[int] = (),
    rules: ShardingRules | None = None,
) -> list[list[int]]:
    """As `Generator.generate`, once."""
    return Generator(cfg, params, rules).generate(
        prompts, num_tokens=num_tokens, sampling=sampling, seed=seed, end_ids=end_ids
    )


def bucket(num_tokens: int) -> int:
    """The next length for which programs are compiled: at most an eighth more, or 64."""
    step = max(BUCKET, 2 ** (max(num_tokens - 1, 1).bit_length() - 4))
    return -(-num_tokens // step) * step


def check_prompts(
    cfg: ModelConfig, prompts: Sequence[Sequence[int]], num_tokens: int
) -> None:
    """Raises ConfigError for prompts that the model cannot hold."""
    lengths = [len(p) for p in prompts]
    if not prompts or min(lengths) == 0:
        raise ConfigError("generation needs at least one token in every prompt")
    check_num_tokens(num_tokens)
    if (highest := max(map(max, prompts))) >= cfg.vocab_size:
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


def ids_of_draws(prompts: Sequence[Sequence[int]]) -> list[int]:
    """By which draws each of the prompts goes: equal prompts by different ones, and
    every prompt by the same wherever it stands in a batch."""
    seen: collections.Counter[bytes] = collections.Counter()
    out = []
    for prompt in prompts:
        text = np.asarray(prompt, "<i4").tobytes()
        out.append(zlib.crc32(text + seen[text].to_bytes(4, "little")))
        seen[text] += 1
    return out


def _pad_in_front(
    prompts: Sequence[Sequence[int]], B: int, T: int
) -> tuple[np.ndarray, np.ndarray]:
    tokens_BT = np.zeros((B, T), np.int32)
    positions_BT = np.full((B, T), -1, np.int32)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, T - len(prompt) :] = prompt
        positions_BT[row, T - len(prompt) :] = np.arange(len(prompt))
    return tokens_BT, positions_BT
