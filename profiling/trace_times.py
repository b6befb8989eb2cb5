# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where the time of the traced steps went: every moment of a device has one owner.

Of what runs at a moment, matmuls and kernels own it before other operations, those
before collectives, those before copies to and from the host; a loop owns nothing of its
own. So a collective's time is what no computation hides, and the parts sum to the time
from the first step's begin to the last one's end. What nothing owns is idle: waiting
for input where the host waited for a batch just then.

Times are seconds of one step on one device, means over all of the trace.
"""

import bisect
import collections
import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterable, Sequence

from podium.input.device import TO_DEVICE, WAIT
from podium.trainer.profile import EVALUATION, SAVE
from profiling.trace_programs import Op
from profiling.trace_read import Device, Event, Span, Trace

PARTS = {
    "compute": "matmuls and kernels",
    "memory": "other operations: elementwise, reductions, copies, gathers",
    "collective": "exchange between devices that nothing hides",
    "transfer": "copies to and from the host's memory that nothing hides",
    "infeed_wait": "nothing runs, the host waits for a batch",
    "idle": "nothing runs",
}
_RANK = {"compute": 0, "memory": 1, "collective": 2, "transfer": 3, "infeed": 4}
_SECS = 1e-12  # a picosecond


@dataclasses.dataclass(kw_only=True)
class OpRow:
    """One operation over the trace."""

    op: Op
    secs: float = 0.0  # a step that it owned
    executions: float = 0.0  # a step
    busy_secs: float = 0.0  # a step that it ran, alone or not

    @property
    def busy_each(self) -> float:
        """Of one execution, from begin to end."""
        return self.busy_secs / self.executions if self.executions else 0.0


@dataclasses.dataclass(kw_only=True)
class Transfers:
    """Batches that the hosts put on the devices."""

    batches: int = 0
    num_bytes: int = 0
    secs: float = 0.0  # of the host's prefetching thread


@dataclasses.dataclass(kw_only=True)
class Times:
    """The account of a trace."""

    num_steps: int  # whole ones, of the device that has most
    num_devices: int
    step_secs: float
    parts: dict[str, float]
    ops: list[OpRow]  # the costliest first
    layers: dict[str, dict[str, float]]  # "stack/3" -> phase -> secs
    hidden_secs: float  # collectives under computation
    idle_while: dict[str, float]  # what the host did meanwhile
    to_device: Transfers
    slowest: float  # the longest step over the mean one, on any device

    def by(self, *fields: str) -> dict[tuple[str, ...], float]:
        """Seconds of the operations alike in some fields of `Op`, the most first."""
        sums: dict[tuple[str, ...], float] = collections.defaultdict(float)
        for row in self.ops:
            sums[tuple(str(getattr(row.op, f)) for f in fields)] += row.secs
        return dict(sorted(sums.items(), key=lambda item: -item[1]))


def times(trace: Trace) -> Times:
    """Accounts for every moment of every device."""
    parts = dict.fromkeys(PARTS, 0.0)
    rows: dict[Op, OpRow] = {}
    layers: dict[str, collections.Counter] = {}
    idle_while: collections.Counter = collections.Counter()
    hidden, total_runs, slowest = 0, 0, 1.0
    for device in trace.devices:
        start, end = device.window
        total_runs += len(device.runs)
        events = [e for e in device.events if e.start < end and e.end > start]
        beside = [e for e in device.in_flight if e.start < end and e.end > start]
        leaves = [e for e in (*events, *beside) if e.op.kind != "container"]
        num_core = sum(e.op.kind != "container" for e in events)
        owned, gaps = _owners(leaves, num_core, start, end)
        at = _layer_of(leaves)
        for i, (event, ps) in enumerate(zip(leaves, owned, strict=True)):
            kind = "infeed_wait" if event.op.kind == "infeed" else event.op.kind
            parts[kind] += ps
            row = rows.setdefault(event.op, OpRow(op=event.op))
            row.secs += ps
            row.executions += 1
            clipped = min(event.end, end) - max(event.start, start)
            row.busy_secs += clipped
            if event.op.kind == "collective":
                hidden -= ps
            if (layer := at[i]) is not None:
                layers.setdefault(layer, collections.Counter())[event.op.phase] += ps
        sent = _merged(e for e in leaves if e.op.kind == "collective")
        hidden += _overlap([(start, end)], sent)
        spans = trace.spans.get(device.host, [])
        waits = _overlap(gaps, _merged(s for s in spans if s.name == WAIT))
        parts["infeed_wait"] += waits
        parts["idle"] += sum(b - a for a, b in gaps) - waits
        for name in (SAVE, EVALUATION):
            while_it = _overlap(gaps, _merged(s for s in spans if s.name == name))
            idle_while[name.removeprefix("podium: ")] += while_it
        slowest = max(slowest, _slowest(device))
    scale = _SECS / total_runs
    for row in rows.values():
        row.secs *= scale
        row.busy_secs *= scale
        row.executions /= total_runs
    return Times(
        num_steps=max(len(d.runs) for d in trace.devices),
        num_devices=len(trace.devices),
        step_secs=sum(parts.values()) * scale,
        parts={part: ps * scale for part, ps in parts.items()},
        ops=sorted(rows.values(), key=lambda r: -r.secs),
        layers={
            name: {phase: ps * scale for phase, ps in sums.items()}
            for name, sums in sorted(layers.items(), key=_in_order)
        },
        hidden_secs=hidden * scale,
        idle_while={k: ps * scale for k, ps in idle_while.items() if ps},
        to_device=_to_device(trace),
        slowest=slowest,
    )


def _owners(
    leaves: Sequence[Event], num_core: int, start: int, end: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """(picoseconds that each event owns, when nothing runs) within a window.

    Events from `num_core` on lie beside the core: they own what it leaves. Of events
    alike the one that began last owns, as the innermost of nested ones.
    """
    owned, gaps = [0] * len(leaves), []
    order = sorted(range(len(leaves)), key=lambda i: leaves[i].start)
    active: list[tuple[int, int, int]] = []
    now, k = start, 0
    while now < end:
        while k < len(order) and leaves[order[k]].start <= now:
            i = order[k]
            rank = _RANK[leaves[i].op.kind] + (i >= num_core) * len(_RANK)
            heapq.heappush(active, (rank, -leaves[i].start, i))
            k += 1
        while active and leaves[active[0][2]].end <= now:
            heapq.heappop(active)
        following = leaves[order[k]].start if k < len(order) else end
        until = min(end, following)
        if active:
            until = min(until, leaves[active[0][2]].end)
            owned[active[0][2]] += until - now
        else:
            gaps.append((now, until))
        now = until
    return owned, gaps


def _layer_of(leaves: Sequence[Event]) -> list[str | None]:
    """The layer, as "stack/3", of each event: the how manieth run of the loop's body."""
    found: list[str | None] = [None] * len(leaves)
    alike: dict[tuple[int, Op], list[int]] = {}
    for i, event in enumerate(leaves):
        op = event.op
        if op.layer is not None:
            found[i] = f"{op.stack}/{op.layer}"
        elif op.loop is not None and event.run is not None:
            alike.setdefault((event.run, op), []).append(i)
    for (_, op), indices in alike.items():
        assert op.loop is not None
        if len(indices) != math.prod(op.trips):
            continue  # a branch that was not taken each time: no telling which
        inner, num = math.prod(op.trips[op.loop + 1 :]), op.trips[op.loop]
        indices.sort(key=lambda i: leaves[i].start)
        is_reversed = op.phase in ("backward", "recompute")
        for k, i in enumerate(indices):
            layer = k // inner % num
            found[i] = f"{op.stack}/{num - 1 - layer if is_reversed else layer}"
    return found


def _merged(spans: Iterable[Span | Event]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted((s.start, s.end) for s in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _overlap(gaps: list[tuple[int, int]], spans: list[tuple[int, int]]) -> int:
    """Both are in order and free of overlaps."""
    total, ends = 0, [end for _, end in spans]
    for start, end in gaps:
        for a, b in spans[bisect.bisect_right(ends, start) :]:
            if a >= end:
                break
            total += max(0, min(end, b) - max(start, a))
    return total


def _slowest(device: Device) -> float:
    starts = [run.start for run in device.runs]
    secs = [b - a for a, b in itertools.pairwise(starts)]
    return max(secs) * len(secs) / sum(secs) if secs and sum(secs) else 1.0


def _in_order(item: tuple[str, object]) -> tuple[int, int]:
    stack, _, layer = item[0].partition("/")
    return ("prefix", "stack", "tail").index(stack), int(layer)


def _to_device(trace: Trace) -> Transfers:
    found = Transfers()
    for spans in trace.spans.values():
        for span in spans:
            if span.name == TO_DEVICE:
                found.batches += 1
                found.num_bytes += int(span.stats.get("bytes", 0))
                found.secs += (span.end - span.start) * _SECS
    return found
