# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The shortest time that a compiled step can take on its chips.

step = fusions + kernels + what of the collectives nothing hides

Fusions by the compiler's own cycle estimates over the core's clock; Pallas kernels,
for which it has none, at 100% of peak (so the bound is optimistic by what they lose);
collectives by bytes over links. The schedule is replayed in order: a synchronous
collective stops the core, and shares its links with what is on its way there; an
asynchronous one fills its links from its start, and costs only what the core still
waits for at its end.
"""

import collections
import dataclasses
from collections.abc import Iterable

from podium.aot.chips import Chip
from podium.aot.grid import Grid
from podium.aot.hlo import (
    Collective,
    Compute,
    Done,
    Event,
    HostCopy,
    Kernel,
    Loop,
    Program,
    Start,
)
from podium.aot.network import DCN, Network


@dataclasses.dataclass(kw_only=True)
class Times:
    """Seconds of one step on one device, and what was done in them."""

    fusion_secs: float = 0.0
    kernel_secs: float = 0.0
    sync_secs: float = 0.0  # synchronous collectives, links shared with others
    sync_link_secs: float = 0.0  # the same on links of their own
    exposed_secs: float = 0.0  # waited for asynchronous ones
    ici_secs: float = 0.0  # all collectives within slices, hidden or not
    dcn_secs: float = 0.0  # all collectives that cross slices, hidden or not
    host_secs: float = 0.0  # all copies to and from host memory, hidden or not
    host_bytes: float = 0.0
    flops: float = 0.0  # executed, recomputation included
    matmul_secs: float = 0.0  # fusions that hold a matmul
    matmul_flops: float = 0.0
    hbm_bytes: float = 0.0  # upper bound, see hlo.Compute

    @property
    def step_secs(self) -> float:
        """The bound."""
        return self.fusion_secs + self.kernel_secs + self.sync_secs + self.exposed_secs

    @property
    def hidden_step_secs(self) -> float:
        """The bound if links were never shared and everything asynchronous was hidden:
        how bounds of other projects are quoted here."""
        return self.fusion_secs + self.kernel_secs + self.sync_link_secs

    def add(self, other: "Times", times: int = 1) -> None:
        """Adds `times` executions of another stretch."""
        for field in dataclasses.fields(self):
            name = field.name
            setattr(self, name, getattr(self, name) + times * getattr(other, name))


@dataclasses.dataclass(kw_only=True)
class CollectiveRow:
    """One collective, or copy to or from the host, of the program over a whole step."""

    name: str
    kind: str
    num_bytes: int  # per execution
    group_size: int
    count: int  # executions a step
    crosses_slices: bool
    is_async: bool
    secs: float = 0.0  # on the links, all executions
    exposed_secs: float = 0.0  # the core waited
    between_secs: float = 0.0  # the core computed from its start to its end
    mesh_axes: str = ""  # see Grid.axes; '' too where no mesh is known
    op_name: str = ""
    stack_frame: int = 0
    num_arrays: int = 1


@dataclasses.dataclass(kw_only=True)
class Roofline:
    """Where a step's time must go."""

    times: Times
    collectives: list[CollectiveRow]
    unknown_kernels: list[str]  # counted as free: the bound is too low for them

    def mfu(
        self, useful_flops: float, chip: Chip, *, async_is_hidden: bool = False
    ) -> float:
        """Useful operations a device does in a step, over what its peak would."""
        times = self.times
        secs = times.hidden_step_secs if async_is_hidden else times.step_secs
        return useful_flops / chip.device_peak_flops / secs


def roofline(program: Program, network: Network, grid: Grid | None = None) -> Roofline:
    """Replays the schedule of one step; `grid` names the axes of its collectives."""
    replay = _Replay(network, grid)
    times = replay.run(program.events, _Clock(), 1)
    rows = sorted(replay.rows.values(), key=lambda r: -(r.exposed_secs + r.secs))
    return Roofline(
        times=times, collectives=rows, unknown_kernels=sorted(replay.unknown)
    )


class _Clock:
    """The core's time, and since when each link is free."""

    def __init__(self):
        self.now = 0.0
        self.computed = 0.0  # of it, what was no waiting
        self.free: dict = {}
        self.delays: dict = collections.defaultdict(float)  # by others, so far

    def occupy(self, links: Iterable, secs: float) -> float:
        """Fills links for `secs` from the moment all are free; returns the end."""
        links = tuple(links)
        begin = max([self.now, *(self.free.get(link, 0.0) for link in links)])
        for link in links:
            self.free[link] = begin + secs
        return begin + secs

    def share(self, links: Iterable, secs: float) -> float:
        """The same for one that begins now: while others are on their way it has half
        of the links, and they end later by what it takes."""
        links = tuple(links)
        busy = max([0.0, *(self.free.get(link, 0.0) - self.now for link in links)])
        for link in links:
            self.free[link] = max(self.free.get(link, 0.0), self.now) + secs
            self.delays[link] += secs
        return self.now + secs + min(secs, busy)

    def delay(self, links: Iterable) -> float:
        """Seconds by which those links have been late since the step began."""
        return max((self.delays[link] for link in links), default=0.0)


