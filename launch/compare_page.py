# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs side by side as one HTML file, which needs nothing else, and no network."""

from collections.abc import Sequence
from html import escape

from launch.compare_runs import Run

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #1b1f24; }
svg { width: 100%; max-width: 80rem; height: auto; }
div { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #d8dee4; text-align: right; }
th:first-child { text-align: left; font-weight: 400; }
td { font-variant-numeric: tabular-nums; }
"""


def page(
    runs: Sequence[Run],
    settings: Sequence[str],
    figures: Sequence[tuple[str, Sequence[str]]],
    curves: str | None,
) -> str:
    """`settings` are the names of those in which the runs differ, `figures` rows of text,
    a value a run, `curves` an SVG."""
    params = [
        (name, [str(run.params.get(name, "–")) for run in runs]) for name in settings
    ]
    where = [("where", [run.where for run in runs])]
    title = escape("Runs: " + ", ".join(run.name for run in runs))
    names = [run.name for run in runs]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>{title}</h1>",
        curves or "<p>No run has a curve yet.</p>",
        _table("Figures", names, [*where, *figures]),
        _table("Settings that differ", names, params)
        if params
        else "<p>All settings are the same.</p>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _table(
    title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th scope=row>{escape(name)}</th>"
        + "".join(f"<td>{escape(value)}</td>" for value in values)
        + "</tr>\n"
        for name, values in rows
    )
    return (
        f"<div><table><caption>{escape(title)}</caption>"
        f"<thead><tr><th></th>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )
