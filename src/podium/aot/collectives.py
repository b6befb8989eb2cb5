# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The collectives of a compiled step as a table: what, along which axes, how often,
hidden behind compute or not, and for which part of the model."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

from podium.aot.grid import Grid
from podium.aot.hlo import Collective, Program
from podium.aot.hlo_text import Source
from podium.aot.roofline import CollectiveRow
from podium.sharding.activations import part_of

# Where other parts of the model have their work done; they are named instead.
_HELPERS = ("models/linear.py", "models/ring_scatter.py", "sharding/constrain.py")
HIDDEN = 0.01  # below this share of its own time the core's wait is called none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Collectives of a step that are alike in all but their place in the program.

    Times are in seconds a step, None where the devices' links are not known.
    """

    kind: str
    num_bytes: int  # of one execution, on a device; see podium.aot.hlo
    mesh_axes: str  # see Grid.axes
    group_size: int
    network: str  # ICI, DCN, or host
    count: int  # executions a step
    is_async: bool
    overlap: str  # overlapped, partly, exposed
    phase: str  # forward, recompute, backward, update; '' where the compiler lost it
    part: str  # of the source: "Attention", "Transformer.logits"
    sources: list[str]  # file:line
    num_arrays: int  # moved together; `part` is of the first
    secs: float | None
    exposed_secs: float | None
    between_secs: float | None  # computed between starts and ends
    instructions: list[str]  # of the program


def without_times(program: Program, grid: Grid) -> list[CollectiveRow]:
    """The collectives of a program for devices whose links are not known."""
    found: dict[str, CollectiveRow] = {}
    for times, c in program.flat():
        if not isinstance(c, Collective):
            continue
        row = found.setdefault(
            c.name,
            CollectiveRow(
                name=c.name,
                kind=c.kind,
                num_bytes=c.num_bytes,
                group_size=c.groups.size or len(grid.slices),
                count=0,
                crosses_slices=grid.crosses_slices(c.groups),
                is_async=c.is_async,
                mesh_axes=grid.axes(c.groups),
                op_name=c.op_name,
                stack_frame=c.stack_frame,
                num_arrays=c.num_arrays,
            ),
        )
        row.count += times
    return list(found.values())


def table(
    found: Iterable[CollectiveRow], sources: dict[int, Source], *, has_times: bool
) -> list[Row]:
    """Alike rows as one, the costliest first: by time, or by bytes where none is known.

    What moves nothing, a group of one device, is left out.
    """
    alike: dict[tuple, list[CollectiveRow]] = {}
    for row in found:
        is_copy = row.kind in ("to host", "from host")
        if row.group_size == 1 and not is_copy:
            continue
        network = "host" if is_copy else "DCN" if row.crosses_slices else "ICI"
        key = (
            *(row.kind, row.num_bytes, row.mesh_axes, row.group_size, network),
            *(row.is_async, phase_of(row.op_name), _part(row, sources), row.num_arrays),
        )
        alike.setdefault(key, []).append(row)
    rows = [_row(key, same, sources, has_times) for key, same in alike.items()]
    return sorted(
        rows,
        key=lambda r: (-(r.exposed_secs or 0) - (r.secs or 0), -r.num_bytes * r.count),
    )


def _row(
    key: tuple, same: Sequence[CollectiveRow], sources: dict[int, Source], timed: bool
) -> Row:
    kind, num_bytes, axes, size, network, is_async, phase, part, num_arrays = key
    places = (source_of(row.stack_frame, sources) for row in same)
    secs, exposed, between = (
        sum(getattr(row, name) for row in same)
        for name in ("secs", "exposed_secs", "between_secs")
    )
    overlap = "partly"
    if not is_async or (timed and not between):
        overlap = "exposed"
    elif exposed <= HIDDEN * secs:
        overlap = "overlapped"
    return Row(
        kind=kind,
        num_bytes=num_bytes,
        mesh_axes=axes,
        group_size=size,
        network=network,
        count=sum(row.count for row in same),
        is_async=is_async,
        overlap=overlap,
        phase=phase,
        part=part,
        sources=sorted({f"{_short(s.file)}:{s.line}" for s in places if s}),
        num_arrays=num_arrays,
        secs=secs if timed else None,
        exposed_secs=exposed if timed else None,
        between_secs=between if timed else None,
        instructions=[row.name for row in same],
    )


def phase_of(op_name: str) -> str:
    """Which part of a step an operation belongs to, by jax's names."""
    if "rematted_computation" in op_name:
        return "recompute"
    if "transpose(" in op_name:
        return "backward"
    if "jvp(" in op_name:
        return "forward"
    return "update" if op_name else ""


def _part(row: CollectiveRow, sources: dict[int, Source]) -> str:
    if source := source_of(row.stack_frame, sources):
        return part_of(source.function, source.file)
    return row.op_name.rpartition("/")[2]


def source_of(frame: int, sources: dict[int, Source]) -> Source | None:
    """The innermost line of this library that is no helper."""
    while frame in sources:
        source = sources[frame]
        path = _short(source.file)
        if path != source.file and path not in _HELPERS:
            return source
        frame = source.caller if source.caller < frame else 0  # callers come first
    return None


def _short(file: str) -> str:
    """The path inside the library; unchanged for files of others."""
    parts = pathlib.PurePath(file).parts
    if "podium" not in parts:
        return file
    at = len(parts) - 1 - parts[::-1].index("podium")
    return "/".join(parts[at + 1 :])
