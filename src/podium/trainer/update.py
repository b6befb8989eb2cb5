# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The update by moments that wait in the host's memory: `optim.state_memory="host"`.

Layer by layer, so that of a stack no more than two layers' moments are on the device at
once: those of the next layer arrive, and those of the last one leave, while one is
updated. The chain's first link, the clip, needs all gradients and has no moments; what
is outside of the stacks, embeddings and norms, is updated in one piece.

The chain of `make_optimizer` is elementwise, or a matter of one layer's kernel (Muon),
so the result is that of an update in one piece.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import NamedSharding

HOST = "pinned_host"


class Updatable(NamedTuple):
    """What an update changes, of all parameters, some or one layer of some."""

    params: Any
    rule_state: Any  # of the chain's second link


def update_by_layer(
    make_rule: Callable[[Callable[[Any], Any]], optax.GradientTransformation],
    grads: Any,
    old: Updatable,
    is_on_host: Any,
    stacks: tuple[str, ...],
) -> Updatable:
    """The parameters and the state after one update.

    Args:
        make_rule: (what to take of a tree of parameters' shape) -> the rule for that.
        grads: clipped, as the parameters.
        is_on_host: of every leaf of `old.rule_state`.
        stacks: names of parameters whose leaves lead with the layers.
    """
    names = tuple(old.params)
    rest = tuple(name for name in names if name not in stacks)
    done: list[Updatable] = []
    for part in (*((name,) for name in stacks), rest):

        def take(tree: Any, part: tuple[str, ...] = part) -> Any:
            return _only(tree, names, part)

        update = _in_one_piece if part is rest else _layer_by_layer
        done.append(
            update(
                make_rule(take),
                take(grads),
                Updatable(*map(take, old)),
                take(is_on_host),
            )
        )
    return Updatable(*(_join(names, list(parts)) for parts in zip(*done, strict=True)))


def is_on_host(shardings: Any) -> Any:
    """Of every leaf of a tree of shardings."""
    return jax.tree.map(lambda sh: sh.memory_kind == HOST, shardings)


def on_host(sharding: NamedSharding) -> NamedSharding:
    """The same split, in the host's memory."""
    return sharding.with_memory_kind(HOST)


def _in_one_piece(
    rule: optax.GradientTransformation, grads: Any, old: Updatable, hosted: Any
) -> Updatable:
    new = _apply(rule, grads, old._replace(rule_state=_arrive(old.rule_state, hosted)))
    return new._replace(rule_state=_leave(new.rule_state, hosted))


def _layer_by_layer(
    rule: optax.GradientTransformation, grads: Any, old: Updatable, hosted: Any
) -> Updatable:
    num, names = jax.tree.leaves(grads)[0].shape[0], set(old.params)
    # All but counts, which are the same before every layer.
    is_moment = jax.tree.map(
        lambda node: jax.tree.map(lambda _: _is_dict_of(names, node), node),
        old.rule_state,
        is_leaf=lambda node: _is_dict_of(names, node),
    )

    def layer(tree: Any, i: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, i, 1, axis=0), tree
        )

    def moments(state: Any, i: Any) -> Any:
        return _arrive(_where(is_moment, lambda x: layer(x, i), state), hosted)

    def step(i: Array, carry: tuple[Updatable, Any, Any]):
        now, here, _ = carry
        arriving = moments(now.rule_state, jnp.minimum(i + 1, num - 1))
        new = _apply(rule, layer(grads, i), Updatable(layer(now.params, i), here))
        leaving = _leave(new.rule_state, hosted)
        params = jax.tree.map(lambda x, y: _put(x, y, i), now.params, new.params)
        state = _where(is_moment, lambda x, y: _put(x, y, i), now.rule_state, leaving)
        return Updatable(params, state), arriving, new.rule_state

    first = moments(old.rule_state, 0)
    # `after` is there for what counts: moments of the last layer, dropped.
    now, _, after = jax.lax.fori_loop(0, num, step, (old, first, first))
    state = jax.tree.map(
        lambda is_of_layers, x, y: x if is_of_layers else y,
        is_moment,
        now.rule_state,
        after,
    )
    return now._replace(rule_state=state)


def _apply(rule: optax.GradientTransformation, grads: Any, old: Updatable) -> Updatable:
    updates, state = rule.update(grads, old.rule_state, old.params)
    return Updatable(optax.apply_updates(old.params, updates), state)


def _put(x: Array, layer: Array, i: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, layer, i, axis=0)


def _where(mask: Any, fn: Callable[..., Any], state: Any, *others: Any) -> Any:
    return jax.tree.map(
        lambda is_one, x, *ys: fn(x, *ys) if is_one else x, mask, state, *others
    )


def _arrive(state: Any, hosted: Any) -> Any:
    return _where(hosted, lambda x: jax.device_put(x, jax.memory.Space.Device), state)


def _leave(state: Any, hosted: Any) -> Any:
    return _where(hosted, lambda x: jax.device_put(x, jax.memory.Space.Host), state)


def _only(tree: Any, names: tuple[str, ...], part: tuple[str, ...]) -> Any:
    """Of every dict in `tree` that has the parameters' names, some of them."""

    every = set(names)
    return jax.tree.map(
        lambda node: {n: node[n] for n in part} if _is_dict_of(every, node) else node,
        tree,
        is_leaf=lambda node: _is_dict_of(every, node),
    )


def _is_dict_of(names: set[str], node: Any) -> bool:
    return isinstance(node, dict) and set(node) == names


def _join(names: tuple[str, ...], parts: list[Any]) -> Any:
    """The inverse of `_only` over parts that make up all names."""

    def is_part(node: Any) -> bool:
        return isinstance(node, dict) and bool(node) and set(node) < set(names)

    def join(*nodes: Any) -> Any:
        if not is_part(nodes[0]):
            return nodes[0]
        whole = {name: value for node in nodes for name, value in node.items()}
        return {name: whole[name] for name in names}

    return jax.tree.map(join, *parts, is_leaf=is_part)
