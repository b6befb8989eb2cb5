# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What fills a device's memory: parameters, optimizer, gradients, activations, the rest.

Parameters (of adapters, the frozen weights are a heading of their own), optimizer state
and gradients follow from the layout; a gradient lies as its
parameter does, in float32, and all of them exist when they are clipped by their norm.
Activations are what the loop over layers stacks up for the backward pass, read from the
compiled program. The rest of the compiler's peak is temporaries: gathered layers,
logits, weights in the compute type.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

from podium.aot.hlo_text import Computation, Instruction, Module, arrays, parse

_HOST = "S(5)"  # the memory space of the host in the compiler's layouts


def split(parts: Any, hlo: str, peak_bytes: int) -> dict[str, int]:
    """Bytes per device under each heading; they sum to the peak."""
    shapes, shardings = parts.layout.shapes, parts.layout.shardings
    found = {
        "parameters": tree_bytes(shapes.params, shardings.params),
        "optimizer": tree_bytes(shapes.opt_state, shardings.opt_state),
        "gradients": tree_bytes(shapes.params, shardings.params),
        "activations": stacked_bytes(parse(hlo)),
    }
    if shapes.frozen is not None:
        found["frozen_weights"] = tree_bytes(shapes.frozen, shardings.frozen)
    if shapes.ema is not None:
        found["averaged_weights"] = tree_bytes(shapes.ema, shardings.ema)
    found["temporaries"] = peak_bytes - sum(found.values())
    return found


def on_host(parts: Any, host_bytes: int) -> dict[str, int]:
    """Bytes per device in the host's memory under each heading; they sum to the whole."""
    layout = parts.layout
    state = tree_bytes(layout.shapes.opt_state, layout.shardings.opt_state, "host")
    return {"optimizer": state, "activations": host_bytes - state}


def tree_bytes(
    shapes: Any, shardings: Any, memory: Literal["device", "host"] = "device"
) -> int:
    """Bytes of a tree of arrays in the memory of one device, or for it on the host."""
    import jax

    return sum(
        math.prod(sharding.shard_shape(shape.shape)) * shape.dtype.itemsize
        for shape, sharding in zip(
            jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True
        )
        if (sharding.memory_kind == "pinned_host") == (memory == "host")
    )


def stacked_bytes(module: Module, *, on_host: bool = False) -> int:
    """Bytes that forward loops over layers stack up, one slot for each trip.

    The loops of the entry, and those inside its loop over micro-batches.
    """
    found = _stacked_in(module, module.computations[module.entry])
    return sum(s.num_bytes for s in found if s.on_host == on_host)


@dataclasses.dataclass(frozen=True)
class Stacked:
    """An array that a forward loop fills for the backward pass, a slot each trip."""

    shape: str  # 'bf16[80,4,2048,10240]', on a device
    num_bytes: int
    on_host: bool


def stacked(module: Module) -> list[Stacked]:
    """What forward loops over layers stack up, the largest first."""
    found = _stacked_in(module, module.computations[module.entry])
    return sorted(found, key=lambda s: -s.num_bytes)


def _stacked_in(module: Module, computation: Computation) -> Iterator[Stacked]:
    for loop in computation.instructions.values():
        if loop.opcode != "while":
            continue
        body = module.computations[loop.called["body"]]
        yield from _stacked(loop, body)
        yield from _stacked_in(module, body)


def _stacked(loop: Instruction, body: Computation) -> Iterator[Stacked]:
    if body.root.opcode != "tuple":
        return
    shapes = re.findall(r"[a-z]\w*\[[\d,]*\](?:\{[^}]*\})?", loop.shape)
    for index, (name, shape) in enumerate(
        zip(body.root.operands, shapes, strict=False)
    ):
        new = body.instructions[name]
        carried = new.opcode == "get-tuple-element" and f"index={index}" in (
            new.attributes
        )
        is_stack = "dynamic-update-slice" in f"{new.opcode} {new.name}" or (
            "dynamic_update_slice" in new.op_name
        )
        # A backward loop stacks gradients, the update's loop weights; only what is
        # stacked is sure to say so by its name.
        names = f"{loop.op_name}{new.op_name}"
        is_forward = not names or ("jvp(" in names and "transpose(" not in names)
        if is_stack and is_forward and not carried:
            array = arrays(shape)[0]
            text = f"{array.dtype}[{','.join(map(str, array.dims))}]"
            yield Stacked(text, array.num_bytes, _HOST in shape)
