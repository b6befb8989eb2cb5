# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What the operations of a trace are: of which layer and named scope, doing what.

A trace holds the programs that ran in it. An operation's name leads to its instruction
there, and that to jax's names, the line of the source, operations and bytes.
"""

import dataclasses
import importlib
import re
from typing import Any, Literal

from podium.aot import hlo_text
from podium.aot.collectives import phase_of, source_of
from podium.aot.hlo_flops import matmul_flops
from podium.aot.hlo_text import Computation, Instruction, Module
from podium.sharding.activations import part_of

Kind = Literal["compute", "memory", "collective", "transfer", "infeed", "container"]

_COLLECTIVE = re.compile(
    r"all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    r"|collective-broadcast|async-collective"
)
_CONTAINERS = ("while", "conditional", "call")
_INFEED = ("infeed", "outfeed")
_TRANSFER = ("host send", "host recv", "send", "recv", "send-done", "recv-done")
_MATMUL = re.compile(r"convolution|\bdot\b|custom-call|custom fusion|matmul")
_STACKS = "prefix|stack|tail"  # of podium.models.layer_stack.layer_stacks
_LAYERS = re.compile(rf"\b({_STACKS})\)*/while$")
_UNROLLED = re.compile(rf"\b({_STACKS})\)*/(\d+)/")
_ARITHMETIC = re.compile(
    "add|subtract|multiply|divide|maximum|minimum|power|remainder|compare|select|and|or"
    "|not|xor|negate|abs|sign|exponential|exponential-minus-one|log|log-plus-one"
    "|logistic|tanh|sqrt|rsqrt|cbrt|sine|cosine|erf|floor|ceil|clamp"
)
_STRUCTURE = ("while", "body", "cond", "closed_call", "checkpoint", "custom_vjp_call")
_STRUCTURE += ("rematted_computation", "remat", "shard_map", "branch", "scan", "pjit")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One instruction of a program. Operations and bytes are of one execution."""

    name: str
    kind: Kind
    category: str  # the compiler's, or the opcode
    scope: str = ""  # "stack/attention": jax.named_scope
    phase: str = ""  # forward, recompute, backward, update
    part: str = ""  # of the source: "Attention", "loss._chunk_sums"
    stack: str = ""  # of layers: stack, prefix, tail
    layer: int | None = None  # where layers are not a loop
    trips: tuple[int, ...] = ()  # of the loops round it, outermost first
    loop: int | None = None  # which of those is the one over layers
    flops: float = 0.0
    hbm_bytes: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a computation is run from."""

    caller: Instruction
    inside: Computation


class Programs:
    """The programs of a trace, by their number there."""

    def __init__(self, modules: dict[int, bytes]):
        """Serialised HloModuleProtos."""
        self._bytes = modules
        self._read: dict[int, _Program | None] = {}

    def op(self, program: int, name: str, stats: dict[str, Any], text: str = "") -> Op:
        """An operation by what the trace says of it, and by its program.

        `text` is the instruction itself, where the trace has it.
        """
        known = self._program(program)
        found = known.instructions.get(name) if known else None
        i, inside = found if found else (None, None)
        category = str(stats.get("hlo_category") or (i.opcode if i else "")) or (
            re.sub(r"[.\d]+$", "", name)
        )
        op_name = (i.op_name if i else "") or str(stats.get("tf_op", "")).rstrip(":")
        flops = matmuls = 0.0
        if known and i and inside:
            matmuls, others = known.flops(i, inside)
            flops = matmuls + others
        if "flops" in stats:
            flops = float(stats["flops"])
        hbm_bytes = float(stats.get("bytes_accessed", 0))
        if not hbm_bytes and known and i and inside:
            hbm_bytes = known.num_bytes(i, inside)
        trips, loop, stack = known.loops(inside) if known and inside else ((), None, "")
        unrolled = _UNROLLED.search(op_name)
        if unrolled:
            stack = unrolled[1]
        source = source_of(i.stack_frame, known.module.sources) if known and i else None
        return Op(
            name=name,
            kind=_kind(i.opcode if i else "", category, name, bool(matmuls), text),
            category=category,
            scope=scope_of(op_name),
            phase=phase_of(op_name) if "/" in op_name else "",
            part=part_of(source.function, source.file) if source else "",
            stack=stack,
            layer=int(unrolled[2]) if unrolled else None,
            trips=trips,
            loop=loop,
            flops=flops,
            hbm_bytes=hbm_bytes,
        )

    def _program(self, number: int) -> "_Program | None":
        if number not in self._read:
            proto = self._bytes.get(number)
            self._read[number] = _Program(proto) if proto else None
        return self._read[number]


def scope_of(op_name: str) -> str:
    """The named scopes of jax's path of an operation, transformations left out.

    'jit(f)/transpose(jvp(stack))/while/body/closed_call/mlp/mul' -> 'stack/mlp'. Where
    XLA merged several, 'jit(f)/jvp(stack)/(attention/dot:mlp/dot)': what they share.
    """
    merged = re.fullmatch(r"(.*?)/\((.*:.*)\)", op_name)
    if merged:
        each = [_scope(f"{merged[1]}/{path}") for path in merged[2].split(":")]
    else:
        each = [_scope(op_name)]
    shared = []
    for names in zip(*each, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return "/".join(shared)


def _scope(op_name: str) -> list[str]:
    names = []
    for part in op_name.split("/")[1:-1]:
        while found := re.fullmatch(r"(?:jvp|transpose|vmap|vjp)\((.*)\)", part):
            part = found[1]
        if part and part not in _STRUCTURE and "(" not in part:
            names.append(part)
    return names


def _kind(opcode: str, category: str, name: str, has_matmul: bool, text: str) -> Kind:
    words = (opcode, category)
    if opcode in _CONTAINERS or category in _CONTAINERS:
        return "container"
    if any(w in _INFEED for w in words):
        return "infeed"
    if any(_COLLECTIVE.search(w) for w in (*words, name)):
        return "collective"
    # S(5) is the host's memory in the compiler's layouts.
    copies = opcode.startswith("copy") or category.startswith("copy")
    if any(w in _TRANSFER for w in words) or (copies and "S(5)" in text):
        return "transfer"
    if has_matmul or _MATMUL.search(category):
        return "compute"
    return "memory"


class _Program:
    def __init__(self, proto: bytes):
        # The only reader of a serialised module that jax has.
        hlo: Any = importlib.import_module("jaxlib._hlo")
        module = hlo.HloModule.from_serialized_hlo_module_proto(proto)
        self.module: Module = hlo_text.parse(module.to_string())
        self.instructions: dict[str, tuple[Instruction, Computation]] = {}
        self._places: dict[str, _Place] = {}
        for computation in self.module.computations.values():
            for i in computation.instructions.values():
                self.instructions[i.name] = i, computation
                for called in (*i.called.values(), *i.branches):
                    self._places.setdefault(called, _Place(i, computation))

    def loops(self, inside: Computation) -> tuple[tuple[int, ...], int | None, str]:
        """(trips of the loops round a computation, which is over layers, of which stack)"""
        trips: list[int] = []
        layers, stack = None, ""
        place = self._places.get(inside.name)
        while place is not None:
            if place.caller.opcode == "while":
                known = re.search(
                    r'known_trip_count":\{"n":"(\d+)"', place.caller.attributes
                )
                if known is None:
                    return (), None, ""
                trips.insert(0, int(known[1]))
                if found := _LAYERS.search(place.caller.op_name):
                    layers, stack = len(trips), found[1]  # counted from the innermost
            place = self._places.get(place.inside.name)
        return tuple(trips), None if layers is None else len(trips) - layers, stack

    def flops(self, i: Instruction, inside: Computation) -> tuple[float, float]:
        """Of the matmuls in an instruction; and one an element of all that calculates
        one by one, as XLA's cost analysis counts."""
        called = i.called.get("calls") if i.opcode == "fusion" else None
        if called is None:
            return matmul_flops(i, inside), _elementwise(i, inside)
        body = self.module.computations[called]
        each = [self.flops(j, body) for j in body.instructions.values()]
        return sum(m for m, _ in each), sum(e for _, e in each)

    def num_bytes(self, i: Instruction, inside: Computation) -> float:
        """Read and written, each operand once; of what is sliced in it, the slices."""
        operands = [inside.instructions.get(o) for o in i.operands]
        if i.opcode != "fusion" or "calls" not in i.called:
            if i.opcode == "dynamic-slice":
                return 2.0 * i.num_bytes
            return float(i.num_bytes + sum(o.num_bytes for o in operands if o))
        body = self.module.computations[i.called["calls"]]
        total = 0.0
        for parameter in body.parameters().values():
            total += _read(parameter, body)
        return total + _written(body.root, body)


