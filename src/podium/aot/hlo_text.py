# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Optimised HLO as text -> computations and instructions.

Text, because it is what `compiled.as_text()` gives under every jax, what a dump folder
holds, and what a person can read next to a figure; jaxlib's own bindings of HloModule
stop at the names of computations. Only what a cost reader needs is kept: result shapes,
operands, called computations and the raw attributes. jax is not imported.
"""

import dataclasses
import functools
import math
import re

# Bytes per element; 4-bit types are stored packed on TPUs.
_BYTES = {
    "pred": 1,
    "token": 0,
    "opaque": 0,
    **{t: 0.25 for t in ("s2", "u2")},
    **{t: 0.5 for t in ("s4", "u4", "f4e2m1fn")},
    **{t: 1 for t in ("s8", "u8")},
    **{t: 2 for t in ("s16", "u16", "f16", "bf16")},
    **{t: 4 for t in ("s32", "u32", "f32")},
    **{t: 8 for t in ("s64", "u64", "f64", "c64")},
    "c128": 16,
}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_DEFINITION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation)"
    r"=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_LITERALS = ("parameter", "constant")  # whose parentheses hold no operands
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Array:
    """One dense array of a shape."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> int:
        """Bytes without the padding of tiles."""
        return math.ceil(self.size * _BYTES.get(self.dtype, 1))  # fp8 and its kin: 1


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation, in scheduled order."""

    name: str
    opcode: str
    shape: str  # text, layout included
    operands: tuple[str, ...]
    attributes: str  # raw text behind the operands
    is_root: bool

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the result; tuples flattened."""
        return arrays(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the result."""
        return sum(a.num_bytes for a in self.arrays)

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Attribute -> computation: calls, to_apply, body, condition."""
        return dict(_CALLED.findall(self.attributes))

    @property
    def branches(self) -> list[str]:
        """The computations of a conditional."""
        found = _BRANCHES.search(self.attributes)
        if found:
            return _OPERAND.findall(found[1])
        pair = ("true_computation", "false_computation")
        return [self.called[b] for b in pair if b in self.called]

    @functools.cached_property
    def cycles(self) -> int | None:
        """The compiler's estimate for one execution, in core cycles; None: it has none."""
        found = _CYCLES.search(self.attributes)
        return int(found[1]) if found else None

    @property
    def op_name(self) -> str:
        """The path of jax names that it came from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def stack_frame(self) -> int:
        """Where in the Python source it came from: a key of `Module.sources`, or 0."""
        found = re.search(r"stack_frame_id=(\d+)", self.attributes)
        return int(found[1]) if found else 0

    @property
    def custom_call_target(self) -> str:
        """Of a custom call; else empty."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Source:
    """A line of Python, and the frame that called its function."""

    file: str
    function: str  # qualified: 'Attention.__call__'
    line: int
    caller: int  # a key of `Module.sources`; the outermost has 0


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in scheduled order."""

    name: str
    instructions: dict[str, Instruction]

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name -> the instructions that take it as an operand."""
        found: dict[str, list[Instruction]] = {}
        for i in self.instructions.values():
            for operand in () if i.opcode in _LITERALS else i.operands:
                found.setdefault(operand, []).append(i)
        return found

    @property
    def root(self) -> Instruction:
        """What it returns."""
        rooted = [i for i in self.instructions.values() if i.is_root]
        return rooted[0] if rooted else list(self.instructions.values())[-1]

    def parameters(self) -> dict[int, Instruction]:
        """Number -> parameter."""
        return {
            int(i.operands[0]): i
            for i in self.instructions.values()
            if i.opcode == "parameter"
        }


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program."""

    computations: dict[str, Computation]
    entry: str
    sources: dict[int, "Source"] = dataclasses.field(default_factory=dict)


def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays in the text of a shape: 'bf16[8,128]{1,0:T(8,128)}' or a tuple."""
    return tuple(
        Array(dtype, tuple(int(d.lstrip("<=")) for d in dims.split(",") if d))
        for dtype, dims in _ARRAY.findall(shape)
    )


def parse(text: str) -> Module:
    """Reads `compiled.as_text()`. Raises ValueError where there is no entry."""
    computations: dict[str, Computation] = {}
    entry, name, found = None, None, {}
    for line in _joined(text):
        if name is None:
            if header := _HEADER.match(line):
                name, found = header[2], {}
                entry = name if header[1] else entry
        elif _closes(line):
            computations[name] = Computation(name, found)
            name = None
        elif definition := _DEFINITION.match(line):
            rest = line[definition.end() :]
            found[definition[2]] = _instruction(definition, rest)
    if entry is None:
        raise ValueError("no ENTRY computation: this is not the text of an HLO module")
    return Module(computations, entry, _sources(text[: text.index("ENTRY")]))


def _sources(head: str) -> dict[int, Source]:
    """The four tables in front of the computations; empty where there are none."""

    def table(name: str, row: str) -> dict[int, tuple[str, ...]]:
        found = re.search(rf"^{name}\n((?:\d+ .*\n?)*)", head, re.MULTILINE)
        rows = re.findall(rf"^(\d+) {row}", found[1] if found else "", re.MULTILINE)
        return {int(number): tuple(rest) for number, *rest in rows}

    files = table("FileNames", r'"(.*)"')
    functions = table("FunctionNames", r'"(.*)"')
    keys = r"\{file_name_id=(\d+) function_name_id=(\d+) line=(\d+)"
    places = table("FileLocations", keys)
    frames = table("StackFrames", r"\{file_location_id=(\d+) parent_frame_id=(\d+)")
    # The outermost frame's caller is printed as 0, or all of them one too large.
    shift = int(frames[1][1]) if 1 in frames else 0
    found = {}
    for number, (place, caller) in frames.items():
        file, function, line = map(int, places[int(place)])
        at = files[file][0], functions[function][0]
        found[number] = Source(*at, line, int(caller) - shift)
    return found


def _joined(text: str):
    """Lines; an attribute that holds line breaks is joined to its instruction."""
    pending, is_inside = None, False
    for line in text.splitlines():
        starts = _DEFINITION.match(line) or _closes(line)
        if is_inside and not starts:
            pending = f"{pending} {line}"
            continue
        if pending is not None:
            yield pending
        pending = line
        is_inside = bool(_HEADER.match(line)) or (is_inside and not _closes(line))
    if pending is not None:
        yield pending


def _closes(line: str) -> bool:
    """'}', or '}, execution_thread="sparsecore"' of what another core runs."""
    return line.rstrip() == "}" or line.startswith("}, execution_thread=")


def _instruction(definition: re.Match, rest: str) -> Instruction:
    shape_end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:shape_end], rest[shape_end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inner = rest[len(opcode) + 1 : close]
    literal = opcode in _LITERALS
    return Instruction(
        name=definition[2],
        opcode=opcode,
        shape=shape,
        operands=(inner,) if literal else tuple(_OPERAND.findall(inner)),
        attributes=rest[close + 1 :],
        is_root=bool(definition[1]),
    )


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if not depth:
            return at
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")
