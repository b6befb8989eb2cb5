# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA and DoRA of a whole model: which matmuls, what is trained, what is frozen.

What is trained is a tree of its own: at a matmul's path it has `a` [.., in, r] and `b`
[.., r, out], for DoRA `magnitude` [.., out] too. `bound` puts it and the frozen tree
together, with an `Adapted` at those paths.
"""

import dataclasses
import fnmatch
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from podium.config_lora import DoraConfig, Lora
from podium.errors import ConfigError
from podium.models.adapted import Adapted, as_float, column_norm
from podium.models.axes import inner, is_matrix
from podium.models.bind import Abstract, Params, insert
from podium.models.quantized import quantize

# --- which ---------------------------------------------------------------------------


class Kernel(NamedTuple):
    """A matmul's weight, by the names of its axes."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    num_leading: int
    num_in: int

    @property
    def name(self) -> str:
        """Its path, 'stack/block_0/mlp/up' say."""
        return "/".join(self.path)

    @property
    def short(self) -> str:
        """The same without its place in the model: 'mlp/up'."""
        return _short(self.path)

    @property
    def in_axes(self) -> range:
        """The axes that are contracted, of the whole array."""
        return range(self.num_leading, self.num_leading + self.num_in)


def kernels(model: Abstract) -> list[Kernel]:
    """Every matmul that can have an adapter, in the model's order.

    Not the router, which chooses experts, and not the embedding, which is looked up.
    """
    found = []
    for path, shape, axes in _leaves(model):
        own = inner(axes)
        if is_matrix(axes) and path[0] != "embed" and "router" not in path:
            num_in = 2 if own[:2] == ["heads", "head_dim"] else 1
            found.append(Kernel(path, shape, axes, len(axes) - len(own), num_in))
    return found


def targets(model: Abstract, lora: Lora) -> list[Kernel]:
    """The matmuls that `lora.targets` name. Raises ConfigError where one names none."""
    known = kernels(model)
    chosen: set[tuple[str, ...]] = set()
    for pattern in lora.targets:
        found = {k.path for k in known if _fits(k.path, pattern)}
        if not found:
            raise ConfigError(
                f"lora.targets: {pattern!r} {_why(model, pattern, known)}"
            )
        chosen |= found
    return [k for k in known if k.path in chosen]


def _why(model: Abstract, pattern: str, known: list[Kernel]) -> str:
    others = ("/".join(path) for path, *_ in _leaves(model) if _fits(path, pattern))
    other = next(others, None)
    what = f"matches {other}, no matmul" if other else "matches nothing"
    names = ", ".join(dict.fromkeys(k.short for k in known))
    return f"{what}; this model's are {names}"


def _fits(path: tuple[str, ...], pattern: str) -> bool:
    names = ("/".join(path), _short(path))
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _short(path: tuple[str, ...]) -> str:
    is_of_block = len(path) > 1 and path[1].startswith("block_")
    return "/".join(path[2:] if is_of_block else path)


def _leaves(model: Abstract) -> Iterator[tuple[tuple[str, ...], tuple, tuple]]:
    for path, shape in jax.tree_util.tree_leaves_with_path(model.shapes):
        names = tuple(key.key for key in path)
        axes = model.axes
        for name in names:
            axes = axes[name]
        yield names, shape.shape, tuple(axes)


# --- what is trained -----------------------------------------------------------------


def trained(model: Abstract, lora: Lora) -> Abstract:
    """The adapters of a model: their shapes and logical axes. The rank is not split."""
    shapes, axes = {}, {}

    def add(kernel: Kernel, name: str, *dims: int | None) -> None:
        sizes = tuple(lora.rank if i is None else kernel.shape[i] for i in dims)
        leaf = jax.ShapeDtypeStruct(sizes, jnp.float32)
        insert(shapes, (*kernel.path, name), leaf)
        named = tuple(None if i is None else kernel.axes[i] for i in dims)
        insert(axes, (*kernel.path, name), named)

    for kernel in targets(model, lora):
        leading, out = range(kernel.num_leading), range(len(kernel.shape))
        out = out[kernel.in_axes.stop :]
        add(kernel, "a", *leading, *kernel.in_axes, None)
        add(kernel, "b", *leading, None, *out)
        if isinstance(lora, DoraConfig):
            add(kernel, "magnitude", *leading, *out)
    return Abstract(model.graphdef, shapes, axes)


