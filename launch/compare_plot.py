# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The curves of several runs in one picture, as PNG and as text of a page."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.compare_runs import CURVES, Run

_TITLES = {"loss": "train", "eval_loss": "held out"}


def plot(runs: Sequence[Run], folder: Path) -> tuple[Path, str] | None:
    """Writes curves.png, a panel a metric, and returns it with the same as SVG; None
    where no run has a curve."""
    shown = [name for name in CURVES if any(run.curves.get(name) for run in runs)]
    if not shown:
        return None
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    import matplotlib.pyplot as plt

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
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        panel.set(xlabel="step", ylabel="nats per token", title=_TITLES[metric])
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    path = folder / "curves.png"
    figure.savefig(path, dpi=120)
    text = _svg(figure)
    plt.close(figure)
    return path, text


def _svg(figure: Any) -> str:
    """Without the head of a file of its own; the same for the same curves."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "podium"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
