# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What profiling.trace prints, for a terminal of any width or a file."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from podium.sharding_tables import console
from profiling import trace_compare
from profiling.trace_read import Trace
from profiling.trace_times import PARTS, Times

_PHASES = ("forward", "recompute", "backward", "update", "")


def show(trace: Trace, found: Times, *, shown: int) -> None:
    """The whole account; `shown` rows of a table at most."""
    steps = f"steps {trace.steps[0]} to {trace.steps[-1]}, " if trace.steps else ""
    print(
        f"{trace.program}: {steps}{_ms(found.step_secs)} ms a step, mean of "
        f"{found.num_steps} whole ones on {found.num_devices} "
        f"{trace.devices[0].kind} devices (the slowest {found.slowest:.2f} times that)."
    )
    _print(
        ("part", "ms", "share", "what"),
        [
            (part.replace("_", " "), _ms(secs), _share(secs, found), PARTS[part])
            for part, secs in found.parts.items()
        ]
        + [("step", _ms(found.step_secs), "100.0%", "the sum")],
    )
    print(f"Collectives hidden under computation: {_ms(found.hidden_secs)} ms a step.")
    for what, secs in found.idle_while.items():
        print(f"Idle while the host was at {what}: {_ms(secs)} ms a step.")
    sent = found.to_device
    if sent.batches:
        rate = sent.num_bytes / sent.secs / 1e6 if sent.secs else 0.0
        print(
            f"Host to devices: {sent.batches} batches, {sent.num_bytes / 1e6:.3g} MB in "
            f"{1000 * sent.secs:.4g} ms of the host's thread, {rate:.4g} MB/s."
        )
    else:
        print("Host to devices: no batch in this trace.")
    _top_ops(found, shown)
    print()
    _by(found, ("scope", "phase"), "named scope", shown)
    print()
    _by(found, ("part", "phase"), "part of the source", shown)
    if found.layers:
        print()
        _layers(found, shown)


def show_changes(before: Times, after: Times, *, shown: int) -> None:
    """Two traces beside each other."""
    print(f"\nAgainst the trace before: {trace_compare.verdict(before, after)}")
    parts = trace_compare.parts(before, after)
    scopes = trace_compare.scopes(before, after)[:shown]
    for title, rows in (("part", parts), ("scope, phase, kind", scopes)):
        _print(
            (title, "before ms", "after ms", "change"),
            [
                (r.name, _ms(r.before), _ms(r.after), f"{1000 * r.change:+.3f}")
                for r in rows
            ],
        )
        print()


def _top_ops(found: Times, shown: int) -> None:
    rows = []
    for row in found.ops[:shown]:
        op, each = row.op, row.busy_each
        rate = f"{op.flops / each / 1e9:.4g}" if op.flops and each else ""
        moved = f"{op.hbm_bytes / each / 1e9:.4g}" if op.hbm_bytes and each else ""
        where = " ".join(word for word in (op.scope or op.part, op.phase) if word)
        rows.append(
            (
                *(op.name, op.kind, _ms(row.secs), _share(row.secs, found)),
                *(f"{row.executions:.4g}", rate, moved, where),
            )
        )
    print()
    heads = ("operation", "kind", "ms", "share", "times", "Gop/s", "GB/s", "where")
    _print(heads, rows)
    if len(found.ops) > shown:
        print(f"{len(found.ops) - shown} more in --json.")


def _by(found: Times, fields: tuple[str, ...], title: str, shown: int) -> None:
    sums = list(found.by(*fields).items())
    rows = [
        (name or "(none)", phase, _ms(secs), _share(secs, found))
        for (name, phase), secs in sums[:shown]
    ]
    _print((title, "phase", "ms", "share"), rows)


def _layers(found: Times, shown: int) -> None:
    phases = [p for p in _PHASES if any(p in sums for sums in found.layers.values())]
    rows = [
        (
            layer,
            *(_ms(sums.get(p, 0.0)) for p in phases),
            _ms(sum(sums.values())),
            _share(sum(sums.values()), found),
        )
        for layer, sums in found.layers.items()
    ]
    heads = ("layer", *(p or "other" for p in phases), "ms", "share")
    if len(rows) > 2 * shown:  # layers are alike: the first and the last tell most
        rows = [*rows[:shown], *rows[-shown:]]
        print(f"The first and last {shown} layers; --json has all.")
    _print(heads, rows)


def _print(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    words = {heads[0], "what", "phase", "where", "kind"}
    for head in heads:
        table.add_column(
            head,
            justify="left" if head in words else "right",
            overflow="fold",
            no_wrap=head not in words,
        )
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console().print(table)


def _ms(secs: float) -> str:
    return f"{1000 * secs:,.3f}"


def _share(secs: float, found: Times) -> str:
    return f"{secs / found.step_secs:.1%}" if found.step_secs else ""
