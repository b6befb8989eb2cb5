# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Made-up ledgers whose truth is known, and others that no run would write."""

import itertools
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium import cli, run_folder
from podium.trainer.events import read_lines
from podium.trainer.goodput import PARTS, account
from profiling import goodput

MILLIS = st.integers(0, 100_000)
OPS = st.one_of(
    st.tuples(st.just("steps"), st.integers(1, 9), MILLIS, MILLIS),
    st.tuples(st.sampled_from(["eval", "save", "rest", "rewind"]), MILLIS),
)
ATTEMPTS = st.fixed_dictionaries(
    {
        "gap": MILLIS,
        "init": MILLIS,
        "compile": MILLIS,
        "ops": st.lists(OPS, max_size=8),
        # Lines of it that a kill left behind; more than it has: it was not killed.
        "lines": st.integers(1, 30),
    }
)


class Run:
    """Plays a run: what it writes, and where its time really went."""

    def __init__(self):
        self.now, self.lines, self.saved = 1_795_000_000_000, [], 0
        self.truth = dict.fromkeys(PARTS, 0)
        self.steps: list[int] = []  # milliseconds of each step that counts
        self.is_done = False

    def play(self, gap, init, compile, ops, lines):
        if self.lines:
            self.truth["idle" if self.is_done else "down"] += gap
            self.now += gap
        began, self.is_done, has_steps = self.now, False, False
        plan = self._plan(init, compile, ops)
        # What comes after the last line before a kill is down time.
        for untold, part, millis, wait, line in itertools.islice(plan, lines):
            has_steps |= part == "productive"
            untold_is = "other" if has_steps and self.has_steps else "initialisation"
            self.truth[untold_is] += untold
            self.has_steps = has_steps
            if part == "productive":
                count = line["last"] - line["first"] + 1
                self._lose(line["first"] - 1)
                self.steps += [(millis - wait) // count] * count
                self.truth["data_wait"] += wait
            elif part:
                self.truth[part] += millis
            if line["event"] in ("start", "rewind"):
                self._lose(line["step"] if "step" in line else line["to"])
            if line["event"] == "checkpoint":
                self.saved = line["step"]
            self.is_done = line["event"] == "stop"
            self.now += untold + millis
            up = (self.now - began) / 1000
            times = {"time": self.now / 1000, "began": began / 1000, "up": up}
            secs = {"secs": millis / 1000, "wait_secs": wait / 1000} if part else {}
            self.lines.append({**times, **secs, **line})

    def _plan(self, init, compile, ops):
        """Each line, and the milliseconds before it: untold, of a part, waiting."""
        self.has_steps = False
        at = self.saved
        yield init, None, 0, 0, {"event": "start", "step": at}
        yield 0, "compile", compile, 0, {"event": "compile"}
        untold = 0
        for kind, *numbers in ops:
            if kind == "steps":
                count, each, wait = numbers
                line = {"event": "steps", "first": at + 1, "last": at + count}
                at += count
                yield untold, "productive", count * each + wait, wait, line
            elif kind == "eval":
                yield untold, "evaluation", numbers[0], 0, {"event": "eval"}
            elif kind == "save":
                line = {"event": "checkpoint", "step": at}
                yield untold, "checkpoint", numbers[0], 0, line
            elif kind == "rewind":
                at = self.saved
                lost = untold + numbers[0]  # a step that was under way, say
                yield 0, "lost", lost, 0, {"event": "rewind", "to": at}
            untold = untold + numbers[0] if kind == "rest" else 0
        yield untold, None, 0, 0, {"event": "stop", "done": True}

    def _lose(self, at):
        self.truth["lost"] += sum(self.steps[at:])
        del self.steps[at:]


def sums(found):
    return sum(found.millis.values())


@pytest.mark.parametrize("has_others", [False, True])
def test_a_killed_run_by_hand(has_others):
    def line(began, up, event, **fields):
        times = {"time": began + up, "began": began, "up": up}
        return {**times, "event": event, **fields}

    lines = [
        line(100.0, 5.0, "start", step=0),
        line(100.0, 25.0, "compile", secs=19.0),
        line(100.0, 26.0, "steps", first=1, last=1, secs=1.0, wait_secs=0.5),
        line(100.0, 36.0, "steps", first=2, last=11, secs=10.0, wait_secs=0.0),
        line(100.0, 38.0, "eval", step=11, secs=1.5),
        line(100.0, 39.0, "checkpoint", step=11, secs=1.0),
        line(100.0, 41.0, "saved", step=11, secs=2.0),
        line(100.0, 49.0, "steps", first=12, last=15, secs=10.0, wait_secs=0.0),
        line(100.0, 51.0, "fault", what="hang", secs=2.0),
        # Down from 151 to 160; compiled while the state was read.
        line(160.0, 3.0, "fault", what="damaged checkpoint"),
        line(160.0, 4.0, "start", step=11),
        line(160.0, 10.0, "compile", secs=5.0),
        line(160.0, 14.0, "restore", secs=9.5),
        line(160.0, 15.0, "steps", first=12, last=12, secs=1.0, wait_secs=0.0),
        line(160.0, 16.0, "stop", done=False),
    ]
    if has_others:
        fault = line(90.0, 75.5, "fault", process=3, what="lost process")
        lines = [x for pair in zip(lines, itertools.repeat(fault)) for x in pair]
    found = account(lines)
    first, second = found.attempts
    assert first.millis == dict.fromkeys(PARTS, 0) | {
        "initialisation": 6_000,
        "compile": 19_000,
        "productive": 10_500,
        "data_wait": 500,
        "evaluation": 1_500,
        "checkpoint": 1_000,
        "lost": 10_000 + 2_000,
        "other": 500,
    }
    assert second.millis == dict.fromkeys(PARTS, 0) | {
        "down": 9_000,
        "initialisation": 5_000,
        "compile": 5_000,
        "restore": 4_000,
        "productive": 1_000,
        "other": 1_000,
    }
    assert (first.end, second.end) == ("hang", "stopped, saved")
    assert (first.last_step, second.resumed_at) == (15, 11)
    assert sums(found) == 76_000
    assert found.goodput == 11_500 / 76_000


@pytest.mark.parametrize(
    ("began", "initialisation", "down", "num_jumps"),
    [
        (135.0, 6_000, 5_000, 0),
        (130.0, 6_000, 0, 0),
        (128.0, 4_000, 0, 0),  # it was loading while the one before left
        (124.0, 0, 0, 0),
        (123.0, 6_000, 0, 1),  # it cannot have: a clock was set back
    ],
)
def test_time_that_two_processes_share_counts_once(
    began, initialisation, down, num_jumps
):
    first = {"time": 130.0, "began": 100.0, "up": 30.0, "event": "start", "step": 0}
    second = {**first, "time": began + 6.0, "began": began, "up": 6.0}
    found = account([first, second])
    assert found.attempts[1].millis["initialisation"] == initialisation
    assert found.attempts[1].millis["down"] == down
    assert found.num_clock_jumps == num_jumps


@settings(deadline=None, max_examples=300)
@given(st.lists(ATTEMPTS, min_size=1, max_size=6))
def test_every_millisecond_is_where_it_went(attempts):
    run = Run()
    for attempt in attempts:
        run.play(**attempt)
    found = account(run.lines)
    assert found.millis == run.truth | {"productive": sum(run.steps)}
    first, last = run.lines[0], run.lines[-1]
    assert sums(found) == round(1000 * last["time"]) - round(1000 * first["began"])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(ATTEMPTS, min_size=1, max_size=4),
    st.data(),
)
def test_clocks_that_jump_and_lines_of_others_change_no_attempt(attempts, data):
    run = Run()
    for attempt in attempts:
        run.play(**attempt)
    want = account(run.lines)
    jumps = st.integers(-(10**7), 10**7) | st.floats(-100.0, 100.0)
    shift, lines, gaps, before = 0.0, [], 0, None
    for line in run.lines:
        is_new = before is None or before["began"] != line["began"]
        if is_new or data.draw(st.booleans()):
            shift += data.draw(jumps)
        # A process takes its beginning from the clock once, while it starts.
        began = line["began"] + shift if is_new else lines[-1]["began"]
        moved = {**line, "time": line["time"] + shift, "began": began}
        if is_new and before is not None:
            gap = round(1000 * began) - round(1000 * lines[-1]["time"])
            # A start just before the end of the one before: both ran for a while.
            is_overlap = -round(1000 * line["up"]) <= gap < 0
            gaps += gap if is_overlap else max(0, gap)
        lines.append(moved)
        before = line
    others = {"time": 5.0, "began": 1.0, "up": 4.0, "event": "fault", "process": 2}
    mixed = [x for line in lines for x in (line, others)]
    found = account(mixed)
    lasted = sum(
        round(1000 * max(x["up"] for x in group))
        for _, group in itertools.groupby(run.lines, key=lambda x: x["began"])
    )
    assert sums(found) == lasted + gaps
    for part in set(PARTS) - {"down", "idle", "initialisation"}:
        assert found.millis[part] == want.millis[part]


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=1),
)
NAMES = [
    "start",
    "compile",
    "restore",
    "rewind",
    "steps",
    "eval",
    "checkpoint",
    "stop",
    "fault",
]
LINES = st.fixed_dictionaries(
    {"time": ANYTHING | st.floats(0, 99), "event": st.sampled_from(NAMES) | ANYTHING},
    optional={
        "began": ANYTHING | st.sampled_from([0.0, 7.0]),
        "up": ANYTHING | st.floats(0, 99),
        "secs": ANYTHING | st.floats(-9, 99),
        "wait_secs": ANYTHING | st.floats(-9, 99),
        **{
            name: ANYTHING | st.integers(0, 9)
            for name in ("step", "first", "last", "to")
        },
        "what": ANYTHING,
        "process": st.sampled_from([0, 1]),
    },
)


