# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from podium.config import DataConfig
from podium.errors import DataError
from podium.input import pipeline
from podium.input.loader import Loader
from podium.input.server import InputServer
from podium.input.spec import StreamSpec


def spec_of(folder, *, split="train", batch=4, first_step=0, num_steps=None, **data):
    return StreamSpec(
        data=DataConfig(paths=(str(folder),), seq_len=16, **data),
        split=split,
        seed=3,
        global_batch_seqs=batch,
        rows=range(batch),
        first_step=first_step,
        num_steps=num_steps,
    )


@pytest.fixture(scope="module")
def folder(gold, documents):
    return gold(documents(0, 200, 40), documents(1, 30, 40))


@pytest.fixture(scope="module")
def server():
    with InputServer.start(tf_data_after_steps=None) as server:
        yield server


def drain(stream):
    for _ in stream:
        pass


def assert_batches_equal(got, loader, first_step):
    for step, (got_step, batch) in enumerate(got, first_step):
        assert got_step == step
        np.testing.assert_array_equal(np.stack(batch), loader.read(step))


@pytest.mark.parametrize("prefetch_batches", [1, 2, 5])
@pytest.mark.parametrize("first_step", [0, 10**9])
def test_batches_that_crossed_are_those_of_the_loader(
    server, folder, prefetch_batches, first_step
):
    spec = spec_of(folder, first_step=first_step, prefetch_batches=prefetch_batches)
    stream = server.open(spec)
    got = list(itertools.islice(stream, 12))  # kept: a slot written over would show
    stream.close()
    assert_batches_equal(got, Loader(spec), first_step)


def test_several_streams_at_once_do_not_mix(server, folder):
    specs = [spec_of(folder), spec_of(folder, split="eval"), spec_of(folder, batch=2)]
    streams = [server.open(spec) for spec in specs]
    for _ in range(5):
        for spec, stream in zip(specs, streams, strict=True):
            step, batch = next(stream)
            np.testing.assert_array_equal(np.stack(batch), Loader(spec).read(step))
    for stream in streams:
        stream.close()


def test_an_eval_stream_ends_after_one_pass(server, folder):
    spec = spec_of(folder, split="eval")
    stream = server.open(spec)
    loader = Loader(spec)
    assert len(list(stream)) == stream.info.stop_step == loader.stop_step
    assert stream.info == loader.info()
    with pytest.raises(StopIteration):
        next(stream)
    stream.close()


def test_a_stream_of_n_steps_ends_after_them(server, folder):
    stream = server.open(spec_of(folder, first_step=5, num_steps=3))
    assert [step for step, _ in stream] == [5, 6, 7]
    assert stream.wait_secs > 0


def test_damaged_data_is_an_error_of_next_with_the_loaders_message(
    server, gold, documents
):
    folder = gold(documents(0, 50, 40))
    for path in folder.glob("train-*.tfrecord"):
        data = bytearray(path.read_bytes())
        data[-6] ^= 1
        path.write_bytes(data)
    spec = spec_of(folder)
    stream = server.open(spec)
    with pytest.raises(DataError, match="is damaged") as crossed:
        drain(stream)
    with pytest.raises(DataError) as direct:
        drain(map(Loader(spec).read, itertools.count()))
    assert next(stream, None) is None  # and then the stream is over
    assert str(crossed.value).split(":")[1:] == str(direct.value).split(":")[1:]
    np.testing.assert_equal(next(server.open(spec_of(folder)))[0], 0)  # still serves


def test_a_missing_folder_is_an_error_of_next(server, tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        next(server.open(spec_of(tmp_path)))


def test_the_worker_reads_no_further_ahead_than_prefetch_batches(server, folder):
    stream = server.open(spec_of(folder, prefetch_batches=3))
    next(stream)
    time.sleep(0.3)
    waiting = stream._source._socket.recv(10**6, 0x42)  # MSG_PEEK | MSG_DONTWAIT
    assert len(waiting) == 3 * 13


def test_closing_a_stream_wakes_the_thread_that_waits_for_it(server, folder):
    stream = server.open(spec_of(folder, prefetch_batches=1, num_steps=10**6))
    pid = server.worker("direct")._process.pid
    ended = threading.Event()

    def work():
        drain(stream)
        ended.set()

    thread = threading.Thread(target=work)
    os.kill(pid, signal.SIGSTOP)
    try:
        thread.start()
        time.sleep(0.2)
        assert not ended.is_set()
        stream.close()
        assert ended.wait(10)
    finally:
        os.kill(pid, signal.SIGCONT)
        thread.join()


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGBUS])
def test_a_killed_worker_is_a_data_error_and_no_hang(folder, sig):
    with InputServer.start(tf_data_after_steps=None) as server:
        stream = server.open(spec_of(folder))
        next(stream)
        server.worker("direct")._process.send_signal(sig)
        with pytest.raises(DataError, match=f"was killed by {sig.name}"):
            drain(stream)
        with pytest.raises(DataError, match=f"was killed by {sig.name}"):
            next(server.open(spec_of(folder)))


