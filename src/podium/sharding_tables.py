# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The sharding report's tables, for a terminal of any width or a file."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

NARROW = 100  # columns; below, tables leave out what can be worked out
COLLECTIVES = 20  # rows that are printed; JSON has all
KEPT = 6  # shapes of what is kept for the backward pass, the largest first


def print_report(report: dict[str, Any]) -> None:
    """Everything of `podium.sharding_report.make_report`."""
    sizes = [f"{axis}={size}" for axis, size in report["mesh"].items() if size > 1]
    mesh = " x ".join(sizes) or "of one device"
    _print_arrays(f"mesh {mesh}", "tensor", report["tensors"])
    if report["activations"]:
        print()
        _print_arrays("placed by the model", "activation", report["activations"])
        print("times: in the forward pass, + again for the backward pass, a step")
    if "collectives" in report:
        print()
        _print_schedule(report)
    console().print(f"\n{report['params']:,} parameters. Bytes on each device:")
    for name, size in report["bytes_per_device"].items():
        if name == "total" and "activations" not in report["bytes_per_device"]:
            name = "total but activations"
        print(f"  {name.replace('_', ' '):<22}{size_text(size):>12}")
    if "CPU" in report.get("compiled_for", ""):
        console().print(
            "Activations are those of a CPU's program, which keeps attention's scores and "
            "sums in float32: for a TPU's memory give --topology=NAME."
        )
    for on_host, where in ((False, ""), (True, " in the host's memory")):
        kept = [
            k for k in report.get("kept_for_backward", ()) if k["on_host"] == on_host
        ]
        if kept:
            size = size_text(sum(k["bytes"] for k in kept))
            shapes = Counter(k["shape"] for k in kept).items()
            listed = [f"{n} x {shape}" for shape, n in list(shapes)[:KEPT]]
            listed += [f"{len(shapes) - KEPT} shapes more"] * (len(shapes) > KEPT)
            console().print(
                f"Loops keep {size}{where} for the backward pass:",
                ", ".join(listed),
                markup=False,
                highlight=False,
            )


def console() -> Console:
    """As wide as the terminal; 120 columns where there is none to ask."""
    found = Console()
    return found if found.is_terminal else Console(width=120)


def print_collectives(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of `podium.aot.collectives.table` as plain data."""
    to = console()
    is_timed = any(row["secs"] is not None for row in rows)
    is_wide = to.width >= NARROW
    table = Table(box=None, pad_edge=False)
    table.add_column("collective", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("axis", overflow="fold")
    table.add_column("over", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    if is_timed and is_wide:
        table.add_column("ms", justify="right", no_wrap=True)
        table.add_column("between", justify="right", no_wrap=True)
    if is_timed:
        table.add_column("exposed", justify="right", no_wrap=True)
    table.add_column("for", overflow="fold")
    for row in rows[:COLLECTIVES]:
        times = []
        if is_timed and is_wide:
            between = row["between_secs"] if row["is_async"] else None
            times += [_ms(row["secs"]), "-" if between is None else _ms(between)]
        if is_timed:
            hidden = row["overlap"] == "overlapped"
            times += ["overlapped" if hidden else _ms(row["exposed_secs"])]
        more = f" +{row['num_arrays'] - 1}" if row["num_arrays"] > 1 else ""
        table.add_row(
            row["kind"].removeprefix("collective-"),
            size_text(row["num_bytes"]),
            row["mesh_axes"] or "-",
            row["network"],
            f"{row['count']:,}",
            *times,
            f"{row['phase']} {row['part']}{more}" if row["part"] else "-",
        )
    to.print(table)
    if rest := rows[COLLECTIVES:]:
        share = _cost(rest, is_timed) / (_cost(rows, is_timed) or 1)
        what = "exposed time" if is_timed else "bytes"
        print(f"and {len(rest)} more, {share:.1%} of the {what}; --json has all")
    if is_timed and is_wide:
        print("ms a step on the links; between: the core computes from start to end;")
    if is_timed:
        print("exposed: ms a step that the core waits")


def size_text(num_bytes: float) -> str:
    """'384.0 KiB'."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return (
                f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
            )
        num_bytes /= 1024
    return f"{num_bytes:,.2f} GiB"


def secs_text(secs: float) -> str:
    """'28.34 s', '1.23 ms', '45 us', '3.2 days': three or four figures."""
    if secs >= 2 * 86400:
        return f"{secs / 86400:,.1f} days"
    if secs >= 2 * 3600:
        return f"{secs / 3600:.1f} hours"
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if secs >= size:
            return f"{secs / size:,.2f} {unit}"
    return f"{secs * 1e6:.0f} us"


def _print_arrays(title: str, first: str, rows: Sequence[dict[str, Any]]) -> None:
    to = console()
    is_wide, has_times = to.width >= NARROW, "forward" in rows[0] if rows else False
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("axis:split by", overflow="fold")
    if is_wide:
        table.add_column("on a device", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    if has_times:
        table.add_column("times", justify="right", no_wrap=True)
    for row in rows:
        name = f"{row['part']} {row['name']}" if has_times else row["name"]
        table.add_row(
            name,
            _dims(row["shape"]),
            " ".join(map(_axis_text, row["logical_axes"], row["spec"])),
            *([_dims(row["local_shape"])] if is_wide else []),
            size_text(row["bytes"]),
            *([_times(row)] if has_times else []),
        )
    to.print(table)


def _print_schedule(report: dict[str, Any]) -> None:
    rows = report["collectives"]
    print(f"collectives of a step compiled for {report['compiled_for']}")
    if not rows:
        print("none")
        return
    print_collectives(rows)
    if not any(row["is_async"] for row in rows) and rows[0]["secs"] is None:
        print(
            "All are synchronous on CPUs: exposed. --topology=v4-256 asks the TPU's "
            "compiler."
        )


def _cost(rows: Sequence[dict[str, Any]], is_timed: bool) -> float:
    if is_timed:
        return sum(row["exposed_secs"] for row in rows)
    return sum(row["num_bytes"] * row["count"] for row in rows)


def _ms(secs: float) -> str:
    ms = secs * 1e3
    return f"{ms:,.1f}" if ms >= 0.1 or ms == 0 else f"{ms:.3f}"


def _dims(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _times(row: dict[str, Any]) -> str:
    again = f"+{row['recompute']}" if row["recompute"] else ""
    return f"{row['forward']}{again}"


def _axis_text(logical: str | None, entry: Any) -> str:
    split = "*".join(entry) if isinstance(entry, list | tuple) else entry
    return f"{logical or '-'}:{split}" if split else str(logical or "-")