def _elementwise(i: Instruction, inside: Computation) -> float:
    if i.opcode in ("reduce", "reduce-window", "sort"):
        operand = inside.instructions.get(i.operands[0])
        return float(operand.arrays[0].size) if operand and operand.arrays else 0.0
    return (
        float(i.arrays[0].size) if _ARITHMETIC.fullmatch(i.opcode) and i.arrays else 0.0
    )


def _read(parameter: Instruction, body: Computation) -> float:
    users = [i for i in body.instructions.values() if parameter.name in i.operands]
    if users and all(u.opcode == "dynamic-slice" for u in users):
        return float(sum(u.num_bytes for u in users))
    if users and all(
        u.opcode == "dynamic-update-slice" and u.operands[0] == parameter.name
        for u in users
    ):
        return 0.0  # updated in place
    return float(parameter.num_bytes)


def _written(root: Instruction, body: Computation) -> float:
    while root.opcode in ("bitcast", "reshape") and root.operands[0] in (
        body.instructions
    ):
        root = body.instructions[root.operands[0]]
    if root.opcode == "tuple":
        return sum(_written(body.instructions[o], body) for o in root.operands)
    if root.opcode == "dynamic-update-slice":
        return float(body.instructions[root.operands[1]].num_bytes)
    return float(root.num_bytes)
