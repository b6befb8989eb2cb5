# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of what runs on a host; test_end_to_end.py runs them together."""

import gzip
import json
import signal
import subprocess
import sys
import time

import pytest

from launch import job, peers, start_model
from launch.mirror import Mirror
from podium import resume, storage
from podium.errors import ConfigError
from tests.pretrained.folders import check_equal, imported


def spec(pool, index, **pools):
    return json.dumps(
        {
            "cluster": pools,
            "environment": "cloud",
            "task": {"type": pool, "index": index},
            "job": {"any": "thing"} if index else "{}",
        }
    )


POOLS = {"workerpool0": ["a:2222"], "workerpool1": ["b:2222", "c:2222"]}


def test_replicas_are_numbered_over_the_pools_and_meet_at_the_first():
    for place, (pool, index) in enumerate(
        [("workerpool0", 0), ("workerpool1", 0), ("workerpool1", 1)]
    ):
        env = {"CLUSTER_SPEC": spec(pool, index, **POOLS)}
        assert peers.flags(3, env) == [
            "--coordinator=a:2222",
            "--num_processes=3",
            f"--process_id={place}",
        ]
    env["JAX_COORDINATOR_PORT"] = "8476"
    assert peers.flags(3, env)[0] == "--coordinator=a:8476"


def test_hosts_of_a_slice_are_left_to_jax_and_counted():
    env = {"CLUSTER_SPEC": spec("workerpool0", 0, workerpool0=["a:2222"])}
    assert peers.flags(4, env) == ["--num_processes=4"]
    assert peers.flags(1, env) == []
    assert peers.flags(1, {}) == []


@pytest.mark.parametrize(
    ("hosts", "text", "message"),
    [
        (2, spec("workerpool0", 0, **POOLS), "names 3 replicas, the job was submitted"),
        (3, spec("workerpool2", 0, **POOLS), "does not say which replica this is"),
        (3, spec("workerpool1", 2, **POOLS), "does not say which replica this is"),
        (1, "{", "expected what Vertex AI gives a container"),
        (1, "[]", "expected what Vertex AI gives a container"),
        (1, '{"cluster": 5}', "expected what Vertex AI gives a container"),
    ],
)
def test_a_cluster_spec_of_another_shape_is_one_line(hosts, text, message):
    with pytest.raises(ConfigError, match=message):
        peers.flags(hosts, {"CLUSTER_SPEC": text})


def test_one_that_finds_fewer_others_than_it_must_says_so(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "podium.train", "--config=configs/quickstart.py"),
            *(f"--workdir={tmp_path / 'run'}", "--num_processes=4"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "ConfigError: --num_processes=4, but 1 found each other"
    )


def test_the_run_lies_where_vertex_says_or_where_it_is_told():
    base = "gs://b/runs/x"
    env = {
        "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
    }
    assert job.folders(env, None) == {
        "folder": base,
        "checkpoints": f"{base}/checkpoints",
        "model": f"{base}/model",
        "board": f"{base}/logs",
    }
    assert job.folders({}, f"{base}/")["checkpoints"] == f"{base}/checkpoints"
    with pytest.raises(ConfigError, match="AIP_CHECKPOINT_DIR is not set"):
        job.folders({}, None)


def test_ends_are_told_to_vertex_in_its_words():
    assert [job.exit_code(c) for c in (0, 1, 2, 75, -9, -6, -11)] == [
        *(0, 1, 2),
        134,  # saved: try again
        *(137, 134, 139),
    ]


CHILD = "import time, sys; print('up', flush=True); time.sleep(60)"


