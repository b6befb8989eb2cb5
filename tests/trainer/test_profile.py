# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Traces of a window, and of steps that are asked for while it runs."""

import os
import signal
import socket
import threading

import jax
import jax.numpy as jnp
import pytest

from podium.config import ProfileConfig
from podium.errors import ConfigError
from podium.trainer import profile
from podium.trainer.profile import REQUEST, TraceWindow


@pytest.fixture
def said():
    return []


@pytest.fixture
def window(tmp_path, said, monkeypatch):
    monkeypatch.setattr(profile, "_POLL_SECS", 0.0)
    with TraceWindow(ProfileConfig(), tmp_path, said.append) as made:
        yield made


def run(window: TraceWindow, steps: range) -> None:
    for step in steps:
        window.before(step)
        with window.step(step):
            result = jnp.ones(8) * step
        if window.ends_with(step):
            jax.block_until_ready(result)
            window.stop()


def num_traces(window: TraceWindow) -> int:
    return len(list(window.folder.rglob("*.xplane.pb")))


def test_a_signal_asks_for_five_steps(window, said):
    run(window, range(1, 4))
    assert num_traces(window) == 0
    os.kill(os.getpid(), signal.SIGUSR1)
    run(window, range(4, 12))
    assert said == [f"trace of steps 4 to 8: {window.folder}"]
    assert num_traces(window) == 1


def test_a_file_asks_for_as_many_steps_as_it_says_and_once(window, said):
    (window.folder / REQUEST).write_text("2\n")
    run(window, range(1, 9))
    assert said == [f"trace of steps 1 to 2: {window.folder}"]
    assert num_traces(window) == 1


def test_a_request_of_an_earlier_start_is_past(tmp_path, said, monkeypatch):
    monkeypatch.setattr(profile, "_POLL_SECS", 0.0)
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / REQUEST).touch()
    with TraceWindow(ProfileConfig(), tmp_path, said.append) as window:
        run(window, range(1, 4))
    assert not said


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "100000"])
def test_a_request_that_is_no_number_of_steps_is_said_and_not_fatal(window, said, text):
    (window.folder / REQUEST).write_text(text)
    run(window, range(1, 4))
    (line,) = said
    assert f"says '{text}'; expected a number of steps" in line
    assert num_traces(window) == 0


def test_a_trace_that_cannot_begin_does_not_end_the_run(tmp_path, said):
    with (
        TraceWindow(ProfileConfig(steps="2:4"), tmp_path, said.append) as window,
        jax.profiler.trace(str(tmp_path / "other")),
    ):
        run(window, range(1, 6))
    (line,) = said
    assert line.startswith("warning: no trace: ")


def test_a_run_that_ends_within_the_window_keeps_its_trace(tmp_path, said):
    with TraceWindow(ProfileConfig(steps="2:9"), tmp_path, said.append) as window:
        run(window, range(1, 4))
    assert num_traces(window) == 1


def test_xprof_captures_from_the_port(tmp_path, said):
    from xprof.convert import _pywrap_profiler_plugin as client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    is_done = threading.Event()

    def work():
        step = jax.jit(lambda x: x @ x)
        while not is_done.is_set():
            step(jnp.ones((64, 64))).block_until_ready()

    with TraceWindow(ProfileConfig(port=port), tmp_path, said.append):
        worker = threading.Thread(target=work)
        worker.start()
        log = str(tmp_path / "log")
        try:
            client.trace(f"localhost:{port}", log, "", True, 500, 10, {})
        finally:
            is_done.set()
            worker.join()
    assert said == [f"XProf can capture from port {port}"]
    assert list((tmp_path / "log").rglob("*.xplane.pb"))


def test_a_port_that_is_taken_is_an_error_before_anything_compiles(tmp_path):
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"nothing can listen on port {port}"),
            TraceWindow(ProfileConfig(port=port), tmp_path),
        ):
            pass
