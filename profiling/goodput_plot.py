# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a run's time: one stacked bar an attempt, and one for the whole."""

from pathlib import Path
from typing import Any

from podium.trainer.goodput import PARTS, Account

_COLORS = {
    "productive": "#2a9d5c",
    "initialisation": "#8fb8de",
    "compile": "#4a7fb5",
    "restore": "#274c77",
    "data_wait": "#e9c46a",
    "checkpoint": "#f4a261",
    "evaluation": "#9b72cf",
    "lost": "#d1495b",
    "down": "#3d3d3d",
    "idle": "#dddddd",
    "other": "#a89f91",
}
_UNITS = ((172_800, "days", 86_400), (7_200, "hours", 3_600), (120, "minutes", 60))


def plot(found: Account, workdir: Path) -> Path:
    """Writes D/plots/goodput.png."""
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    attempts = found.attempts
    height = min(0.28 * len(attempts), 14.0)  # inches: of many attempts, thinner bars
    figure, (whole, each) = plt.subplots(
        *(2, 1),
        figsize=(10, 3.2 + height),
        height_ratios=[0.6, 0.6 + height],
        layout="constrained",
    )
    millis = found.millis
    _stack(whole, [millis], ["whole"])
    # The first attempt on top.
    _stack(each, [a.millis for a in attempts], range(1, len(attempts) + 1))
    each.invert_yaxis()
    each.set_ylabel("attempt")
    whole.set_title(
        f"{workdir.resolve().name}: goodput {found.goodput:.1%}, attempts: "
        f"{len(attempts)}"
    )
    shown = [part for part in PARTS if millis[part]]
    wall = max(sum(millis.values()), 1)
    handles = [Patch(color=_COLORS[part]) for part in shown]
    labels = [f"{part.replace('_', ' ')} {millis[part] / wall:.1%}" for part in shown]
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    path = workdir / "plots" / "goodput.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _stack(axes: Any, bars: list[dict[str, int]], names: Any) -> None:
    """Horizontal bars, down time first as it came first."""
    longest = max(sum(bar.values()) for bar in bars) / 1000
    unit, secs = next(
        ((u, size) for least, u, size in _UNITS if longest >= least), ("seconds", 1)
    )
    order = ("down", "idle", "initialisation", "compile", "restore", "data_wait")
    order += ("productive", "checkpoint", "evaluation", "lost", "other")
    left = [0.0] * len(bars)
    ys = list(range(len(bars)))
    for part in order:
        widths = [bar[part] / 1000 / secs for bar in bars]
        axes.barh(ys, widths, left=left, color=_COLORS[part], height=0.8)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    # A name for each bar as long as they can be read.
    every = -(-len(bars) // 50)
    axes.set_yticks(ys[::every], [str(name) for name in names][::every])
    axes.set_xlabel(unit)
    axes.set_xlim(0, max([*left, 1e-9]))
    axes.set_ylim(-0.6, len(bars) - 0.4)
