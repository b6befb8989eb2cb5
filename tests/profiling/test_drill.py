# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A short drill for real, and what a drill must not let pass."""

import json
import random
import socket
import time

import pytest

from podium.errors import ConfigError
from profiling import drill
from profiling.drill_faults import Played, sigkill
from profiling.drill_hosts import Proxy
from profiling.drill_run import Drill, Pace, Row, first_difference

CONFIG = """
from podium.config import TrainConfig

def get_config():
    return TrainConfig()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the unbroken run, and a drill of SIGTERM that went well."""
    folder = tmp_path_factory.mktemp("drill")
    (folder / "config.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drill, "NUM_STEPS", 60)
        argv = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'runs'}"]
        code = drill.main([*argv, "--faults=term", "--seed=1", "--json"])
    return folder / "runs", code


@pytest.fixture
def again(home):
    """More rows in that folder."""
    folder, _ = home
    rng = random.Random(2)
    return Drill(folder, folder / "config.json", folder / "gold", rng, 1, print, PACE)


PACE = Pace(start=2, loop=1, save=0.2)


def test_a_run_that_is_asked_to_stop_is_green(home):
    folder, code = home
    assert code == 0
    assert (folder / "term" / "start-002-process-0.txt").exists()


def test_a_killed_run_is_green(again):
    result = drill.play(again, "kill", sigkill)
    assert result.ok, result.words
    assert result.words.startswith("1 kills")
    assert result.lost.total > 0


def test_a_run_with_another_seed_is_not(again):
    def other_seed(over):
        """Another seed."""
        row = Row(over, "other-seed", flags=["--config.seed=1"])
        row.finish()
        return Played([row.workdir], "")

    result = drill.play(again, "other-seed", other_seed)
    assert not result.ok
    assert "loss of step 1 is" in result.words
    assert str(again.folder / "other-seed") in result.words


def test_a_run_that_does_not_come_back_is_not_and_is_ended(again):
    hung = []

    def hangs(over):
        """Never ends."""
        row = Row(over, "hangs", wrap=lambda _: ["sh", "-c", "exec sleep 600"])
        row.at_most_secs = 0.5
        hung.append(row)
        row.finish()
        return Played([row.workdir], "")

    begun = time.monotonic()
    result = drill.play(again, "hangs", hangs)
    assert not result.ok
    assert "the run is still there after" in result.words
    assert hung[0].running[0].poll() is not None
    assert time.monotonic() - begun < 60


def test_a_run_that_fails_is_not_and_its_last_line_is_told(again):
    def fails(over):
        """No data."""
        row = Row(over, "fails", flags=["--config.data.paths=/nowhere"])
        row.finish()
        return Played([row.workdir], "")

    result = drill.play(again, "fails", fails)
    assert not result.ok
    assert "ended with 2, expected 0" in result.words
    assert "/nowhere" in result.words


ROWS = [{"step": i, "loss": 1 / i, "grad_norm": 1.0, "param_norm": 2.0} for i in (1, 2)]
ROWS += [{"step": 2, "eval_loss": 0.5}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows, None),
        (lambda rows: [*rows[:1], {**rows[1], "loss": 0.5000000000000001}], "loss of"),
        (lambda rows: [{**rows[0], "step_secs": 9.0}, *rows[1:]], None),
        (
            lambda rows: [*rows[:2], {"step": 2, "eval_loss": 0.6}],
            "eval_loss of step 2",
        ),
        (lambda rows: rows[:2], "the curve has 2 rows, the unbroken one 3"),
        (lambda rows: [rows[0], *rows], "the curve has loss of step 1 where"),
        (lambda rows: rows[1:], "the curve has loss of step 2 where"),
        (lambda rows: [*rows, rows[2]], "the curve has 4 rows"),
        (lambda rows: [{**rows[0], "loss": None}, *rows[1:]], "loss of step 1 is None"),
    ],
)
def test_a_curve_is_the_same_to_the_bit_or_its_difference_is_told(change, words):
    found = first_difference(ROWS, change(ROWS))
    assert found is None if words is None else words in found


def test_what_did_not_go_well_is_in_the_table_and_in_the_code(
    home, capsys, monkeypatch
):
    def bad(_):
        """Bad."""
        raise drill.Failed("why")

    folder, _ = home
    monkeypatch.setitem(drill.FAULTS, "kill", bad)
    monkeypatch.setattr(drill, "unbroken", lambda *_: None)
    argv = [f"--config={folder.parent / 'config.py'}", "--faults=kill", "--seed=3"]
    assert drill.main([*argv, f"--workdir={folder.parent / 'bad'}"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "0 of 1 ok" in out
    assert drill.main([*argv, f"--workdir={folder.parent / 'bad2'}", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["seed"]) == (False, 3)
    assert "why" in found["faults"][0]["words"]


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--faults=disc", "Did you mean 'disk'"),
        ("--kills=0", "--kills is 0"),
        ("--workdir={home}", "not empty"),
    ],
)
def test_mistakes_are_named_before_anything_runs(home, tmp_path, flag, says):
    folder, _ = home
    argv = [f"--config={folder.parent / 'config.py'}", f"--workdir={tmp_path / 'new'}"]
    with pytest.raises(ConfigError, match=says):
        drill.main([*argv, flag.format(home=folder)])


def test_a_severed_proxy_passes_nothing_and_closes_nothing():
    proxy = Proxy()
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy.lead_to(*server.getsockname())
        host, _, port = proxy.address.rpartition(":")
        with socket.create_connection((host, int(port))) as near:
            far, _ = server.accept()
            with far:
                near.sendall(b"one")
                assert far.recv(3) == b"one"
                proxy.sever()
                near.sendall(b"two")
                far.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    far.recv(3)
    proxy.close()
