# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import os
import signal

import pytest

from podium.errors import ConfigError, DataError
from podium.preparation.pool import Pool


def test_results_come_in_the_order_of_the_tasks_and_progress_adds_up():
    seen = []
    with Pool(2) as pool:
        done = pool.map(_module("double"), [3, 1, 2], seen.append)
    assert done == [6, 2, 4]
    assert sum(seen) == 6


def test_an_error_of_ours_keeps_its_class_and_message():
    with Pool(1) as pool, pytest.raises(ConfigError, match="no 5"):
        pool.map(_module("refuse"), [5], print)


def test_an_unexpected_error_shows_where_it_was():
    with Pool(1) as pool, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        pool.map(_module("divide"), [0], print)


def test_a_full_disk_is_one_line():
    with Pool(1) as pool, pytest.raises(DataError, match="f: No space left on device"):
        pool.map(_module("full_disk"), [0], print)


def test_a_worker_that_is_killed_is_an_error_and_does_not_hang():
    with Pool(2) as pool, pytest.raises(DataError, match=r"SIGKILL.*num_workers=1"):
        pool.map(_module("die"), [signal.SIGKILL, signal.SIGKILL], print)


def test_workers_know_nothing_of_a_module_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    with Pool(1) as pool:
        assert pool.map(_module("draw"), [0], lambda n: None)[0] < 1


def test_no_worker_is_left_when_the_pool_closes():
    with Pool(2) as pool:
        pids = [p.pid for p in pool._workers.values()]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Workers import functions by name; these are in pool_tasks.py beside this file."""
    folder = os.path.dirname(__file__)
    monkeypatch.setenv("PYTHONPATH", folder)
    monkeypatch.syspath_prepend(folder)


def _module(name):
    import pool_tasks

    return getattr(pool_tasks, name)
