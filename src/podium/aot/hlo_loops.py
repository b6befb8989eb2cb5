# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How often a loop runs, read from its condition."""

import re

from podium.aot.hlo_text import Computation, Instruction


def trip_count(
    loop: Instruction, outside: Computation, called: dict[str, Computation]
) -> int:
    """How often a while loop of the form `for i in range(a, b, c)` runs.

    Raises ValueError where the bound is not a constant: no guess is better than none.
    """
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition, body = called[loop.called["condition"]], called[loop.called["body"]]
    compare = condition.root
    if compare.opcode == "fusion":
        condition = called[compare.called["calls"]]
        compare = condition.root
    values = [_origin(condition.instructions[o], condition) for o in compare.operands]
    index = next((v for v in values if isinstance(v, str)), None)
    limit = next((v for v in values if isinstance(v, int)), None)
    if limit is None:  # the bound is carried: the loop state's initial value
        states = [v for v in values if isinstance(v, str)]
        index, limit = states[0], _initial(states[-1], loop, outside)
    if index is None or limit is None:
        raise ValueError(f"while loop {loop.name} has no constant bound")
    start = _initial(index, loop, outside) or 0
    trips = -(-(limit - start) // _step(index, body))
    return trips + ("direction=LE" in compare.attributes)


def _origin(i: Instruction, inside: Computation) -> int | str | None:
    """A constant, the index of the loop state's element (as text), or None."""
    while i.opcode in ("copy", "bitcast", "convert", "reshape"):
        i = inside.instructions[i.operands[0]]
    if i.opcode == "constant":
        return int(i.operands[0]) if re.fullmatch(r"-?\d+", i.operands[0]) else None
    if i.opcode == "get-tuple-element":
        found = re.search(r"index=(\d+)", i.attributes)
        return found[1] if found else None
    return i.operands[0] if i.opcode == "parameter" else None


def _initial(index: str, loop: Instruction, outside: Computation) -> int | None:
    state = outside.instructions[loop.operands[0]]
    if state.opcode != "tuple" or int(index) >= len(state.operands):
        return None
    value = _origin(outside.instructions[state.operands[int(index)]], outside)
    return value if isinstance(value, int) else None


def _step(index: str, body: Computation) -> int:
    root = body.root
    if root.opcode != "tuple":
        return 1
    new = body.instructions[root.operands[int(index)]]
    while new.opcode in ("copy", "bitcast"):
        new = body.instructions[new.operands[0]]
    if new.opcode != "add":
        return 1
    for operand in new.operands:
        value = _origin(body.instructions[operand], body)
        if isinstance(value, int):
            return max(1, value)
    return 1
