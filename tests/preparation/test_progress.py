# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from podium.preparation import progress


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_now_and_then(clock, capsys):
    with progress.Progress("tokenizing", 10_000_000) as stage:
        for _ in range(10):
            clock[0] += 4
            stage.advance(1_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "prepare: tokenizing: 3 of 10 MB, 0.2 MB/s, 28 s left",
        "prepare: tokenizing: 6 of 10 MB, 0.2 MB/s, 16 s left",
        "prepare: tokenizing: 9 of 10 MB, 0.2 MB/s, 4 s left",
        "prepare: tokenizing: done, 10.0 MB in 40.0 s",
    ]


def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Progress("tokenizing", 10_000_000) as stage:
        stage.advance(4_000_000)
        assert stage._bar is not None
        assert stage._bar.tasks[0].completed == 4_000_000
    assert "prepare:" not in capsys.readouterr().err
