# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""`param` and `shard`: the only two ways to place an array."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from podium.sharding.rules import ShardingRules

_rules: contextvars.ContextVar[ShardingRules | None] = contextvars.ContextVar(
    "podium_sharding_rules", default=None
)
_label: contextvars.ContextVar[Callable[[tuple[str | None, ...]], str] | None] = (
    contextvars.ContextVar("podium_shard_label", default=None)
)


@contextlib.contextmanager
def use_rules(rules: ShardingRules) -> Iterator[None]:
    """Makes `shard` constrain to these rules while a function is traced."""
    token = _rules.set(rules)
    try:
        yield
    finally:
        _rules.reset(token)


@contextlib.contextmanager
def label_calls(label: Callable[[tuple[str | None, ...]], str]) -> Iterator[None]:
    """Puts `label(axes)` into the name of every `shard` that is traced, so that it can
    be found again in the program; one device has them too then."""
    token = _label.set(label)
    try:
        yield
    finally:
        _label.reset(token)


def current_rules() -> ShardingRules | None:
    """The rules of the function being traced, or None outside `use_rules`."""
    return _rules.get()


def current_platform() -> str:
    """Where the function being traced will run: the mesh's platform, if there is one."""
    rules = _rules.get()
    if rules is None:
        return {"cuda": "gpu", "rocm": "gpu"}.get(
            jax.default_backend(), jax.default_backend()
        )
    return rules.mesh.devices.flat[0].platform


def shard(x: Array, *axes: str | None) -> Array:
    """Constrains an activation to the layout of its logical axes; no rules, no change."""
    rules, label = _rules.get(), _label.get()
    if rules is None or (rules.mesh.size == 1 and label is None):
        return x
    with jax.named_scope(label(axes)) if label else contextlib.nullcontext():
        return jax.lax.with_sharding_constraint(
            x, rules.sharding(axes, x.shape, "activation")
        )


def param(
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    *,
    axes: tuple[str | None, ...],
    init: Callable[..., Array],
) -> nnx.Param:
    """A float32 parameter that carries its logical axes as metadata `axes`."""
    return nnx.Param(init(rngs.params(), shape, jnp.float32), axes=axes)
