# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A trace as devices, the runs of the step on them, and what each did when.

Of a TPU each core is a plane, '/device:TPU:0', with lines: 'XLA Modules' (a program's
runs), 'XLA Ops' (what the core executes, nested in loops), 'Async XLA Ops' (transfers
beside it), 'Steps'. Of CPU devices all operations lie among the host's threads, each
with the device and the run it belongs to. Times are picoseconds.
"""

import bisect
import collections
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from podium.errors import ConfigError
from profiling import xspace
from profiling.trace_programs import Op, Programs

STEP_PROGRAM = "train_step"
_TPU = re.compile(r"/device:TPU:\d+$")
_ID = 2**64 - 1  # program numbers are signed in one place and unsigned in another


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One execution of an operation on one device."""

    start: int
    end: int
    op: Op
    run: int | None  # of the program


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One execution of a program on one device."""

    program: str
    number: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Something that the host did."""

    name: str
    start: int
    end: int
    stats: dict[str, Any]


@dataclasses.dataclass(kw_only=True)
class Device:
    """What one device did; `runs` are whole ones of the step only."""

    name: str
    host: str
    events: list[Event]
    in_flight: list[Event]  # transfers beside the core
    runs: list[Run]
    peak_flops: float | None = None  # per second, as the trace says
    hbm_bytes_per_sec: float | None = None
    kind: str = "CPU"

    @property
    def window(self) -> tuple[int, int]:
        """From the first whole run to the end of the last."""
        return self.runs[0].start, self.runs[-1].end


@dataclasses.dataclass(kw_only=True)
class Trace:
    """All hosts of a session."""

    path: Path
    program: str  # of the step
    devices: list[Device]
    spans: dict[str, list[Span]]  # by host
    steps: list[int]  # that the hosts dispatched meanwhile


def read(path: Path) -> Trace:
    """Reads a session. Raises ConfigError where it holds no whole step of a device."""
    files = xspace.trace_files(path)
    devices: list[Device] = []
    spans: dict[str, list[Span]] = {}
    names: set[str] = set()
    for file in files:
        host = file.name.removesuffix(".xplane.pb")
        space = xspace.load(file)
        planes = {plane.name: plane for plane in space.planes}
        names |= set(planes)
        metadata = planes.get("/host:metadata")
        programs = Programs(dict(_modules(metadata)))
        cpu = planes.get("/host:CPU")
        spans[host] = [] if cpu is None else list(_spans(cpu))
        found = [
            _tpu_device(plane, host, programs)
            for name, plane in planes.items()
            if _TPU.fullmatch(name)
        ]
        if not found and cpu is not None:
            found = _cpu_devices(cpu, host, programs, _numbers(metadata))
        devices += found
    program = _step_program(devices)
    kept = [whole for d in devices if (whole := _whole_runs(d, program)).runs]
    if not kept:
        raise ConfigError(
            f"{files[0].parent}: no whole step of a device in it (planes: "
            f"{', '.join(sorted(names))}); trace more steps, e.g. "
            "--config.profile.steps=10:15"
        )
    steps = {
        s.stats["step_num"]
        for host in spans.values()
        for s in host
        if s.name == "train" and "step_num" in s.stats
    }
    return Trace(
        path=files[0].parent,
        program=program,
        devices=kept,
        spans=spans,
        steps=sorted(steps),
    )


def _modules(plane: Any) -> Iterator[tuple[int, bytes]]:
    """The programs of a trace: number, HloModuleProto."""
    for number, metadata in () if plane is None else plane.event_metadata.items():
        found = xspace.stats(plane, metadata)
        named = re.search(r"\((\d+)\)$", metadata.name)  # "jit_train_step(7)"
        number = found.get("program_id", int(named[1]) if named else number)
        if proto := found.get("Hlo Proto"):
            yield number & _ID, xspace.hlo_module(proto)


def _spans(plane: Any) -> Iterator[Span]:
    """The host's named work: all that is no operation of a CPU device."""
    is_wanted = {
        number: m.name == "train" or m.name.startswith("podium: ")
        for number, m in plane.event_metadata.items()
    }
    for line in plane.lines:
        for e in line.events:
            if is_wanted.get(e.metadata_id):
                name = plane.event_metadata[e.metadata_id].name
                start = line.timestamp_ns * 1000 + e.offset_ps
                yield Span(name, start, start + e.duration_ps, xspace.stats(plane, e))


def _numbers(plane: Any) -> dict[str, set[int]]:
    """Name of a program -> the numbers of those that have it."""
    found: dict[str, set[int]] = collections.defaultdict(set)
    for metadata in () if plane is None else plane.event_metadata.values():
        if named := re.fullmatch(r"(.+)\((\d+)\)", metadata.name):
            found[named[1]].add(int(named[2]) & _ID)
    return found


