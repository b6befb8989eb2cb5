# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where the activations of a step live: every `shard(x, ...)` that a trace of it meets.

Each call is traced under a name that holds its place in the source and its logical
axes. The constraint then lies in the jaxpr under that name, through scans, remat and
differentiation, with the shape and the sharding that the compiler will see.
"""

import dataclasses
import linecache
import math
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from podium.sharding import constrain

_LABEL = re.compile(r"shard\[([^\]]*)\]")
_LIBRARY = pathlib.Path(constrain.__file__).parent.parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation:
    """One place that gives an activation its layout; bytes are of one, on a device."""

    part: str  # of the source, see `part_of`
    name: str  # 'h_BTF', or the expression that is placed
    source: str  # file:line
    dtype: str
    shape: tuple[int, ...]
    logical_axes: tuple[str | None, ...]
    spec: tuple[Any, ...]  # one entry a dim: None, an axis, or axes
    local_shape: tuple[int, ...]
    bytes: int
    forward: int  # times a step
    recompute: int  # again, for the backward pass
    gradient: int  # the same of its gradient


def activations(trace: Callable[[], Any]) -> list[Activation]:
    """The places in the order of the forward pass; `trace()` gives the step's jaxpr.

    It must trace anew: what jax kept of an earlier trace has no names. Loops are
    multiplied out.
    """
    with constrain.label_calls(_label):
        jaxpr = trace()
    times: dict[Activation, Counter] = {}
    for count, stack, eqn in _constraints(jaxpr, 1, ""):
        if found := _LABEL.search(stack):
            place = _activation(found[1], eqn)
            when = "gradient" if "transpose(" in stack else "forward"
            if "rematted_computation" in stack:
                when = "recompute"
            times.setdefault(place, Counter())[when] += count
    return [dataclasses.replace(place, **counts) for place, counts in times.items()]


def part_of(function: str, file: str) -> str:
    """A readable name for a function, given as Python qualifies it: 'Attention' for its
    own methods, 'Transformer.logits', 'loss._chunk_sums' for what is in no class."""
    function = re.sub(r"\.<locals>\.<\w+>", "", function)
    function = function.rpartition("<locals>.")[2]
    if function[:1].isupper():
        return re.sub(r"\._\w+$", "", function)
    return f"{pathlib.PurePath(file).stem}.{function}"


def _label(axes: tuple[str | None, ...]) -> str:
    frame = sys._getframe(1)
    while True:
        path = pathlib.Path(frame.f_code.co_filename)
        if path.is_relative_to(_LIBRARY) and path.parent.name != "sharding":
            break
        if frame.f_back is None:
            raise RuntimeError("shard was called from outside of the library")
        frame = frame.f_back
    part = part_of(frame.f_code.co_qualname, str(path))
    name = _name(linecache.getline(str(path), frame.f_lineno))
    source = f"{path.relative_to(_LIBRARY).as_posix()}:{frame.f_lineno}"
    logical = ",".join(axis or "-" for axis in axes)
    return f"shard[{part}|{name}|{source}|{logical}]"


def _name(line: str) -> str:
    """What a line with `shard(` in it calls the tensor, without brackets."""
    if found := re.match(r"\s*(\w+)(?:, \w+)? = shard\(", line):
        return found[1]
    found = re.search(r"shard\(\s*([\w.+ ]+)", line)
    return found[1].strip() if found else ""


def _constraints(jaxpr: Any, times: int, stack: str) -> Iterator[tuple[int, str, Any]]:
    """(executions, name, equation) of every sharding constraint, nested ones included."""
    for eqn in jaxpr.eqns:
        name = f"{stack}/{eqn.source_info.name_stack}"
        if eqn.primitive.name == "sharding_constraint":
            yield times, name, eqn
        trips = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for inner in _jaxprs(tuple(eqn.params.values())):
            yield from _constraints(inner, times * trips, name)


def _jaxprs(value: Any) -> Iterator[Any]:
    if hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield from _jaxprs(value.jaxpr)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _jaxprs(each)


def _activation(label: str, eqn: Any) -> Activation:
    part, name, source, logical = label.split("|")
    (value,) = eqn.outvars
    shape, sharding = value.aval.shape, eqn.params["sharding"]
    axes = [None if axis == "-" else axis for axis in logical.split(",")]
    # Under the pipeline's vmap there are more: the stages, in front.
    axes = ["stages"] * (len(shape) - len(axes)) + axes
    local = sharding.shard_shape(shape)
    return Activation(
        part=part,
        name=name,
        source=source,
        dtype=str(value.aval.dtype),
        shape=tuple(shape),
        logical_axes=tuple(axes),
        spec=(*sharding.spec, *(None,) * (len(shape) - len(sharding.spec))),
        local_shape=tuple(local),
        bytes=math.prod(local) * value.aval.dtype.itemsize,
        forward=0,
        recompute=0,
        gradient=0,
    )
