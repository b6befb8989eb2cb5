# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs side by side, from folders and from Vertex Experiments on loopback."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest

from launch import compare
from launch.compare_runs import from_folder
from podium.errors import CloudError, ConfigError
from podium.storage import open_folder
from podium.tracking_start import flat, run_name
from podium.trainer import tracking
from podium.trainer.events import Events
from podium.trainer.metrics import Metrics
from podium.trainer.summary import summary
from podium.trainer.track_vertex import VertexBackend
from podium.trainer.tracking import About, Tracker
from profiling import goodput

FLAGS = ["--experiment=first", "--project=my-project"]


def folder(path, rate, machine=None):
    """A run folder as podium.train leaves it."""
    path.mkdir()
    tree = {"optim": {"peak_lr": rate}, "num_steps": 4, "launch": None}
    if machine:
        tree["launch"] = {"machine": machine, "count": 1, "usd_per_hour": None}
    (path / "config.json").write_text(json.dumps(tree))
    with Events(path) as events:
        events.add("start", step=0)
    with Metrics(path, first_step=0, tensorboard_every=1) as metrics:
        for step in range(1, 5):
            values = {"loss": 4.0 - step * rate, "step_secs": 0.5, "tokens": 64}
            values |= {"tokens_per_sec": 100.0 * step, "input_wait_secs": 0.1}
            metrics.write(step, {**values, "mfu": 0.25})
        metrics.write(4, {"eval_loss": 3.5 - rate})
    return path


FOUR_STEPS = {"first": 1, "last": 4, "secs": 2.0, "wait_secs": 0.4}