def _cpu_devices(
    plane: Any, host: str, programs: Programs, numbers: dict[str, set[int]]
) -> list[Device]:
    """Operations of CPU devices carry: hlo_op, hlo_module, program_id, run_id,
    device_ordinal.

    Those of a program that came from the compile cache carry the number that it had
    where it was compiled; its name leads to the one that it has here.
    """
    events: dict[int, list[Event]] = collections.defaultdict(list)
    modules: dict[tuple[int, int], str] = {}
    ops: dict[tuple[int, str], Op] = {}
    for line in plane.lines:
        for e in line.events:
            found = xspace.stats(plane, e) if len(e.stats) > 3 else {}
            if "hlo_op" not in found:
                continue
            program = found.get("program_id", 0) & _ID
            named = numbers.get(found.get("hlo_module", ""), set())
            if program not in named and len(named) == 1:
                (program,) = named
            key = program, found["hlo_op"]
            if key not in ops:
                ops[key] = programs.op(*key, {})
            start = line.timestamp_ns * 1000 + e.offset_ps
            device, run = found.get("device_ordinal", 0), found.get("run_id", 0)
            modules[device, run] = found.get("hlo_module", "")
            events[device].append(Event(start, start + e.duration_ps, ops[key], run))
    devices = []
    for number, mine in sorted(events.items()):
        mine.sort(key=lambda e: e.start)
        spans: dict[int, tuple[int, int]] = {}
        for e in mine:
            assert e.run is not None
            first, last = spans.get(e.run, (e.start, e.end))
            spans[e.run] = first, max(last, e.end)
        runs = [Run(modules[number, run], run, *at) for run, at in spans.items()]
        runs.sort(key=lambda run: run.start)
        devices.append(
            Device(
                name=f"{host} CPU:{number}",
                host=host,
                events=mine,
                in_flight=[],
                runs=runs,
            )
        )
    return devices


def _tpu_device(plane: Any, host: str, programs: Programs) -> Device:
    lines = {line.name: line for line in plane.lines}
    about = xspace.stats(plane, plane)
    runs = []
    for order, e in enumerate(_sorted(lines.get("XLA Modules"))):
        metadata = plane.event_metadata[e.metadata_id]
        found = xspace.stats(plane, metadata, e)
        start = lines["XLA Modules"].timestamp_ns * 1000 + e.offset_ps
        name = metadata.name.partition("(")[0]
        number = found.get("run_id", order)
        program = found.get("program_id", re.sub(r"\D", "", metadata.name[len(name) :]))
        run = Run(name, number, start, start + e.duration_ps)
        runs.append((run, int(program or 0) & _ID))
    ops: dict[int, Op] = {}
    starts = [run.start for run, _ in runs]

    def events(line: Any) -> list[Event]:
        made = []
        for e in _sorted(line):
            start = line.timestamp_ns * 1000 + e.offset_ps
            at = bisect.bisect_right(starts, start) - 1
            is_in = at >= 0 and start < runs[at][0].end
            if e.metadata_id not in ops:
                metadata = plane.event_metadata[e.metadata_id]
                found = xspace.stats(plane, metadata, e)
                program = found.get("program_id", runs[at][1] if is_in else 0)
                text = metadata.name
                name = metadata.display_name or re.split(r"[ =]", text.lstrip("%"))[0]
                ops[e.metadata_id] = programs.op(int(program) & _ID, name, found, text)
            run = runs[at][0].number if is_in else None
            made.append(Event(start, start + e.duration_ps, ops[e.metadata_id], run))
        return made

    gigabytes = about.get("peak_hbm_bw_gigabytes_per_second")
    teraflops = about.get("peak_teraflops_per_second")
    return Device(
        name=f"{host} {plane.name.removeprefix('/device:')}",
        host=host,
        events=events(lines.get("XLA Ops")),
        in_flight=events(lines.get("Async XLA Ops")),
        runs=[run for run, _ in runs],
        peak_flops=teraflops * 1e12 if teraflops else None,
        hbm_bytes_per_sec=gigabytes * 1e9 if gigabytes else None,
        kind=str(about.get("device_type_string", "TPU")),
    )


def _sorted(line: Any) -> list[Any]:
    return [] if line is None else sorted(line.events, key=lambda e: e.offset_ps)


def _step_program(devices: list[Device]) -> str:
    """The program that ran longest; the trainer's step wherever it ran."""
    times: collections.Counter = collections.Counter()
    for device in devices:
        for run in device.runs:
            times[run.program] += run.end - run.start
    steps = [name for name in times if STEP_PROGRAM in name]
    return next(iter(steps or [name for name, _ in times.most_common(1)]), "")


def _whole_runs(device: Device, program: str) -> Device:
    """With the step's runs alone, but a first and a last one that the trace cut."""
    sizes = collections.Counter(e.run for e in device.events)
    runs = [run for run in device.runs if run.program == program and sizes[run.number]]
    most = max((sizes[run.number] for run in runs), default=0)
    while runs and sizes[runs[0].number] < most:
        runs = runs[1:]
    while runs and sizes[runs[-1].number] < most:
        runs = runs[:-1]
    return dataclasses.replace(device, runs=runs)
