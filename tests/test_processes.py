# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes for real, over gloo: the same run as one process."""

import argparse
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest

from podium import processes, resume
from podium.errors import ConfigError
from podium.trainer.events import read_events
from podium.trainer.metrics import read_metrics
from tests.trainer.test_maintenance import serving

CONFIG = """
from podium.config import SampleConfig
from podium.config_dict import to_config_dict
from podium.config import TrainConfig

def get_config():
    cfg = to_config_dict(TrainConfig(sample=SampleConfig(prompt="to be", num_tokens=8)))
    cfg.num_steps = 6
    cfg.global_batch_seqs = 8
    cfg.log_every_steps = 2
    cfg.model.vocab_size = 272
    cfg.model.num_layers = 2
    cfg.model.embed_dim = 32
    cfg.model.attention.num_heads = 4
    cfg.model.attention.num_kv_heads = 2
    cfg.model.attention.head_dim = 8
    cfg.model.mlp.dim = 64
    cfg.model.dtype = "float32"
    cfg.data.tokenizer = "bytes"
    cfg.data.eval_fraction = 0.25
    cfg.data.seq_len = 32
    cfg.optim.peak_lr = 1e-2
    cfg.optim.schedule.warmup_steps = 2
    cfg.checkpoint.every_steps = 3
    cfg.eval.every_steps = 3
    return cfg
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "text").mkdir()
    for i in range(24):
        text = f"document {i}: " + "to be or not to be, " * (i + 3)
        (folder / "text" / f"{i}.txt").write_text(text)
    (folder / "config.py").write_text(CONFIG)
    return folder


# Four processes on two busy cores may be silent for longer than the 30 s of a real host.
PATIENT = "--config.peer_secs=300"


def start(
    home, run, *more, text="text", num_processes=1, last_env=None
) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "podium.train"),
        f"--config={home / 'config.py'}",
        f"--workdir={home / run}",
        f"--config.data.text={home / text}",
        PATIENT,
        *more,
    ]
    who = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={num_processes}"]
    return [
        subprocess.Popen(
            [*command, *([*who, f"--process_id={i}"] if num_processes > 1 else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (last_env or {} if i == num_processes - 1 else {}),
        )
        for i in range(num_processes)
    ]


def ends(running: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """(exit code, standard output, standard error) of each."""
    try:
        said = [process.communicate(timeout=400) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(p.returncode, *s) for p, s in zip(running, said, strict=True)]


def mesh(**sizes) -> list[str]:
    return [f"--config.mesh.{axis}={size}" for axis, size in sizes.items()]


MESHES = {
    2: mesh(data=2, fsdp=2, tensor=2),
    # Every row lies on two processes, and weights on all four.
    4: mesh(data=1, fsdp=2, context=4, tensor=2),
}


VERIFIED = ["--config.faults.verify_every_steps=4"]


@pytest.mark.parametrize("count", MESHES)
def test_several_processes_train_as_one_does(home, count):
    [(code, _, err)] = ends(start(home, f"one{count}", *MESHES[count]))
    assert code == 0, err
    flags = (*MESHES[count], *(VERIFIED if count == 2 else ()))
    told = ends(start(home, f"many{count}", *flags, num_processes=count))
    assert [code for code, _, _ in told] == [0] * count, told
    want, got = (read_metrics(home / f"{run}{count}") for run in ("one", "many"))
    assert len(got) == len(want) == 8
    for one, many in zip(want, got, strict=True):
        name = "loss" if "loss" in one else "eval_loss"
        assert many[name] == pytest.approx(one[name], rel=1e-5)
    # The first one speaks.
    assert "to be" in told[0][1]
    assert all("step 6" not in out + err for _, out, err in told[1:])
    saved = sorted(p.name for p in (home / f"many{count}" / "checkpoints").iterdir())
    assert saved == ["3", "6"]


def is_named(workdir, number):
    """Whether a process was found to be the slow one."""
    tables = [e for e in read_events(workdir) if e["event"] == "hosts"]
    return number in {table["slowest"] for table in tables}


def steps_of(workdir):
    return [row["step"] for row in read_metrics(workdir) if "loss" in row]


def wait_for_step(workdir, step, running):
    rows = workdir / "metrics.jsonl"
    while not rows.exists() or max(steps_of(workdir), default=0) < step:
        assert all(process.poll() is None for process in running)
        time.sleep(0.1)


def test_a_signal_or_notice_to_one_process_stops_all_after_the_same_step(home):
    long = (*MESHES[2], "--config.num_steps=5000")
    running = start(home, "stop", *long, num_processes=2)
    wait_for_step(home / "stop", 4, running)
    until = time.monotonic() + 120
    while not is_named(home / "stop", 1) and time.monotonic() < until:
        for number in (signal.SIGSTOP, signal.SIGCONT):  # held up half of the time
            running[1].send_signal(number)
            time.sleep(0.5)
    running[1].send_signal(signal.SIGTERM)
    told = ends(running)
    assert [code for code, _, _ in told] == [75, 75], told
    [stop] = [e for e in read_events(home / "stop") if e["event"] == "stop"]
    assert f"stopped at step {stop['step']} of 5000" in told[0][2]
    assert (home / "stop" / "checkpoints" / str(stop["step"])).is_dir()
    assert is_named(home / "stop", 1)
    assert "the others wait for process 1 on" in told[0][2]
    # The same run goes on, until the second host is told that it will end.
    with serving() as server:
        where = {"GCE_METADATA_HOST": f"127.0.0.1:{server.server_port}"}
        running = start(home, "stop", *long, num_processes=2, last_env=where)
        wait_for_step(home / "stop", stop["step"] + 2, running)
        server.values["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
        told = ends(running)
    assert [code for code, _, _ in told] == [75, 75], told
    stops = [e for e in read_events(home / "stop") if e["event"] == "stop"]
    assert steps_of(home / "stop") == list(range(1, stops[1]["step"] + 1))
    assert (home / "stop" / "checkpoints" / str(stops[1]["step"])).is_dir()


@pytest.mark.parametrize(
    ("victim", "number"),
    [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)],
)
def test_who_loses_a_process_leaves_in_bounded_time_and_all_continue(
    home, victim, number
):
    run = f"lost{victim}{int(number)}"
    more = ("--config.num_steps=5000", "--config.peer_secs=5", *MESHES[2])
    running = start(home, run, *more, num_processes=2)
    first = home / run / "checkpoints" / "3" / "checksums.json"
    while not first.exists():
        assert all(process.poll() is None for process in running)
        time.sleep(0.05)
    running[victim].send_signal(number)
    survivor = running[1 - victim]
    _, err = survivor.communicate(timeout=55)
    assert survivor.returncode == 75, err
    last = [line for line in err.splitlines() if "leaving" in line]
    assert "another process of this run" in last[0]
    assert "the same command continues" in last[0]
    running[victim].kill()
    running[victim].communicate()
    if victim:
        [fault] = [e for e in read_events(home / run) if e["event"] == "fault"]
        assert fault["what"] == "lost process"
    saved = resume.latest_step(home / run)
    more = (f"--config.num_steps={saved + 2}", *MESHES[2])
    told = ends(start(home, run, *more, num_processes=2))
    assert [code for code, _, _ in told] == [0, 0], told


def test_who_fails_alone_ends_at_once_and_the_others_leave(home):
    quick = ("--config.peer_secs=5", "--config.eval=None")
    more = ("--config.num_steps=5000", *quick, *MESHES[2])
    running = start(home, "alone", *more, num_processes=2)
    first = home / "alone" / "checkpoints" / "3" / "checksums.json"
    while not first.exists():
        assert all(process.poll() is None for process in running)
        time.sleep(0.05)
    # What it writes from now on ends after some bytes, as on a full disk.
    resource.prlimit(running[1].pid, resource.RLIMIT_FSIZE, (512, 512))
    begun = time.monotonic()
    (code, _, err), (failed, _, why) = ends(running)
    assert (code, failed) == (75, 1), err + why
    assert time.monotonic() - begun < 60  # not the 300 s that the others are given
    assert "another process of this run" in err.splitlines()[-1]
    last = why.splitlines()[-1]
    assert last.startswith("StorageError: a save failed, at step"), why
    assert "too large" in last.lower(), why
    saved = resume.latest_step(home / "alone")
    more = (f"--config.num_steps={saved + 2}", *quick[1:], *MESHES[2])
    told = ends(start(home, "alone", *more, num_processes=2))
    assert [code for code, _, _ in told] == [0, 0], told


def test_what_the_first_process_refuses_all_refuse(home):
    told = ends(start(home, "refused", *MESHES[2], text="none", num_processes=2))
    for process, (code, _, err) in enumerate(told):
        assert code == 2, err
        last = err.strip().splitlines()[-1]
        assert "matches no file" in last or "does not exist" in last
        assert ("on process 0: " in last) == (process == 1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("h:1", None, None), "--num_processes and --process_id missing"),
        (("h:1", 2, 2), "--process_id=2 of --num_processes=2; expected 0 to 1"),
        (("h:1", 0, 0), "expected 0 to 0"),
        (("h", 2, 1), "--coordinator=h; expected HOST:PORT"),
    ],
)
def test_flags_that_do_not_go_together_are_named(given, says):
    names = ("coordinator", "num_processes", "process_id")
    with pytest.raises(ConfigError, match=says):
        processes.join(argparse.Namespace(**dict(zip(names, given, strict=True))), 30)


def test_one_process_decides_for_itself_without_jax():
    code = (
        "import argparse, sys; from podium import processes; "
        "none = dict(coordinator=None, num_processes=None, process_id=None); "
        "ours = processes.join(argparse.Namespace(**none), 30); "
        "assert ours.is_first and ours.decide(lambda: 3) == 3; "
        "assert 'jax' not in sys.modules; print('alone')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "alone", out.stderr
