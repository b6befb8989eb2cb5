# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Names for collectives that the compiler left without one, as it does between slices.

What is gathered is for who reads it; what is summed or sent is of who made it.
"""

from collections.abc import Callable, Iterator

from podium.aot.hlo_text import Computation, Instruction

_SAME = ("get-tuple-element", "bitcast", "copy", "reshape", "transpose", "convert")


def neighbour(
    start: Instruction,
    computation: Computation,
    dims: tuple[int, ...],
    *,
    forward: bool,
    carries: Callable[[Instruction], bool],
) -> Instruction | None:
    """The nearest instruction with a name that reads (`forward`) or made an array.

    `dims` are the array's: they tell it from what else a fusion returns or takes.
    `carries` says of an instruction whether it only takes the same collective along.
    """
    step = _readers if forward else _makers
    seen, todo = set(), [start]
    while todo:
        for there in step(todo.pop(0), computation, dims):
            if there.name in seen:
                continue
            seen.add(there.name)
            if there.op_name and not carries(there):
                return there
            if there.opcode in _SAME or carries(there):
                todo.append(there)
    return None


def _readers(
    i: Instruction, computation: Computation, dims: tuple[int, ...]
) -> Iterator[Instruction]:
    for user in computation.users.get(i.name, ()):
        if len(i.arrays) == 1 or dims in [a.dims for a in user.arrays]:
            yield user


def _makers(
    i: Instruction, computation: Computation, dims: tuple[int, ...]
) -> Iterator[Instruction]:
    known = [computation.instructions[o] for o in i.operands]
    for operand in known:
        if len(known) == 1 or dims in [a.dims for a in operand.arrays]:
            yield operand