class _Replay:
    def __init__(self, network: Network, grid: Grid | None):
        self.network = network
        self.grid = grid
        self.chip = network.where.chip
        self.rows: dict[str, CollectiveRow] = {}
        self.unknown: set[str] = set()

    def run(self, events: tuple[Event, ...], clock: _Clock, runs: int) -> Times:
        """The times of one execution of `events`, which happens `runs` times."""
        total, arrives = Times(), {}
        for event in events:
            match event:
                case Compute() | Kernel():
                    secs = self._compute(event, total)
                    clock.now += secs
                    clock.computed += secs
                case Loop():
                    self._loop(event, clock, runs, total)
                case Collective():
                    end, _ = self._depart(event, clock, runs, total)
                    total.sync_secs += end - clock.now
                    self.rows[event.name].exposed_secs += runs * (end - clock.now)
                    clock.now = end
                case Start():
                    end, links = self._depart(event.transfer, clock, runs, total)
                    on_time = end - clock.delay(links)
                    name = event.transfer.name
                    arrives[event.key] = (on_time, links, clock.computed, name)
                case Done() if event.key in arrives:
                    on_time, links, computed, name = arrives.pop(event.key)
                    wait = max(0.0, on_time + clock.delay(links) - clock.now)
                    total.exposed_secs += wait
                    row = self.rows[name]
                    row.exposed_secs += runs * wait
                    row.between_secs += runs * (clock.computed - computed)
                    clock.now += wait
        return total

    def _loop(self, loop: Loop, clock: _Clock, runs: int, total: Times) -> None:
        """First execution from the state before, the others alike: the second's."""
        if not loop.trips:
            return
        total.add(self.run(loop.body, clock, runs))
        if loop.trips > 1:
            before, computed = clock.now, clock.computed
            steady = self.run(loop.body, clock, runs * (loop.trips - 1))
            total.add(steady, loop.trips - 1)
            skipped = (clock.now - before) * (loop.trips - 2)
            clock.now += skipped
            clock.computed += (clock.computed - computed) * (loop.trips - 2)
            clock.free = {link: t + skipped for link, t in clock.free.items()}

    def _compute(self, event: Compute | Kernel, total: Times) -> float:
        total.hbm_bytes += event.hbm_bytes
        if isinstance(event, Kernel):
            if event.flops is None:
                self.unknown.add(event.name)
            secs = (event.flops or 0.0) / self.chip.device_peak_flops
            total.kernel_secs += secs
            total.flops += event.flops or 0.0
            return secs
        secs = event.cycles / self.chip.clock_hz
        total.fusion_secs += secs
        total.flops += event.flops
        if event.flops:
            total.matmul_secs += secs
            total.matmul_flops += event.flops
        return secs

    def _depart(
        self, c: Collective | HostCopy, clock: _Clock, runs: int, total: Times
    ) -> tuple[float, frozenset]:
        """Puts a transfer on its links; returns when it has arrived, and them."""
        if isinstance(c, HostCopy):
            return self._host(c, clock, runs, total)
        transfer = self.network.transfer(c)
        if not c.is_async:
            total.sync_link_secs += transfer.secs
        take = clock.occupy if c.is_async else clock.share
        end = take(transfer.links, transfer.secs)
        if DCN in transfer.links:
            total.dcn_secs += transfer.secs
        else:
            total.ici_secs += transfer.secs
        row = self.rows.setdefault(
            c.name,
            CollectiveRow(
                name=c.name,
                kind=c.kind,
                num_bytes=c.num_bytes,
                group_size=self.network.where.num_slices
                if c.over_dcn
                else c.groups.size or len(self.network.places),
                count=0,
                crosses_slices=transfer.crosses_slices,
                is_async=c.is_async,
                mesh_axes=self._axes(c),
                op_name=c.op_name,
                stack_frame=c.stack_frame,
                num_arrays=c.num_arrays,
            ),
        )
        row.count += runs
        row.secs += runs * transfer.secs
        return end, transfer.links

    def _axes(self, c: Collective) -> str:
        if self.grid is None:
            return ""
        return (
            self.grid.axes_across_slices() if c.over_dcn else self.grid.axes(c.groups)
        )

    def _host(
        self, c: HostCopy, clock: _Clock, runs: int, total: Times
    ) -> tuple[float, frozenset]:
        secs = c.num_bytes / self.chip.host_bytes_per_sec * self.chip.devices_per_chip
        links = frozenset({("host", c.to_host)})
        end = clock.occupy(links, secs)
        total.host_secs += secs
        total.host_bytes += c.num_bytes
        row = self.rows.setdefault(
            c.name,
            CollectiveRow(
                name=c.name,
                kind="to host" if c.to_host else "from host",
                num_bytes=c.num_bytes,
                group_size=1,
                count=0,
                crosses_slices=False,
                is_async=True,
                op_name=c.op_name,
            ),
        )
        row.count += runs
        row.secs += runs * secs
        return end, links