def test_a_signal_before_there_is_anything_to_save_is_no_failure():
    code = (
        "import sys; from launch import job; "
        f"sys.exit(job.exit_code(job._run([sys.executable, '-c', {CHILD!r}], {{}})))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout
        assert host.stdout.readline() == "up\n"
        host.send_signal(signal.SIGTERM)
        assert host.wait(60) == 134


@pytest.fixture
def place(bucket, request):
    """An address of this test's own."""
    return f"gs://podium-tests/job/{request.node.name}"


def test_a_run_folder_goes_to_the_bucket_and_comes_back(place, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "plots").mkdir(parents=True)
    (one / "tensorboard").mkdir()
    (one / "data").mkdir()
    for name in ("config.json", "plots/loss.png", "tensorboard/events.1", "data/x"):
        (one / name).write_text(name)
    (one / "x.part").write_text("half")
    mirror = Mirror(one, f"{place}/run", f"{place}/logs")
    mirror.sync()
    assert storage.open_folder(place).files() == []  # another host writes it
    (one / "run.lock").touch()
    mirror.sync()
    assert storage.open_folder(place).files() == [
        "logs/events.1",
        "run/config.json",
        "run/plots/loss.png",
    ]
    assert Mirror(two, f"{place}/run", f"{place}/logs").restore() == 2
    assert (two / "plots" / "loss.png").read_text() == "plots/loss.png"
    (one / "config.json").write_text("newer here")
    assert Mirror(one, f"{place}/run", None).restore() == 0
    assert (one / "config.json").read_text() == "newer here"


def test_only_what_changed_is_copied_and_an_event_is_copied_at_once(place, tmp_path):
    (tmp_path / "run.lock").touch()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("1\n")
    folder = storage.open_folder(f"{place}/run")
    with Mirror(tmp_path, f"{place}/run", None, every_secs=3600):
        (tmp_path / "events.jsonl").write_text('{"event": "save"}\n')
        until = time.monotonic() + 60
        while "metrics.jsonl" not in folder.names() and time.monotonic() < until:
            time.sleep(0.05)
        assert folder.read("metrics.jsonl") == b"1\n"
        folder.write("config.json", b"not written again")
        (tmp_path / "metrics.jsonl").write_text("1\n2\n")
    assert folder.read("metrics.jsonl") == b"1\n2\n"
    assert folder.read("config.json") == b"not written again"


def test_a_bucket_that_refuses_is_said_and_ends_nothing(
    place, bucket, tmp_path, capsys
):
    (tmp_path / "run.lock").touch()
    (tmp_path / "config.json").write_text("{}")
    mirror = Mirror(tmp_path, f"{place}/run", None, every_secs=0.01)
    bucket.next(10_000, 403)
    try:
        with mirror:
            time.sleep(0.1)
    finally:
        bucket.left = 0
    said = capsys.readouterr().err
    assert said.count("tried again, training goes on") == 1
    assert f"{place}/run lacks the last metrics of this start" in said


def test_a_model_is_exported_once_and_config_json_says_that_it_is_whole(
    place, tmp_path, capfd
):
    workdir = imported("llama_3_8b", tmp_path)
    there = storage.open_folder(place)
    there.write("model.safetensors", b"of a start that was cut short")
    origin = job.export_model(workdir, place)
    for name in ("config.json", "model.safetensors", "podium.json"):
        (tmp_path / "back").mkdir(exist_ok=True)
        (tmp_path / "back" / name).write_bytes(there.read(name))
    check_equal(tmp_path / "hf", tmp_path / "back")
    assert f"job: the model is in {place}" in capfd.readouterr().err
    assert origin == json.loads((tmp_path / "back" / "podium.json").read_text())
    assert job.export_model(workdir, place) == origin
    assert not capfd.readouterr().err  # it is there
    assert job.export_model(tmp_path / "nothing", f"{place}-other") is None
    assert f"is not exported to {place}-other: see above" in capfd.readouterr().err


def test_the_bootstrap_refuses_an_archive_that_is_damaged(bucket, tmp_path):
    data = gzip.compress(b"not what was sent")
    storage.open_folder("gs://podium-tests/packages").write("x.tar.gz", data)
    done = subprocess.run(
        [
            *(sys.executable, "launch/bootstrap.py"),
            *("gs://podium-tests/packages/x.tar.gz", "0" * 64, "tpu"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "x.tar.gz is damaged; delete it, and launch again" in done.stderr


def test_a_model_in_a_bucket_is_one_to_start_from(tmp_path, bucket):
    workdir = imported("llama_3_8b", tmp_path)
    place = f"gs://podium-tests/models/{tmp_path.name}"
    there = storage.open_folder(place)
    for name in storage.open_folder(workdir).files():
        there.put(workdir / name, name)
    found = start_model.fetch(place, tmp_path / "fetched")
    assert not (found / "checkpoints").exists()
    assert (found / "pretrained" / "config.json").exists()
    assert resume.find_checkpoint(found) == 0
    with pytest.raises(
        ConfigError, match=r"has no config.json; copy a whole run folder"
    ):
        start_model.fetch(f"{place}-other", tmp_path / "none")


def test_data_that_is_half_made_stays_on_the_host(tmp_path, bucket):
    workdir = tmp_path / "run"
    for name in ("data/a", "data.partial/b", "checkpoints/1/c", "events.jsonl"):
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / name).write_text("x")
    (workdir / "run.lock").touch()
    place = f"gs://podium-tests/runs/{tmp_path.name}"
    Mirror(workdir, place, None).sync()
    assert storage.open_folder(place).files() == ["events.jsonl"]
