# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a sweep found: a table, results.csv and a picture."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

from podium.config_sweep import Range, SweepConfig, Value

_SHOWN = 20  # trials in the table, the best first


class Row(NamedTuple):
    """One trial."""

    number: int
    params: dict[str, Value]
    value: float | None  # of the metric, the last that there is
    step: int | None  # of that value
    end: str  # "done", "ended early", "diverged", "failed (1): …", or "" while it runs

    @property
    def is_done(self) -> bool:
        """Whether its value is that of a whole run."""
        return self.end == "done"


def rows_of(study: Any, sweep: SweepConfig) -> list[Row]:
    """All trials, in the order in which they began."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        last = max(trial.intermediate_values, default=None)
        value = None if last is None else trial.intermediate_values[last]
        params = {key: trial.params[key] for key in sweep.space if key in trial.params}
        end = trial.user_attrs.get("end", "")
        found.append(Row(trial.number, params, value, last, end))
    return found


def best(rows: list[Row], sweep: SweepConfig) -> Row | None:
    """The best trial that came to its end."""
    return next((row for row in _ranked(rows, sweep) if row.is_done), None)


def _ranked(rows: list[Row], sweep: SweepConfig) -> list[Row]:
    """Whole ones first, the best of them on top; without a value last."""
    sign = 1 if sweep.goal == "minimize" else -1

    def rank(row: Row) -> tuple[bool, bool, float]:
        return not row.is_done, row.value is None, sign * (row.value or 0.0)

    return sorted(rows, key=rank)


def write_csv(rows: list[Row], path: Path) -> Path:
    """A line a trial."""
    keys = list(rows[0].params)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["trial", *keys, "value", "step", "end"])
        for row in rows:
            params = [row.params.get(key) for key in keys]
            out.writerow([row.number, *params, row.value, row.step, row.end])
    return path


def print_table(rows: list[Row], sweep: SweepConfig) -> None:
    """The best trials."""
    from rich.table import Table
    from rich.text import Text

    from podium.sharding_tables import console

    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    for key in sweep.space:
        table.add_column(key, justify="right", overflow="fold")
    table.add_column(sweep.metric, justify="right", no_wrap=True)
    table.add_column("step", justify="right")
    table.add_column("end", overflow="fold")
    ranked = _ranked(rows, sweep)
    for row in ranked[:_SHOWN]:
        table.add_row(
            str(row.number),
            *(short(row.params.get(key)) for key in sweep.space),
            short(row.value),
            short(row.step),
            Text(row.end or "under way"),
        )
    console().print(table)
    if len(ranked) > _SHOWN:
        print(f"and {len(ranked) - _SHOWN} more, see results.csv")


def plot(rows: list[Row], sweep: SweepConfig, path: Path) -> Path:
    """The metric over the trials, and over each setting that varied."""
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    from matplotlib import pyplot as plt

    keys = list(sweep.space)
    columns = 1 + len(keys) if len(keys) < 4 else 3
    lines = -(-(1 + len(keys)) // columns)
    figure, grid = plt.subplots(
        *(lines, columns),
        figsize=(4 * columns, 3.2 * lines),
        layout="constrained",
        squeeze=False,
    )
    shown = [row for row in rows if row.value is not None]
    places = list(grid.flat)
    _points(places[0], [row.number for row in shown], shown)
    _best_so_far(places[0], shown, sweep)
    places[0].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    places[0].set(xlabel="trial", ylabel=sweep.metric)
    for axes, key in zip(places[1:], keys, strict=False):
        choices = sweep.space[key]
        if isinstance(choices, Range):
            xs: list[Any] = [row.params[key] for row in shown]
            axes.set_xscale(choices.scale)
            # Within a decade matplotlib's own labels lie on one another.
            if choices.scale == "log" and xs and max(xs) < 10 * min(xs):
                axes.xaxis.set_minor_formatter("{x:g}")
                axes.tick_params(axis="x", which="both", labelrotation=45, labelsize=8)
        else:
            xs = [choices.values.index(row.params[key]) for row in shown]
            axes.set_xticks(range(len(choices.values)), map(str, choices.values))
            axes.set_xlim(-0.5, len(choices.values) - 0.5)
        _points(axes, xs, shown)
        axes.set(xlabel=key, ylabel=sweep.metric)
    for axes in places[1 + len(keys) :]:
        axes.axis("off")
    for axes in places[: 1 + len(keys)]:
        axes.grid(alpha=0.3)
    places[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _points(axes: Any, xs: list[Any], rows: list[Row]) -> None:
    for is_done, label, style in (
        (True, "done", {"color": "#2a6fb0"}),
        (False, "ended early, or under way", {"color": "#bbbbbb", "marker": "x"}),
    ):
        some = [
            (x, row.value)
            for x, row in zip(xs, rows, strict=True)
            if row.is_done == is_done
        ]
        if some:
            axes.scatter(*zip(*some, strict=True), s=22, label=label, **style)


def _best_so_far(axes: Any, rows: list[Row], sweep: SweepConfig) -> None:
    better = min if sweep.goal == "minimize" else max
    done = [row for row in rows if row.is_done]
    so_far = [
        better(row.value for row in done[: i + 1] if row.value is not None)
        for i in range(len(done))
    ]
    numbers = [row.number for row in done]
    axes.step(numbers, so_far, where="post", color="#d1495b", label="best so far")


def short(value: Any) -> str:
    """A number in a few digits; - for none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
