# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The compiled parts of generation: weights as decoding wants them, prefill, a loop.

Every program is compiled ahead for its shapes, so that what is timed is never a
compilation, and kept for as long as the process lives.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from podium.config_model import ModelConfig
from podium.models.bind import Params, abstract, bind
from podium.models.layer_stack import apart, layer_stacks, stack_axes
from podium.models.transformer import CACHE, KVCache
from podium.sampling import Sampling
from podium.sharding.constrain import use_rules
from podium.sharding.rules import ShardingRules

FINISHED = -1  # stands for a token of a row that has met its end
CHUNK = 64  # tokens; the most that one call of the loop draws


class Decoding(NamedTuple):
    """Where a batch stands. All but the cache are the same on every device."""

    token_B: Array  # drawn last; not in the cache yet
    position_B: Array  # its place in the row
    is_done_B: Array  # the row has met its end
    key_B: Array  # of the row's draws
    cache: KVCache


def weights_apart(cfg: ModelConfig, params: Params, rules: ShardingRules) -> Params:
    """Weights as decoding reads them, every layer's in arrays of its own.

    In the type they are cast to where they are used, once and not every step: half the
    bytes to read. The scales of norms stay as they are, since norms compute in float32.
    Leaves of stacks are tuples, see `layer_stack.apart`.
    """

    def take(params: Params) -> Params:
        cast = jax.tree_util.tree_map_with_path(
            lambda path, w: w if path[-1].key == "scale" else w.astype(cfg.dtype),
            params,
        )
        for name in layer_stacks(cfg):
            layers = apart(cast[name], stack_axes(cfg, name))
            cast[name] = jax.tree.map(lambda *each: each, *layers)
        return cast

    layout = jax.tree.map(lambda w: w.sharding, weights_layout(cfg, rules))
    return jax.jit(take, out_shardings=layout)(params)


@functools.lru_cache(64)
def prefill_program(
    cfg: ModelConfig,
    rules: ShardingRules,
    sampling: Sampling,
    shape: tuple[int, int, int],
    num_ends: int,
) -> Callable[..., Decoding]:
    """(weights, tokens, positions, draws, is_done, seed, ends) -> the first tokens.

    `shape` is rows, tokens of the padded prompts, and slots of the cache. A row's keys
    come from the seed and its number among the draws.
    """
    B, T, S = shape

    def prefill(
        weights: Params,
        tokens_BT: Array,
        positions_BT: Array,
        draw_B: Array,
        is_done_B: Array,
        seed: Array,
        end_E: Array,
    ) -> Decoding:
        key_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), draw_B)
        with use_rules(rules):
            model = bind(abstract(cfg).graphdef, weights)
            hidden_BTD, cache = model.decode(
                tokens_BT, positions_BT, model.init_cache(B, S), is_first=True
            )
            logits_BV = model.logits(hidden_BTD[:, -1])
        position_B = positions_BT[:, -1] + 1
        token_B = draw(logits_BV, _fold(key_B, position_B), sampling)
        is_done_B |= jnp.isin(token_B, end_E)
        return Decoding(token_B, position_B, is_done_B, key_B, cache)

    rows = _replicated(rules, (B, T), jnp.int32)
    after = state_layout(cfg, rules, B, S)
    made = jax.jit(prefill, out_shardings=jax.tree.map(_sharding, after))
    return made.lower(
        weights_layout(cfg, rules),
        rows,
        rows,
        _replicated(rules, (B,), jnp.uint32),
        after.is_done_B,
        _replicated(rules, (), jnp.uint32),
        _replicated(rules, (num_ends,), jnp.int32),
    ).compile()


@functools.lru_cache(64)
def decode_program(
    cfg: ModelConfig,
    rules: ShardingRules,
    sampling: Sampling,
    shape: tuple[int, int],
    num_ends: int,
) -> Callable[..., tuple[Decoding, Array]]:
    """(weights, state, limit, ends) -> (state, tokens [B, CHUNK]); the state is donated.

    Draws `limit` tokens a row, fewer if all rows meet their ends. `shape` is rows and
    slots of the cache.
    """
    B, S = shape

    def decode(
        weights: Params, state: Decoding, limit: Array, end_E: Array
    ) -> tuple[Decoding, Array]:
        model = bind(abstract(cfg).graphdef, weights)

        def is_wanted(carry: tuple[Array, Decoding, Array]) -> Array:
            i, state, _ = carry
            return (i < limit) & ~jnp.all(state.is_done_B)

        def step(carry: tuple[Array, Decoding, Array]) -> Any:
            i, (token_B, position_B, is_done_B, key_B, cache), drawn_BC = carry
            hidden_B1D, cache = model.decode(
                token_B[:, None], position_B[:, None], cache
            )
            logits_BV = model.logits(hidden_B1D[:, 0])
            position_B = position_B + 1
            token_B = draw(logits_BV, _fold(key_B, position_B), sampling)
            shown_B1 = jnp.where(is_done_B, FINISHED, token_B)[:, None]
            drawn_BC = jax.lax.dynamic_update_slice(drawn_BC, shown_B1, (0, i))
            is_done_B |= jnp.isin(token_B, end_E)
            state = Decoding(token_B, position_B, is_done_B, key_B, cache)
            return i + 1, state, drawn_BC

        none_BC = jnp.full((B, CHUNK), FINISHED, jnp.int32)
        with use_rules(rules):
            start = (jnp.zeros((), jnp.int32), state, none_BC)
            _, state, drawn_BC = jax.lax.while_loop(is_wanted, step, start)
        return state, drawn_BC

    state = state_layout(cfg, rules, B, S)
    drawn_BC = _replicated(rules, (B, CHUNK), jnp.int32)
    made = jax.jit(
        decode,
        donate_argnums=1,
        out_shardings=jax.tree.map(_sharding, (state, drawn_BC)),
    )
    limit = _replicated(rules, (), jnp.int32)
    ends = _replicated(rules, (num_ends,), jnp.int32)
    return made.lower(weights_layout(cfg, rules), state, limit, ends).compile()


