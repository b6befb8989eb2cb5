# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The command on data that is damaged: before it begins, and while it runs."""

import json
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from podium.input.ledger import documents_of_step
from podium.input.manifest import load_manifest
from podium.resume import load_run
from podium.trainer.events import read_events
from podium.trainer.metrics import read_metrics

NUM_STEPS = 12
CONFIG = f"""
from podium.config import TrainConfig
from podium.config_dict import to_config_dict

def get_config():
    cfg = to_config_dict(TrainConfig(eval=None))
    cfg.num_steps = {NUM_STEPS}
    cfg.global_batch_seqs = 2
    cfg.model.vocab_size = 257
    cfg.model.num_layers = 1
    cfg.model.embed_dim = 32
    cfg.model.attention.num_heads = 2
    cfg.model.attention.num_kv_heads = 2
    cfg.model.attention.head_dim = 16
    cfg.model.mlp.dim = 64
    cfg.model.dtype = "float32"
    cfg.data.seq_len = 32
    cfg.optim.schedule.warmup_steps = 1
    cfg.checkpoint.every_steps = 2
    return cfg
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> pathlib.Path:
    home = tmp_path_factory.mktemp("bad_input")
    (home / "config.py").write_text(CONFIG)
    texts = [
        {"text": f"number {i}: " + "to be or not " * (i % 5 + 1)} for i in range(60)
    ]
    (home / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    made = run(
        "podium.prepare", f"--input={home / 'texts.jsonl'}", "--tokenizer=bytes",
        f"--output={home / 'gold'}", "--num_shards=2",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return home


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True
    )


def train(home, name, *more) -> subprocess.CompletedProcess:
    return run(
        "podium.train",
        f"--config={home / 'config.py'}",
        f"--workdir={home / name}",
        f"--config.data.paths={home / 'gold'}",
        *more,
    )


def test_a_damaged_record_ends_the_run_or_is_skipped_and_the_curve_goes_on(home):
    first = train(home, "skips", "--config.data.on_damage=skip")
    assert first.returncode == 0, first.stderr
    whole = read_metrics(home / "skips")
    assert not any("damaged_records" in row for row in whole)
    # A record in the middle of a shard that is first met late in the run.
    cfg = load_run(home / "skips")
    met: dict[tuple[str, int], int] = {}
    for step in range(NUM_STEPS):
        for e in documents_of_step(
            cfg.data, seed=cfg.seed, global_batch_seqs=2, step=step
        ):
            met.setdefault((e.shard, e.record), step + 1)
    shards = {s.file: s for s in load_manifest(home / "gold").splits["train"]}
    (file, record), step = next(
        (key, step)
        for key, step in met.items()
        if step >= 5 and 0 < key[1] < shards[key[0]].records - 1
    )
    path = home / "gold" / file
    entry = np.load(home / "gold" / shards[file].index)[record]
    raw = bytearray(path.read_bytes())
    raw[int(entry["payload"])] ^= 1
    path.write_bytes(raw)

    failed = train(home, "fails")
    assert failed.returncode == 1
    message = failed.stderr.splitlines()[-1]
    named = f"{path}: record {record} at byte {entry['offset']} is damaged"
    assert message.startswith("DataError: ")
    assert named in message
    assert "Traceback" not in failed.stderr
    saved = [int(p.name) for p in (home / "fails" / "checkpoints").iterdir()]
    assert max(saved) in range(step - 3, step)  # what was saved stays

    # The policy may change: the same run goes on, and an unbroken one is equal to it.
    goes_on = train(home, "fails", "--config.data.on_damage=skip")
    assert goes_on.returncode == 0, goes_on.stderr
    assert goes_on.stderr.count(named) == 1
    unbroken = train(home, "unbroken", "--config.data.on_damage=skip")
    assert unbroken.returncode == 0, unbroken.stderr
    curves = [
        [(r["step"], r["loss"], r["tokens"], r.get("damaged_records")) for r in rows]
        for rows in map(read_metrics, (home / "fails", home / "unbroken"))
    ]
    assert curves[0] == curves[1]
    assert [r[3] for r in curves[0]] == [None] * (step - 1) + [1] * (13 - step)
    before = [(r["step"], r["loss"]) for r in whole]
    assert [r[:2] for r in curves[0][: step - 1]] == before[: step - 1]
    assert curves[0][step - 1][2] < whole[step - 1]["tokens"]
    faults = [e for e in read_events(home / "fails") if "record" in e]
    assert [(e["event"], e["shard"], e["record"], e["step"]) for e in faults] == [
        ("fault", str(path), record, step)
    ]


def test_of_several_processes_each_skips_and_names_what_its_rows_held(home):
    """The records that the test before damaged; two processes, a row of each step each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "podium.train", f"--config={home / 'config.py'}"),
        *(f"--workdir={home / 'two'}", f"--config.data.paths={home / 'gold'}"),
        *("--config.data.on_damage=skip", "--config.mesh.data=2"),
        *(f"--coordinator=127.0.0.1:{port}", "--num_processes=2"),
    ]
    both = [
        subprocess.Popen(
            [*command, f"--process_id={i}"], stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=400)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    alone = read_metrics(home / "unbroken")
    for one, two in zip(alone, read_metrics(home / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["tokens"] == one["tokens"]
    faults = [e for e in read_events(home / "two") if "record" in e]
    met = {(e["shard"], e["record"]) for e in faults}
    named = [e for e in read_events(home / "unbroken") if "record" in e]
    assert met == {(e["shard"], e["record"]) for e in named}
    assert len(faults) == len({(e.get("process", 0), e["record"]) for e in faults})
    of_first = [e["step"] for e in faults if "process" not in e]
    assert "is damaged" not in said[1]
    assert said[0].count("is damaged") == len(of_first)
    counts = [row.get("damaged_records") for row in read_metrics(home / "two")]
    assert counts == [
        sum(step <= row["step"] for step in of_first) or None for row in alone
    ]


def test_what_a_look_at_the_files_can_find_is_exit_2_before_anything_compiles(home):
    manifest = home / "gold" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"records": ', '"records": 1', 1))
    try:
        result = train(home, "never")
    finally:
        manifest.write_text(text)
    assert result.returncode == 2
    assert "manifest.json: was changed after it was written" in result.stderr
    shard = home / "gold" / load_manifest(home / "gold").splits["train"][0].file
    raw = shard.read_bytes()
    shard.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    try:
        result = train(home, "never")
    finally:
        shard.write_bytes(raw)
    assert result.returncode == 2
    assert f"{shard}: record 0 at byte 0 is damaged (CRC-32C" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (home / "never").exists()
