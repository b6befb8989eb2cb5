# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The curves of several runs in one picture."""

from collections.abc import Sequence
from pathlib import Path

from launch.compare_runs import CURVES, Run

_TITLES = {"loss": "train", "eval_loss": "held out"}


def plot(runs: Sequence[Run], folder: Path) -> Path | None:
    """Writes curves.png, a panel a metric; None where no run has a curve."""
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    import matplotlib.pyplot as plt

    shown = [name for name in CURVES if any(run.curves.get(name) for run in runs)]
    if not shown:
        return None
    figure, panels = plt.subplots(
        1,
        len(shown),
        figsize=(6 * len(shown), 4.5),
        layout="constrained",
        squeeze=False,
    )
    for panel, metric in zip(panels[0], shown, strict=True):
        for i, run in enumerate(runs):
            points = run.curves.get(metric)
            if points:
                # Of equal curves each is seen: the later ones are dashed.
                style = ("-", "--", ":", "-.")[i % 4]
                mark = "o" if len(points) < 30 else None
                panel.plot(
                    *zip(*points, strict=True),
                    linestyle=style,
                    marker=mark,
                    markersize=3,
                    color=f"C{i % 10}",
                    label=run.name,
                )
        panel.set(xlabel="step", ylabel="nats per token", title=_TITLES[metric])
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    path = folder / "curves.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