def init(model: Abstract, lora: Lora, frozen: Params, seed: int | Array) -> Params:
    """Adapters that change nothing yet: A normal with variance 1 / inputs, B zero, and
    the magnitudes of the frozen weights. The values depend on seed and path alone."""
    out: Params = {}
    shapes = trained(model, lora).shapes
    for kernel in targets(model, lora):
        mine, base = shapes, frozen
        for name in kernel.path:
            mine, base = mine[name], base[name]
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(kernel.name.encode()))
        fan_in = math.prod(kernel.shape[i] for i in kernel.in_axes)
        a = jax.random.normal(key, mine["a"].shape) * fan_in**-0.5
        insert(out, (*kernel.path, "a"), a)
        insert(out, (*kernel.path, "b"), jnp.zeros(mine["b"].shape))
        if "magnitude" in mine:
            w = as_float(base, jnp.dtype(jnp.float32))
            norm = column_norm(
                jnp.moveaxis(w, kernel.in_axes, range(kernel.num_in)), kernel.num_in
            )
            insert(out, (*kernel.path, "magnitude"), norm)
    return out


# --- what is frozen ------------------------------------------------------------------


def freeze(model: Abstract, params: Params, lora: Lora) -> Params:
    """Float32 parameters as `lora.base_dtype` keeps them."""
    known = {k.path: k for k in kernels(model)}
    return _map(lambda path, w: freeze_leaf(lora, path, known.get(path), w), params)


def freeze_leaf(
    lora: Lora, path: tuple[str, ...], kernel: Kernel | None, w: Array
) -> Any:
    """One of those, a whole array: an array, or a qwix.QArray of int8.

    `kernel` says how it lies where it is one. Vectors and the router stay float32.
    """
    if lora.base_dtype == "float32":
        return w
    if kernel is not None and lora.base_dtype == "int8" and kernel.short != "head":
        return quantize(w, kernel.in_axes, "int8")
    is_matrix = kernel is not None or path[0] == "embed"
    return w.astype(jnp.bfloat16) if is_matrix else w


def frozen(model: Abstract, lora: Lora) -> Abstract:
    """What is frozen of a model: its shapes and logical axes. Scales of a qwix.QArray lie
    as its numbers do."""
    shapes = jax.eval_shape(lambda params: freeze(model, params, lora), model.shapes)

    def axes_like(leaf: Any, axes: tuple[str | None, ...]) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return axes
        of_scale = zip(axes, leaf.scale.shape, strict=True)
        scale = tuple(None if size == 1 else axis for axis, size in of_scale)
        return dataclasses.replace(leaf, qvalue=axes, scale=scale)

    axes = jax.tree.map(axes_like, shapes, model.axes, is_leaf=is_leaf)
    return Abstract(model.graphdef, shapes, axes)


def is_leaf(node: Any) -> bool:
    """Whether a node stands for one parameter of a frozen tree."""
    return not isinstance(node, dict)


# --- both ----------------------------------------------------------------------------


def bound(lora: Lora | None, params: Any, frozen: Any) -> Any:
    """The tree of a whole model: `params` themselves, or adapters on frozen weights.

    Of arrays, shapes, shardings alike; nothing is copied.
    """
    if lora is None:
        return params
    scale = lora.alpha / lora.rank

    def join(base: Any, mine: Any) -> Any:
        if isinstance(base, dict):
            return {name: join(w, mine.get(name, {})) for name, w in base.items()}
        if not mine:
            return base
        return Adapted(base, mine["a"], mine["b"], mine.get("magnitude"), scale)

    return join(frozen, params)


def merge(model: Abstract, whole: Any) -> Params:
    """A `bound` tree as plain float32 parameters that do the same."""
    leading = {k.path: k.num_leading for k in kernels(model)}

    def one(path: tuple[str, ...], w: Any) -> Array:
        if not isinstance(w, Adapted):
            return as_float(w, jnp.dtype(jnp.float32))
        change = Adapted.merged
        for _ in range(leading[path]):
            change = jax.vmap(change)
        return change(w)

    return _map(one, whole)


def _map(fn: Callable[[tuple[str, ...], Any], Any], tree: Any, path=()) -> Any:
    if isinstance(tree, dict):
        return {name: _map(fn, value, (*path, name)) for name, value in tree.items()}
    return fn(path, tree)