@settings(deadline=None, max_examples=500)
@given(st.lists(LINES, max_size=12))
def test_no_ledger_is_counted_wrong_or_ends_in_a_traceback(lines):
    found = account(lines)
    assert all(n >= 0 for a in found.attempts for n in a.millis.values())
    # The wall time, worked out without any part: lengths, gaps, overlaps.
    good = [x for x in lines if not x.get("process") and is_timed(x)]
    want, before = 0, None
    for _, group in itertools.groupby(good, key=lambda x: float(x["began"])):
        own = list(group)
        alive = max(0, 0, *(round(1000 * x["up"]) for x in own))
        if before is not None:
            gap = round(1000 * own[0]["began"]) - round(1000 * before)
            if gap >= 0:
                want += gap
            elif -gap <= round(1000 * own[0]["up"]):
                alive = max(0, alive + gap)
        want += alive
        before = own[-1]["time"]
    assert sums(found) == want


def is_timed(line):
    numbers = [line.get(name) for name in ("time", "began", "up")]
    return isinstance(line["event"], str) and all(
        type(n) in (int, float) and abs(n) < 1e12 for n in numbers
    )


@pytest.fixture
def folder(tmp_path):
    run = Run()
    ops = [("steps", 5, 1000, 0), ("save", 500), ("steps", 4, 1000, 10)]
    run.play(0, 3000, 9000, ops, 5)
    run.play(7000, 3000, 100, ops, 99)
    text = "".join(json.dumps(line) + "\n" for line in run.lines)
    (tmp_path / "events.jsonl").write_text(text)
    return tmp_path


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.run(goodput.main, list(arguments))
    return stop.value.code, capsys.readouterr()


