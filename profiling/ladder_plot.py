# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a scaling ladder: loss over compute, and lines of equal loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from profiling.ladder import Rung
    from profiling.scaling_law import Fit, Interval


def plot(
    rungs: Sequence["Rung"],
    losses: Mapping["Rung", float],
    found: "Fit",
    predicted: "Interval",
    path: Path,
) -> Path:
    """Writes the picture. The largest rung, the last, is shown with its prediction."""
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    widths = sorted({r.width for r in rungs})
    for i, width in enumerate(widths):
        color = plt.get_cmap("viridis")(0.9 * i / max(1, len(widths) - 1))
        mine = [r for r in rungs if r.width == width]
        left.plot(
            [r.flops for r in mine],
            [losses[r] for r in mine],
            "o",
            color=color,
            label=f"width {width}, {_short(mine[0].params)} parameters",
        )
        _curve(left, mine, found, color)
        right.plot([r.params for r in mine], [r.tokens for r in mine], "o", color=color)
    last = rungs[-1]
    left.errorbar(
        last.flops,
        predicted.value,
        [
            [max(0.0, predicted.value - predicted.low)],
            [max(0.0, predicted.high - predicted.value)],
        ],
        fmt="D",
        mfc="none",
        color="#b03a2e",
        capsize=4,
        label="the largest, predicted from the others",
    )
    left.set_xscale("log")
    left.set_yscale("log")
    left.xaxis.set_minor_formatter(NullFormatter())
    left.yaxis.set_major_formatter("{x:.2f}")
    left.yaxis.set_minor_formatter("{x:.2f}")
    left.tick_params(axis="y", which="both", labelsize=8)
    left.set_xlabel("FLOPs of the run")
    left.set_ylabel("held-out loss, nats a token")
    left.set_title("measured (dots) and the fitted law (lines)", fontsize=10)
    left.grid(which="both", alpha=0.25)
    # Below: inside it would lie on a run, whichever corner it takes.
    left.legend(fontsize=8, ncols=2, loc="upper left", bbox_to_anchor=(-0.1, -0.13))
    _equal_loss(right, rungs, found)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path


def _curve(axes: Any, mine: Sequence["Rung"], found: "Fit", color: Any) -> None:
    """The law at one width, from its shortest to its longest run."""
    per_token = mine[0].flops / mine[0].tokens
    tokens = np.geomspace(min(r.tokens for r in mine), max(r.tokens for r in mine), 40)
    values = [found.law.loss(mine[0].params, t) for t in tokens]
    axes.plot(tokens * per_token, values, color=color, lw=1.2)


def _equal_loss(axes: Any, rungs: Sequence["Rung"], found: "Fit") -> None:
    """Lines of equal loss over N and D, and the best of both for a budget."""
    params = np.geomspace(
        min(r.params for r in rungs) / 2, max(r.params for r in rungs) * 4, 60
    )
    tokens = np.geomspace(
        min(r.tokens for r in rungs) / 2, max(r.tokens for r in rungs) * 4, 60
    )
    law = found.law
    loss = (
        law.E + law.A / params[None] ** law.alpha + law.B / tokens[:, None] ** law.beta
    )
    lines = axes.contour(params, tokens, loss, levels=10, cmap="magma", linewidths=0.9)
    axes.clabel(lines, fmt="%.2f", fontsize=7)
    budgets = np.geomspace(6 * params[0] * tokens[0], 6 * params[-1] * tokens[-1], 40)
    best = [law.optimum(float(budget)) for budget in budgets]
    axes.plot(*zip(*best, strict=True), "--", color="#1f618d", label="best for C = 6ND")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(params[0], params[-1])
    axes.set_ylim(tokens[0], tokens[-1])
    axes.set_xlabel("parameters N")
    axes.set_ylabel("tokens D")
    axes.set_title("lines of equal loss, the runs as dots", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")


def _short(value: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"