def test_a_worker_that_fails_leaves_its_last_line(folder, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with InputServer.start(tf_data_after_steps=None) as server:
        stream = server.open(spec_of(folder))
        with pytest.raises(DataError, match=r"ended with exit code 1: \S+"):
            next(stream)


def test_a_closed_server_says_so(folder):
    server = InputServer.start(tf_data_after_steps=None)
    stream = server.open(spec_of(folder))
    next(stream)
    server.close()
    with pytest.raises(DataError, match="server is closed"):
        drain(stream)


def test_ctrl_c_does_not_reach_the_worker(server, folder):
    pid = server.worker("direct")._process.pid
    next(server.open(spec_of(folder)))
    assert os.getpgid(pid) != os.getpgrp()
    os.kill(pid, signal.SIGINT)
    next(server.open(spec_of(folder)))


PARENT = """
import subprocess, sys, time
from podium.config import DataConfig
from podium.input.server import InputServer
from podium.input.spec import StreamSpec
server = InputServer.start(tf_data_after_steps=0)
data = DataConfig(paths=(sys.argv[1],), seq_len=16)
stream = server.open(StreamSpec(
    data=data, split="train", global_batch_seqs=2, rows=range(2)
))
next(stream)
print(*(w._process.pid for w in server._workers.values()), flush=True)
assert "jax" not in sys.modules and "tensorflow" not in sys.modules
if sys.argv[2] == "inherit":
    fds = [w._control.fileno() for w in server._workers.values()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    other = subprocess.Popen(["sleep", "15"], pass_fds=fds, **quiet)
    print("started", flush=True)
if sys.argv[2] != "return":
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["wait", "inherit", "return"])
def test_no_process_is_left_behind(folder, how):
    """While TensorFlow loads. `wait`: the parent is killed; `inherit`: likewise, but a
    process that it started holds its sockets open; `return`: it forgets to close.
    """
    parent = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PARENT, str(folder), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    if how == "inherit":
        assert parent.stdout.readline() == "started\n"
    if how != "return":
        parent.send_signal(signal.SIGKILL)
    _, errors = parent.communicate()
    assert len(pids) == 2
    assert errors == ""
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def is_running(pid):
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_long_stream_moves_to_tf_data_without_a_seam(folder):
    with InputServer.start(tf_data_after_steps=1) as server:
        spec = spec_of(folder, first_step=100, num_steps=10**6)
        stream, loader = server.open(spec), Loader(spec)
        after = 0
        for step, (got_step, batch) in enumerate(stream, 100):
            assert got_step == step
            np.testing.assert_array_equal(np.stack(batch), loader.read(step))
            after += stream.engine == "tf.data"
            if after > 20:
                break
            if stream.engine == "direct":
                time.sleep(0.01)
        maps = pathlib.Path(f"/proc/{server.worker('tf.data')._process.pid}/maps")
        assert "jaxlib" not in maps.read_text()
        assert "tensorflow" in maps.read_text()
        server.worker("tf.data")._process.kill()
        with pytest.raises(DataError, match="was killed by SIGKILL"):
            drain(stream)


def test_a_stream_reads_on_loudly_where_tensorflow_cannot_be_imported(
    folder, tmp_path, monkeypatch, caplog
):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no such wheel')")
    with InputServer.start(tf_data_after_steps=1) as server:
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        stream = server.open(spec_of(folder))
        for _ in stream:
            if "no such wheel" in caplog.text:
                break
        assert "tf.data is not available" in caplog.text
        got = list(itertools.islice(stream, 5))
        assert_batches_equal(got, Loader(spec_of(folder)), got[0][0])
        assert stream.engine == "direct"


def test_a_stream_through_tf_data_ends_and_fails_like_the_direct_one(gold, documents):
    folder = gold(documents(0, 50, 40))
    loader = Loader(spec_of(folder, num_steps=7))
    out = np.empty(loader.shape, np.int32)
    steps = []
    for step, fill in pipeline.tf_data(loader):
        fill(out)
        np.testing.assert_array_equal(out, loader.read(step))
        steps.append(step)
    assert steps == list(range(7))
    for path in folder.glob("train-*.tfrecord"):
        data = bytearray(path.read_bytes())
        data[-6] ^= 1
        path.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        list(pipeline.tf_data(Loader(spec_of(folder))))