def test_the_command_prints_a_table_and_draws(folder, capsys):
    code, out = command(capsys, f"--workdir={folder}")
    assert code == 0
    assert out.out.startswith("Goodput 34.0%: 14.0 s of steps that count in 41.1 s, 2 ")
    assert "lost             4.000    9.7%" in out.out
    assert "down             7.000   17.0%" in out.out
    assert (folder / "plots" / "goodput.png").read_bytes().startswith(b"\x89PNG")


def test_the_json_sums_to_the_wall_time(folder, capsys):
    code, out = command(capsys, f"--workdir={folder}", "--json")
    assert code == 0
    found = json.loads(out.out)
    assert sum(round(1000 * n) for n in found["secs"].values()) == 41_120
    assert found["wall_secs"] == 41.12
    assert [a["end"] for a in found["attempts"]] == [None, "done"]


def test_a_ledger_cut_at_any_byte_can_be_read(folder):
    whole = (folder / "events.jsonl").read_bytes()
    for size in range(1, len(whole), 7):
        (folder / "events.jsonl").write_bytes(whole[:size])
        events, num_bad = read_lines(folder)
        assert len(events) + num_bad == whole[:size].count(b"\n") + (
            whole[size - 1 : size] != b"\n"
        )
        assert num_bad <= 1
        found = account(events)
        assert all(n >= 0 for n in found.millis.values())


@pytest.mark.parametrize(
    "content", [None, "", "nonsense\n", '{"time": 1, "event": 2}\n']
)
def test_a_folder_without_a_ledger_is_one_line_and_exit_code_2(
    tmp_path, capsys, content
):
    if content is not None:
        (tmp_path / "events.jsonl").write_text(content)
    code, out = command(capsys, f"--workdir={tmp_path}")
    assert code == 2
    assert out.err.count("\n") == 1
    assert "events.jsonl" in out.err
    assert not (tmp_path / "plots").exists()


def test_it_needs_no_jax():
    code = "import sys, profiling.goodput, podium.sharding_tables; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not {b"jax", b"numpy", b"tensorflow"} & set(out.stdout.split())


def test_durations_in_words():
    words = map(goodput.in_words, (12_345, 187_000, 7_500_000, 273_600_000))
    assert list(words) == ["12.3 s", "3 min 07 s", "2 h 05 min", "3 d 04 h"]


def test_the_last_attempt_runs_while_its_process_holds_the_lock(tmp_path):
    line = {"time": 2.0, "began": 1.0, "up": 1.0, "event": "start", "step": 0}
    (tmp_path / "events.jsonl").write_text(json.dumps(line) + "\n")

    def end():
        return goodput.read_account(tmp_path)[0].attempts[-1].end

    assert end() == "killed or still running"  # there is no lock to ask
    with run_folder.lock(tmp_path):
        assert end() == "still running"
    assert end() == "killed"
    (tmp_path / "run.lock").write_text("pid 1 on host elsewhere")
    assert end() == "killed or still running"
