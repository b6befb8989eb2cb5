# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The roofline of a trace: each operation's rate over its operations per byte.

Williams, Waterman, Patterson 2009, doi:10.1145/1498765.1498785. A point's area is its
share of the step. The roof is the chip's where the trace tells it; where not, the best
rates that operations of this trace reached, and the picture says so.
"""

from pathlib import Path

from profiling.trace_read import Trace
from profiling.trace_times import OpRow, Times

_COLORS = {"compute": "#2a9d5c", "memory": "#274c77"}
_NAMED = 6  # operations, the costliest
_LEAST = 2e-4  # of the step: what takes less is as long as the clock's own error
_LEAST_INTENSITY = 1e-3  # below: copies that also count an index


def points(found: Times) -> list[OpRow]:
    """The operations with a place in the picture: those that compute, and move bytes."""
    return [
        row
        for row in found.ops
        if row.op.kind in _COLORS
        and row.op.flops > _LEAST_INTENSITY * row.op.hbm_bytes > 0
        and row.secs > _LEAST * found.step_secs
    ]


def roofs(trace: Trace, found: Times) -> tuple[float, float, bool]:
    """(operations a second, bytes a second, whether the chip's own)."""
    flops, rate = trace.devices[0].peak_flops, trace.devices[0].hbm_bytes_per_sec
    if flops and rate:
        return flops, rate, True
    rows = [
        row
        for row in found.ops
        if row.op.kind in _COLORS and row.secs > _LEAST * found.step_secs
    ]
    return (
        max(row.op.flops / row.busy_each for row in rows),
        max(row.op.hbm_bytes / row.busy_each for row in rows),
        False,
    )


def plot(trace: Trace, found: Times, path: Path) -> Path | None:
    """Writes the picture; None where no operation has both operations and bytes."""
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    import matplotlib.pyplot as plt

    rows = points(found)
    if not rows:
        return None
    flops, rate, is_chip = roofs(trace, found)
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for kind, color in _COLORS.items():
        mine = [row for row in rows if row.op.kind == kind]
        axes.scatter(
            [row.op.flops / row.op.hbm_bytes for row in mine],
            [row.op.flops / row.busy_each for row in mine],
            s=[8 + 2500 * row.secs / found.step_secs for row in mine],
            color=color,
            alpha=0.6,
            label=f"{kind}: {found.parts[kind] / found.step_secs:.1%} of the step",
        )
    intensities = [row.op.flops / row.op.hbm_bytes for row in rows]
    ridge = flops / rate
    xs = [min(*intensities, ridge) / 2, ridge, max(*intensities, ridge) * 2]
    axes.plot(xs, [min(flops, x * rate) for x in xs], color="#3d3d3d", lw=1.2)
    whose = "the chip's" if is_chip else "the best seen in this trace"
    axes.set_title(
        f"{trace.program} on {trace.devices[0].kind}; roof ({whose}): "
        f"{flops:.3g} op/s, {rate:.3g} B/s",
        fontsize=10,
    )
    named = sorted(rows[:_NAMED], key=lambda row: -row.op.flops / row.busy_each)
    for number, row in enumerate(named):  # the highest on top: no line crosses another
        where = " ".join(w for w in (row.op.scope or row.op.part, row.op.phase) if w)
        axes.annotate(
            f"{where}\n{row.op.name}, {row.secs / found.step_secs:.1%}",
            (row.op.flops / row.op.hbm_bytes, row.op.flops / row.busy_each),
            xytext=(1.01, 0.95 - 0.13 * number),
            textcoords="axes fraction",
            fontsize=7,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": "#999999",
                "lw": 0.6,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte of memory traffic")
    axes.set_ylabel("operations per second")
    axes.grid(which="major", alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
