# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a coordinate check: activations over the width, one panel a kind."""

from collections.abc import Sequence
from pathlib import Path

from profiling.coordinates import KINDS, SCHEMES, Power, Row

_TITLES = {
    "embed": "embedding",
    "attention": "attention out",
    "mlp": "MLP out",
    "residual": "residual stream",
    "logits": "logits",
}
_NAMES = {"standard": "standard parametrisation", "mup": "muP"}


def plot(rows: Sequence[Row], powers: Sequence[Power], path: Path) -> Path:
    """Writes the picture: sizes above, changes since step 0 below, a line a step."""
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    schemes = [s for s in SCHEMES if any(r.scheme == s for r in rows)]
    last = max(row.step for row in rows)
    widths = sorted({row.width for row in rows})
    figure = plt.figure(figsize=(13, 4.6 * len(schemes)), layout="constrained")
    for part, scheme in zip(
        figure.subfigures(len(schemes), 1, squeeze=False)[:, 0], schemes, strict=True
    ):
        part.suptitle(_NAMES[scheme], fontsize=12, fontweight="bold")
        panels = part.subplots(2, len(KINDS), sharex=True)
        for i, kind in enumerate(KINDS):
            power = next(p for p in powers if (p.scheme, p.kind) == (scheme, kind))
            for axes, what, slope in (
                (panels[0, i], "size", power.size),
                (panels[1, i], "change", power.change),
            ):
                for step in range(what == "change", last + 1):
                    values = [
                        next(
                            getattr(r, what)
                            for r in rows
                            if (r.scheme, r.kind, r.step, r.width)
                            == (scheme, kind, step, width)
                        )
                        for width in widths
                    ]
                    axes.plot(
                        widths,
                        values,
                        marker="o",
                        ms=3,
                        lw=1.2,
                        color=plt.get_cmap("viridis")(0.9 * step / last),
                        label=f"step {step}",
                    )
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                axes.set_xticks(widths, [str(w) for w in widths], fontsize=8)
                axes.yaxis.set_minor_formatter(NullFormatter())
                axes.tick_params(axis="y", labelsize=8)
                axes.grid(which="major", alpha=0.3)
                axes.set_title(
                    f"{_TITLES[kind] + ': ' if what == 'size' else ''}"
                    f"power {slope:+.2f}",
                    fontsize=9,
                )
        panels[0, 0].set_ylabel("mean |x|", fontsize=9)
        panels[1, 0].set_ylabel("mean |x - x at step 0|", fontsize=9)
        part.supxlabel("model width", fontsize=9)
        panels[0, -1].legend(fontsize=7, loc="best")
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path