@functools.lru_cache(64)
def grow_program(
    cfg: ModelConfig, rules: ShardingRules, B: int, old_slots: int, slots: int
) -> Callable[[Decoding], Decoding]:
    """State -> the same with more slots in its cache."""

    def more(x: Array, fill: int) -> Array:
        rest = [(0, 0)] * (x.ndim - 2)
        pads = [(0, 0), (0, slots - old_slots), *rest]
        return jnp.pad(x, pads, constant_values=fill)

    def grow(state: Decoding) -> Decoding:
        blocks, positions_BS, length = state.cache
        blocks = jax.tree.map(lambda x: more(x, 0), blocks)
        cache = KVCache(blocks, more(positions_BS, -1), length)
        return state._replace(cache=cache)

    old, new = (state_layout(cfg, rules, B, size) for size in (old_slots, slots))
    return (
        jax.jit(grow, out_shardings=jax.tree.map(_sharding, new)).lower(old).compile()
    )


def draw(logits_BV: Array, key_B: Array, sampling: Sampling) -> Array:
    """One token per row, int32 [B], each by a key of its own."""
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
    return jax.vmap(jax.random.categorical)(key_B, logits_BV).astype(jnp.int32)


def _fold(key_B: Array, position_B: Array) -> Array:
    """Keys of the token at a position: padding and other rows do not matter."""
    return jax.vmap(jax.random.fold_in)(key_B, position_B)


def _sharding(x: jax.ShapeDtypeStruct) -> Any:
    return x.sharding


def _replicated(rules: ShardingRules, shape: tuple[int, ...], dtype: Any) -> Any:
    everywhere = NamedSharding(rules.mesh, P())
    return jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)


@functools.lru_cache(16)
def weights_layout(cfg: ModelConfig, rules: ShardingRules) -> Params:
    """Shapes, types and shardings of `weights_apart`."""
    model = abstract(cfg)

    def leaf(part: str, num_lead: int, path: Any, shape: Any, axes: tuple) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        name = f"params/{part}/{name}" if name else f"params/{part}"
        dims, axes = shape.shape[num_lead:], axes[num_lead:]
        is_scale = bool(path) and path[-1].key == "scale"
        dtype = shape.dtype if is_scale else cfg.dtype
        where = rules.sharding(axes, dims, name)
        return jax.ShapeDtypeStruct(dims, dtype, sharding=where)

    stacks, out = layer_stacks(cfg), {}
    for name, shapes in model.shapes.items():
        lead = stack_axes(cfg, name) if name in stacks else {}
        out[name] = jax.tree_util.tree_map_with_path(
            functools.partial(leaf, name, len(lead)),
            shapes,
            model.axes[name],
            is_leaf=lambda x: isinstance(x, jax.ShapeDtypeStruct),
        )
        if name in stacks:
            num = math.prod(lead.values())
            out[name] = jax.tree.map(lambda x, num=num: (x,) * num, out[name])
    return out


@functools.lru_cache(16)
def state_layout(cfg: ModelConfig, rules: ShardingRules, B: int, S: int) -> Decoding:
    """Shapes, types and shardings of a `Decoding`."""

    def kept(axes: tuple, dims: tuple[int, ...]) -> Any:
        shape = (B, S, *dims)
        where = rules.sharding((*CACHE, *axes), shape, "cache")
        return jax.ShapeDtypeStruct(shape, cfg.dtype, sharding=where)

    a_layer = tuple(kept(c.axes, c.dims) for c in cfg.attention.cached)
    blocks = {
        name: [{f"block_{i}": a_layer for i in range(len(pattern))}] * repeats
        for name, (pattern, repeats) in layer_stacks(cfg).items()
    }
    slots: Any = jax.ShapeDtypeStruct(
        (B, S), jnp.int32, sharding=rules.sharding(CACHE, (B, S), "cache")
    )
    number = _replicated(rules, (B,), jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), B))
    return Decoding(
        number,
        number,
        _replicated(rules, (B,), jnp.bool_),
        _replicated(rules, (B,), keys.dtype),
        KVCache(blocks, slots, _replicated(rules, (), jnp.int32)),
    )
