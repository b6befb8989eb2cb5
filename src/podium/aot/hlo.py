# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A scheduled program -> the events of a step, in order, loops multiplied out.

Reads the HLO that XLA:TPU schedules: fusions with the compiler's own cycle estimates
and the matmuls inside them, Pallas kernels, collectives with the devices they join, and
where an asynchronous one starts and ends. XLA's `cost_analysis()` counts the body of a
while loop once, so that a scanned model's figures come out too small by about its depth;
here every event carries how often it runs.

Bytes of a collective, per device: the gathered result of an all-gather, the operand of
an all-reduce or reduce-scatter, what is sent in an all-to-all or permute.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Literal

from podium.aot.groups import Groups, parse_groups
from podium.aot.hlo_flops import matmul_flops
from podium.aot.hlo_loops import trip_count
from podium.aot.hlo_names import neighbour
from podium.aot.hlo_text import (
    Computation,
    Instruction,
    Module,
    Source,
    arrays,
    parse,
)
from podium.aot.kernels import kernel_flops

Kind = Literal[
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
    "send",
]
_KINDS: tuple[str, ...] = Kind.__args__  # type: ignore[attr-defined]
_LAID_OUT = re.compile(r"([a-z]\w*\[[\d,]*\])(\{[^}]*\})?")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)")
_HOST = "S(5)"  # the memory space of the host in the compiler's layouts
_COPIES = ("copy-start", "slice-start", "dynamic-slice-start")
_COPIES += ("dynamic-update-slice-start",)
# call-start: on a SparseCore, which lies beside the core on v5p and later; so is
# custom-call-start, which only prepares: with its update it leaves.
_ASYNC = ("async-start", "async-update", "async-done", "call-start", "call-done")
_ASYNC += ("custom-call-start", "custom-call-update", "custom-call-done")
_ASYNC_TARGET = {"AsyncCollectiveStart": "start", "AsyncCollectiveDone": "done"}


@dataclasses.dataclass(frozen=True)
class Compute:
    """One fusion, or another instruction that the core itself executes."""

    name: str
    cycles: int
    flops: float  # of its matmuls
    hbm_bytes: int  # upper bound: operands and results that live in HBM
    op_name: str = ""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Pallas kernel; the compiler has no estimate for it."""

    name: str
    flops: float | None  # None: a kernel that this reader does not know
    hbm_bytes: int
    op_name: str = ""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices."""

    name: str
    kind: Kind
    num_bytes: int  # see the module's head
    groups: Groups
    is_async: bool
    op_name: str = ""
    over_dcn: bool = False  # between slices, through the hosts
    rings: int | None = None  # one-way rings it sends on at once; None: on every link
    stack_frame: int = 0  # a key of `Program.sources`
    num_arrays: int = 1  # that it moves together
    dims: tuple[int, ...] = ()  # of the first array gathered; of others as it is sent


@dataclasses.dataclass(frozen=True)
class HostCopy:
    """Offloaded data on its way between the device and its host; asynchronous."""

    name: str
    num_bytes: int
    to_host: bool
    op_name: str = ""


@dataclasses.dataclass(frozen=True)
class Start:
    """A transfer leaves; its `Done` has the same key."""

    key: str
    transfer: Collective | HostCopy


@dataclasses.dataclass(frozen=True)
class Done:
    """The core waits here for the transfer of that key."""

    key: str


@dataclasses.dataclass(frozen=True)
class Loop:
    """A while loop."""

    name: str
    trips: int
    body: tuple["Event", ...]


Event = Compute | Kernel | Collective | Start | Done | Loop


@dataclasses.dataclass(frozen=True)
class Program:
    """The events of one execution, in scheduled order."""

    events: tuple[Event, ...]
    sources: dict[int, Source] = dataclasses.field(default_factory=dict)

    def flat(self) -> Iterator[tuple[int, Compute | Kernel | Collective | HostCopy]]:
        """(executions, event) of everything that costs; starts as their transfer."""
        yield from _flat(self.events, 1)


def read(text: str, used_rows: float = 1.0) -> Program:
    """The program of `compiled.as_text()`; `used_rows` as in `kernel_flops`."""
    module = parse(text)
    return Program(_Reader(module, used_rows).events(module.entry), module.sources)


def _flat(events: tuple[Event, ...], times: int):
    for event in events:
        match event:
            case Loop():
                yield from _flat(event.body, times * event.trips)
            case Start():
                yield times, event.transfer
            case Done():
                pass
            case _:
                yield times, event


