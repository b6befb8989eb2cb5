# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a search: memory against step time, and the frontier between them."""

from typing import Any

from profiling.search import REMATS
from profiling.search_report import layout_text

GIB = 2**30
_GREY = 7  # of matplotlib's ten; it stands for what does not fit


def plot(found: dict[str, Any], path: str) -> None:
    """Writes a PNG of what `search_report.search` found."""
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    room = found["hbm_capacity_bytes"] / GIB
    figure, axes = plt.subplots(figsize=(11, 5.5), dpi=150, layout="constrained")
    points = [row for row in found["candidates"] if row["step_secs"]]
    palette = [f"C{i}" for i in range(10) if i != _GREY]
    colors = dict(zip(REMATS, palette, strict=False))
    over = [row for row in points if not row["fits"]]
    axes.scatter(*_xy(over), s=7, color="0.85", zorder=1, label="out of memory")
    for remat, color in colors.items():
        mine = [
            row
            for row in points
            if row["fits"] and row["settings"]["model.remat"] == remat
        ]
        if mine:
            axes.scatter(
                *_xy(mine), s=12, color=[color], alpha=0.5, lw=0, zorder=2, label=remat
            )
    best = _frontier([row for row in points if row["fits"]])
    if best:
        axes.step(
            *_xy(best), where="post", color="black", lw=1.2, zorder=3, label="frontier"
        )
    axes.axvline(room, color="black", lw=1, ls="--", zorder=1)
    axes.annotate(
        f"{room:.1f} GiB a chip",
        (room, 0.99),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="top",
        rotation=90,
        fontsize=8,
        zorder=7,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )
    _compiled(axes, found["compiled"])
    rows = found["compiled"] + found["next_best"]
    told = {"best": rows[0]} if rows else {}
    told |= {row["what"]: row for row in found["alternatives"]}
    told |= {"this config": found["own"]} if found["own"]["estimate_fits"] else {}
    _named(axes, told)
    lows = [row["step_secs"] for row in points if row["fits"]] or [1.0]
    axes.set(
        title=f"{found['num_candidates']:,} layouts on {found['topology']}: "
        f"{found['num_feasible']:,} fit",
        xlabel="HBM per chip, GiB (estimated)",
        ylabel="step, s (estimated; at best)",
        xlim=(0, 1.6 * room),
        ylim=(0.9 * min(lows), 4 * min(lows)),
        yscale="log",
    )
    for put in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        put(FuncFormatter(lambda secs, _: f"{secs:g}"))
    axes.grid(alpha=0.25)
    axes.legend(
        title="remat, and layouts by name",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=8,
        title_fontsize=8,
    )
    figure.savefig(path)
    plt.close(figure)


def _compiled(axes: Any, rows: list[dict[str, Any]]) -> None:
    """A star for each compiled layout, and a line from its estimate."""
    label = "compiled (line: from its estimate)"
    for number, row in enumerate(rows, 1):
        if not row["fits"]:
            continue
        guess = row["estimated"]
        x = row["hbm_bytes_per_chip"] / GIB
        axes.plot(
            [guess["hbm_bytes_per_chip"] / GIB, x],
            [guess["step_secs"], row["step_secs"]],
            color="crimson",
            lw=0.8,
            zorder=4,
        )
        axes.scatter(
            [x], [row["step_secs"]], marker="*", s=110, color="crimson", zorder=5,
            label=label,
        )  # fmt: skip
        axes.annotate(
            str(number),
            (x, row["step_secs"]),
            xytext=(6, 3),
            textcoords="offset points",
            fontsize=9,
            zorder=6,
        )
        label = None


def _named(axes: Any, told: dict[str, dict[str, Any]]) -> None:
    """A ring around each layout that the table names in words, and its name in a key."""
    for (what, row), mark in zip(told.items(), "osD^v", strict=False):
        guess = row["estimated"]
        axes.scatter(
            [guess["hbm_bytes_per_chip"] / GIB],
            [guess["step_secs"]],
            marker=mark,
            s=70,
            facecolor="none",
            edgecolor="black",
            lw=1.3,
            zorder=5,
            label=f"{what}:\n{layout_text(row['settings'])}",
        )


def _xy(rows: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [r["hbm_bytes_per_chip"] / GIB for r in rows], [r["step_secs"] for r in rows]


def _frontier(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no other beats in both memory and time, by memory."""
    best: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: (r["hbm_bytes_per_chip"], r["step_secs"])):
        if not best or row["step_secs"] < best[-1]["step_secs"]:
            best.append(row)
    return best