def ledger(path, *lines, began=1000.0):
    """The lines of one process, the first of which begin the ledger anew."""
    made = [
        {"time": began + up, "began": began, "up": up, "event": event, **fields}
        for up, event, fields in lines
    ]
    with (path / "events.jsonl").open("w" if began == 1000.0 else "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in made)


def track(path, name):
    """The same in Experiments."""
    about = About(
        run=name,
        workdir=str(path),
        params=flat(json.loads((path / "config.json").read_text())),
        data=[],
        commit="",
        config=str(path),
        checkpoints=str(path / "checkpoints"),
    )
    backend = VertexBackend("my-project", "us-central1", "first")
    tracker = Tracker(backend, about, every=1)
    tracker.start()
    assert not tracker.close("COMPLETE", summary(path), [], 30.0)["missed"]


@pytest.fixture
def pair(google, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_LEAST_SECS", 0.01)
    monkeypatch.chdir(tmp_path)
    a, b = folder(tmp_path / "a", 0.1, "v5e-8"), folder(tmp_path / "b", 0.2)
    track(a, "small")
    track(b, "large")
    return a, b


def rows(capsys):
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if line.strip()}


def test_a_folder_and_its_run_in_experiments_say_the_same(pair, capsys):
    a, _ = pair
    assert compare.main([*FLAGS, f"--runs=small,{a},large"]) == 0
    found = rows(capsys)
    assert found["optim.peak_lr"] == ["0.1", "0.1", "0.2"]
    assert found["loss"] == ["3.6000", "3.6000", "3.2000"]
    assert found["eval_loss"] == ["3.4000", "3.4000", "3.3000"]
    assert found["tokens_per_sec"] == ["250", "250", "250"]
    assert found["mfu"] == ["25.0%"] * 3
    assert found["launch.machine"] == ["v5e-8", "v5e-8", "–"]
    assert "num_steps" not in found


def test_all_runs_of_an_experiment_and_what_is_written(pair, capsys, tmp_path):
    assert compare.main([*FLAGS, "--json", "--output=out"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found] == ["small", "large"]
    assert found[0]["curves"]["loss"] == [
        [step, pytest.approx(4.0 - step * 0.1)] for step in range(1, 5)
    ]
    with (tmp_path / "out" / "runs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["optim.peak_lr"] for row in table] == ["0.1", "0.2"]
    assert float(table[1]["loss"]) == pytest.approx(3.2)
    assert (tmp_path / "out" / "curves.png").stat().st_size > 10_000


class Page(HTMLParser):
    """The texts of a page's table cells, row by row, and all that it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.fetched, self.tags = [], [], []
        self._is_in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset")
        values = [v for k, v in attrs if k in names and not v.startswith("#")]
        self.fetched += values
        self.rows += [[]] if tag == "tr" else []
        self._is_in_cell = tag in ("td", "th")
        if self._is_in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._is_in_cell = self._is_in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._is_in_cell:
            self.rows[-1][-1] += data


def test_the_page_has_the_table_and_the_curves_and_fetches_nothing(tmp_path):
    runs = [folder(tmp_path / "a", 0.1), folder(tmp_path / "<b>&", 0.2)]
    flags = [f"--runs={runs[0]},{runs[1]}", f"--output={tmp_path}/out"]
    assert compare.main(flags) == 0
    text = (tmp_path / "out" / "runs.html").read_text()
    page = Page(text)
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows[""] == ["a", "<b>&"]
    assert rows["where"] == [str(run) for run in runs]
    assert rows["loss"] == ["3.6000", "3.2000"]
    assert rows["optim.peak_lr"] == ["0.1", "0.2"]
    assert "num_steps" not in rows
    assert page.tags.count("svg") == 1
    # Two panels of two curves, each drawn: its legend's line and its own.
    assert text.count("<!-- train -->") == text.count("<!-- held out -->") == 1
    assert not page.fetched
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)


def test_a_page_of_runs_without_curves_says_so(tmp_path):
    path = folder(tmp_path / "a", 0.1)
    (path / "metrics.jsonl").write_text("")
    assert compare.main([f"--runs={path}", f"--output={tmp_path}/out"]) == 0
    text = (tmp_path / "out" / "runs.html").read_text()
    assert "No run has a curve yet" in text
    assert not (tmp_path / "out" / "curves.png").exists()


def test_cost_is_wall_time_at_the_price_of_the_machines(tmp_path):
    path = folder(tmp_path / "a", 0.1, "v5e-8")
    ledger(path, (0, "start", {"step": 0}), (1800, "steps", FOUR_STEPS))
    found = from_folder(path)
    assert found.figures["wall_secs"] == 1800
    assert found.figures["goodput"] == pytest.approx(1.6 / 1800)
    assert found.figures["usd"] == pytest.approx(8 * 1.20 / 2)  # v5e: USD by chip-hour
    (path / "config.json").write_text('{"launch": {"machine": "gone-8"}}')
    assert "usd" not in from_folder(path).figures


def test_goodput_is_that_of_profiling(tmp_path):
    path = folder(tmp_path / "a", 0.1)
    # A crash after the steps, an hour without a process, and two of the steps again.
    ledger(path, (0, "start", {"step": 0}), (10, "steps", FOUR_STEPS))
    again = {"first": 3, "last": 4, "secs": 1.0, "wait_secs": 0.0}
    lines = (0, "start", {"step": 2}), (5, "steps", again), (6, "stop", {"done": True})
    ledger(path, *lines, began=4610.0)
    truth = goodput.as_json(*goodput.read_account(path))
    figures = from_folder(path).figures
    assert (figures["goodput"], figures["wall_secs"]) == (truth["goodput"], 3616.0)
    assert figures["goodput"] == pytest.approx((1.6 / 2 + 1.0) / 3616)


def test_a_job_in_a_bucket_is_compared_as_its_folder(pair, bucket, capsys, tmp_path):
    a, b = pair
    place = f"gs://podium-tests/runs/{tmp_path.name}"
    there = open_folder(f"{place}/run")
    for name in open_folder(b).files():
        there.put(b / name, name)
    assert compare.main([f"--runs={a},{place}"]) == 0
    found = rows(capsys)
    assert found["optim.peak_lr"] == ["0.1", "0.2"]
    assert found["loss"] == ["3.6000", "3.2000"]
    with pytest.raises(ConfigError, match=r"has no run/metrics.jsonl; --runs takes"):
        compare.main([f"--runs={place}-other"])


@pytest.mark.parametrize(
    ("flags", "kind", "said"),
    [
        (["--runs=zzz"], ConfigError, "zzz has no metrics.jsonl"),
        ([*FLAGS, "--runs=zzz"], ConfigError, "there are small, large; a folder is"),
        ([*FLAGS, "--runs=./a"], ConfigError, "first has none of --runs=./a; name"),
        (["--experiment=none", FLAGS[1]], CloudError, "no such experiment"),
        (["--runs=./"], ConfigError, "no metrics.jsonl"),
        (["--experiment=first"], ConfigError, "--project is missing"),
    ],
)
def test_mistakes_are_one_line(pair, monkeypatch, flags, kind, said):
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    with pytest.raises(kind, match=said):
        compare.main(flags)


def test_a_name_is_of_the_experiment_and_a_path_a_folder(pair, capsys, tmp_path):
    folder(tmp_path / "small", 0.4)
    assert compare.main([*FLAGS, "--runs=small,./small"]) == 0
    assert rows(capsys)["optim.peak_lr"] == ["0.1", "0.4"]
    assert compare.main(["--runs=a,small"]) == 0
    assert rows(capsys)["optim.peak_lr"] == ["0.1", "0.4"]


def test_steps_are_whole_in_the_picture_of_a_short_run(tmp_path):
    compare.main([f"--runs={folder(tmp_path / 'a', 0.1)}", f"--output={tmp_path}/out"])
    page = (tmp_path / "out" / "runs.html").read_text()
    # matplotlib writes each label as a comment before its glyphs.
    labels = re.findall(r'id="xtick_\d+">.*?<!-- (\S+) -->', page, re.DOTALL)
    assert {"1", "2", "3", "4"} <= set(labels)
    assert all(label.isdigit() for label in labels)


def test_a_service_that_is_away_for_a_moment_is_asked_again(pair, google, capsys):
    google.fail("GET .*/contexts$", 429, "RESOURCE_EXHAUSTED")
    assert compare.main([*FLAGS, "--runs=small"]) == 0
    assert "again in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "want"),
    [("My_run.1", "my-run-1"), ("a" * 63, "a" * 47 + "-" + "")],
)
def test_names_are_what_vertex_takes(tmp_path, given, want):
    name = run_name(given, tmp_path)
    assert name.startswith(want)
    assert len(name) <= 56
    assert run_name(given, tmp_path) == name


def test_folders_of_one_name_are_not_one_run(tmp_path):
    assert run_name(None, tmp_path) != run_name(None, tmp_path)