class _Reader:
    def __init__(self, module: Module, used_rows: float):
        self.module, self.used_rows = module, used_rows

    def events(self, name: str) -> tuple[Event, ...]:
        """What a computation does when it runs."""
        computation = self.module.computations[name]
        started: dict[str, Start] = {}
        found: list[Event] = []
        for instruction in computation.instructions.values():
            for event in self._of(instruction, computation):
                event = self._named(event, instruction, computation)
                if isinstance(event, Start):
                    if event.key in started:  # the next step of the same fusion chain
                        continue
                    started[event.key] = event
                found.append(event)
        return tuple(found)

    def _named(self, event: Event, i: Instruction, computation: Computation) -> Event:
        """The same; a collective without a name has its neighbour's."""
        if isinstance(event, Start) and isinstance(event.transfer, Collective):
            transfer = self._named(event.transfer, i, computation)
            return dataclasses.replace(event, transfer=transfer)
        if not isinstance(event, Collective) or event.op_name:
            return event

        def carries(there: Instruction) -> bool:
            if there.opcode != "fusion":
                return there.opcode.endswith(("-update", "-done"))
            inside = self._inside(there.called["calls"]).collectives
            return any(c.name == event.name for c in inside)

        forward = event.kind == "all-gather"
        there = neighbour(i, computation, event.dims, forward=forward, carries=carries)
        if there is None:
            return event
        frame = there.stack_frame
        return dataclasses.replace(event, op_name=there.op_name, stack_frame=frame)

    def _of(self, i: Instruction, computation: Computation) -> Iterator[Event]:
        called = self.module.computations
        if i.opcode == "while":
            trips = trip_count(i, computation, called)
            yield Loop(i.name, trips, self.events(i.called["body"]))
        elif i.opcode == "conditional":
            branches = [self.events(b) for b in i.branches]
            yield from max(branches, key=_cycles, default=())
        elif i.opcode == "call":
            yield from self.events(i.called["to_apply"])
        elif i.opcode in _ASYNC:
            yield from self._async(i, computation)
        elif i.opcode == "send":
            yield Start(_rendezvous(i), _between_slices(i, computation))
        elif i.opcode == "recv-done":
            yield Done(_rendezvous(computation.instructions[i.operands[0]]))
        elif i.opcode.endswith("-done") and _kind(i.opcode, "-done") not in (
            None,
            "send",
        ):
            yield Done(i.operands[0])
        elif i.opcode in _COPIES and _HOST in i.shape:
            yield Start(i.name, _host_copy(i, computation))
        elif i.opcode.endswith("-done") and i.opcode[:-5] + "-start" in _COPIES:
            yield Done(i.operands[0])  # of a copy on the device: no start, no wait
        elif kind := _kind(i.opcode, "-start"):
            is_async = i.opcode.endswith("-start")
            collective = _collective(i, kind, computation, is_async=is_async)
            yield Start(i.name, collective) if is_async else collective
        elif i.opcode == "fusion":
            yield from self._fusion(i, computation)
        elif i.opcode == "custom-call":
            if i.custom_call_target == "tpu_custom_call":
                flops = kernel_flops(i, computation, self.used_rows)
                yield Kernel(i.name, flops, _hbm_bytes(i, computation), i.op_name)
        elif i.cycles:
            yield Compute(i.name, i.cycles, 0.0, _hbm_bytes(i, computation), i.op_name)

    def _async(self, i: Instruction, computation: Computation) -> Iterator[Event]:
        """A start wraps any computation; only collectives matter here."""
        first = i
        while not first.opcode.endswith("-start"):
            first = computation.instructions[first.operands[0]]
        wrapped = self._wrapped(first)
        if wrapped is None:
            return
        leaves = "custom-call-update" if "custom" in first.opcode else first.opcode
        if i.opcode == leaves:
            yield Start(first.name, dataclasses.replace(wrapped, is_async=True))
        elif i.opcode.endswith("-done"):
            yield Done(first.name)

    def _wrapped(self, i: Instruction) -> Collective | None:
        listed = re.search(r"called_computations=\{%?([\w.\-]+)", i.attributes)
        called = i.called.get("calls") or i.called.get("to_apply")
        body = self.module.computations.get(called or (listed[1] if listed else ""))
        if body is None:
            return None
        for inner in body.instructions.values():
            if kind := _kind(inner.opcode, ""):
                return _collective(inner, kind, body, is_async=True)
            if inner.opcode == "fusion" and (found := self._wrapped(inner)):
                return found
        return None

    def _fusion(self, i: Instruction, computation: Computation) -> Iterator[Event]:
        """Computes, and on some chips also carries a step of a collective.

        v5e runs an asynchronous collective as fusions: one that holds the collective
        and starts it, matmuls that each carry a part of it along, one that ends it.
        """
        inside = self._inside(i.called["calls"])
        for collective in inside.collectives:
            key = f"channel {collective.name}"
            if inside.role == "done":
                yield Done(key)
            elif inside.role == "start" or inside.flops:
                yield Start(key, dataclasses.replace(collective, is_async=True))
            else:
                yield collective
        if i.cycles or inside.flops:
            hbm_bytes = _hbm_bytes(i, computation)
            yield Compute(i.name, i.cycles or 0, inside.flops, hbm_bytes, i.op_name)

    @functools.cache  # noqa: B019  (a reader lives as long as its module)
    def _inside(self, name: str) -> "_Inside":
        computation = self.module.computations[name]
        found = _Inside()
        scattered = any(
            i.opcode == "dynamic-slice" for i in computation.instructions.values()
        )
        for i in computation.instructions.values():
            found.flops += matmul_flops(i, computation)
            found.role = _ASYNC_TARGET.get(i.custom_call_target, found.role)
            if kind := _kind(i.opcode, "-start"):
                if kind == "all-reduce" and scattered:
                    kind = "reduce-scatter"  # all-reduce-scatter fusions
                collective = _collective(i, kind, computation, is_async=False)
                channel = re.search(r"channel_id=(\d+)", i.attributes)
                key = channel[1] if channel else i.name
                found.collectives.append(dataclasses.replace(collective, name=key))
            elif i.opcode in ("fusion", "call"):
                nested = self._inside(i.called.get("calls") or i.called["to_apply"])
                found.flops += nested.flops
                found.collectives += nested.collectives
                found.role = nested.role or found.role
        return found


@dataclasses.dataclass
class _Inside:
    """What a fused computation holds, nested ones included."""

    flops: float = 0.0
    collectives: list[Collective] = dataclasses.field(default_factory=list)
    role: str | None = None  # of an asynchronous collective: start or done


def _kind(opcode: str, suffix: str) -> Kind | None:
    name = opcode.removesuffix(suffix) if suffix else opcode
    return name if name in _KINDS else None  # type: ignore[return-value]


def _collective(
    i: Instruction, kind: Kind, computation: Computation, *, is_async: bool
) -> Collective:
    operands = [computation.instructions[o] for o in i.operands]
    if kind == "all-gather":
        # A start's result is (operands, results, ...); the results are the larger.
        num_bytes = max(
            sum(a.num_bytes for a in i.arrays[k : k + len(operands)])
            for k in range(0, len(i.arrays), len(operands))
        )
    elif kind == "ragged-all-to-all":
        num_bytes = operands[0].num_bytes  # then output, offsets and sizes
    else:
        num_bytes = sum(o.num_bytes for o in operands)
    groups = parse_groups(i.attributes)
    return Collective(
        *(i.name, kind, num_bytes, groups, is_async, i.op_name),
        # A SparseCore's strategy: in every "color" one direction of one ring at a time.
        rings=i.attributes.count('"phase_rings"') or None,
        stack_frame=i.stack_frame,
        num_arrays=len(operands),
        dims=(i.arrays[-1] if kind == "all-gather" else operands[0].arrays[0]).dims,
    )


def _rendezvous(i: Instruction) -> str:
    """What a send and the recv that answers it have in common."""
    found = re.search(r'_xla_host_transfer_rendezvous="([^"]*)"', i.attributes)
    return found[1] if found else i.name


def _between_slices(i: Instruction, computation: Computation) -> Collective:
    """XLA turns collectives across slices into a send to the host and a recv of the
    result; the rendezvous still has the name of the collective."""
    name = _rendezvous(i)
    kind = next((k for k in _KINDS if name.startswith(k)), "send")
    sent = computation.instructions[i.operands[0]]
    found = Collective(
        *(i.name, kind, sent.num_bytes, Groups(()), True, i.op_name, True)  # type: ignore[arg-type]
    )
    dims = sent.arrays[0].dims if sent.arrays else ()
    return dataclasses.replace(found, stack_frame=i.stack_frame, dims=dims)


def _host_copy(i: Instruction, computation: Computation) -> HostCopy:
    """A start's result is ((operands), result, ..), a copy's (result, source, ..)."""
    if i.opcode == "dynamic-update-slice-start":
        update = computation.instructions[i.operands[1]]
        return HostCopy(i.name, update.num_bytes, True, i.op_name)
    source = computation.instructions[i.operands[0]]
    results = i.arrays if i.opcode == "copy-start" else i.arrays[1:]
    small = min(a.num_bytes for a in results if a.size > 1)
    return HostCopy(i.name, small, _HOST not in source.shape, i.op_name)


def _cycles(events: tuple[Event, ...]) -> int:
    return sum(e.cycles for e in events if isinstance(e, Compute))


def _hbm_bytes(i: Instruction, computation: Computation) -> int:
    """Operands and results outside the on-chip memories, which layouts mark S(n)."""
    known = computation.instructions
    shapes = [known[o].shape for o in i.operands if o in known]
    return sum(
        arrays(found[1])[0].num_bytes
        for shape in (*shapes, i.shape)
        for found in _LAID_OUT.finditer(shape)
        if not _ON_CHIP.search(found[2] or "")
    )
