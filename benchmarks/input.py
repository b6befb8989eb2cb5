# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens per second from gold TFRecords to host batches: python benchmarks/input.py

Writes a corpus with a natural mix of document lengths into a temporary folder, so it is
read from the page cache, and prints one Markdown table. A core is counted as a second
of CPU time, of all threads and processes involved; each figure is the median of several
stretches, taken in turn with the others so that a busy machine hits all alike.

Peer: the usual tf.data program over the same files, TFRecordDataset -> parse_example ->
decode_raw -> rebatch(T) -> shuffle -> batch. It gives tokens alone (no segments,
positions, targets) and an order that cannot be sought; it runs at its own best setting
(AUTOTUNE), in a process of its own.
"""

import argparse
import contextlib
import datetime
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from podium.config import DataConfig
from podium.input.loader import Loader
from podium.input.manifest import (
    Manifest,
    Shard,
    SourceRange,
    TokenizerInfo,
    load_manifest,
    save_manifest,
)
from podium.input.pipeline import import_tensorflow, tf_data
from podium.input.records import INDEX_DTYPE, encode_record
from podium.input.server import InputServer
from podium.input.spec import StreamSpec

_NUM_SHARDS = 8
_TICKS = os.sysconf("SC_CLK_TCK")


def write_corpus(folder: pathlib.Path, num_tokens: int) -> None:
    """Documents of log-normal length: median 400 tokens, mean 820."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(6, 1.2, num_tokens // 600).astype(int) + 2
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), num_tokens)]
    shards = []
    for i, part in enumerate(np.array_split(lengths, _NUM_SHARDS)):
        name = f"train-{i:05d}-of-{_NUM_SHARDS:05d}"
        index, offset = [], 0
        with (folder / f"{name}.tfrecord").open("wb") as file:
            for length in part.tolist():
                tokens = rng.integers(1, 50_000, length).astype(np.uint16)
                frame, payload = encode_record(tokens.tobytes())
                index.append((offset, offset + payload, length))
                offset += file.write(frame)
        index_file = folder / f"{name}.index.npy"
        np.save(index_file, np.array(index, INDEX_DTYPE))
        shards.append(
            Shard(
                file=f"{name}.tfrecord",
                index=f"{name}.index.npy",
                records=len(part),
                documents=len(part),
                tokens=int(part.sum()),
                bytes=offset,
                sha256="",
                index_sha256=hashlib.sha256(index_file.read_bytes()).hexdigest(),
                sources=(SourceRange(0, len(part), 0, "synthetic"),),
            )
        )
    info = TokenizerInfo(
        kind="bytes", vocab_size=50_257, sha256="", file=None, bos_id=None, eos_id=0
    )
    splits = {"train": tuple(shards), "eval": ()}
    save_manifest(
        folder,
        Manifest(tokenizer=info, token_dtype="uint16", splits=splits, created_by={}),
    )


def spec_of(folder: str, seq_len: int, packing: str, batch_tokens: int) -> StreamSpec:
    rows = batch_tokens // seq_len
    data = DataConfig(paths=(folder,), seq_len=seq_len, packing=packing)
    return StreamSpec(
        data=data, split="train", global_batch_seqs=rows, rows=range(rows), seed=1
    )


Rate = tuple[float, float]  # tokens per second of CPU time, per second on the wall
Batches = Iterator[object]


def rates(
    batches: Batches, tokens: int, secs: float, cpu: Callable[[], float]
) -> Iterator[Rate]:
    """Endless measurements of `secs` each."""
    while True:
        wall, used, count = time.perf_counter(), cpu(), 0
        while time.perf_counter() - wall < secs:
            next(batches)
            count += tokens
        # The clock of another process ticks in 10 ms: secs must be far above.
        yield count / (cpu() - used), count / (time.perf_counter() - wall)


def direct(spec: StreamSpec, tokens: int, secs: float) -> Iterator[Rate]:
    loader = Loader(spec)
    out = np.empty(loader.shape, np.int32)
    loader.read(0, out)
    batches = (loader.read(step, out) for step in itertools.count())
    return rates(batches, tokens, secs, time.process_time)


def verified(spec: StreamSpec, tokens: int, secs: float) -> Iterator[Rate]:
    """Every record for the first time, its checksum computed."""
    loader = Loader(spec)
    out = np.empty(loader.shape, np.int32)
    per_epoch = loader.order.num_rows // spec.global_batch_seqs

    def batches() -> Batches:
        for step in itertools.count():
            if step % per_epoch == 0:
                for documents, _ in loader.datasets:
                    documents._state[:] = 0  # unread
            yield loader.read(step, out)

    return rates(batches(), tokens, secs, time.process_time)


def through_tf_data(spec: StreamSpec, tokens: int, secs: float) -> Iterator[Rate]:
    loader = Loader(spec)
    out = np.empty(loader.shape, np.int32)
    batches = (fill(out) for _, fill in tf_data(loader))
    next(batches)
    return rates(batches, tokens, secs, time.process_time)


def through_memory(
    spec: StreamSpec, tokens: int, secs: float, server: InputServer, engine: str
) -> Iterator[Rate]:
    """Up to arrays in the trainer's process; CPU time of both processes."""
    stream = server.open(spec)
    while next(stream) and stream.engine != engine:
        time.sleep(0.001)
    worker = server.worker(stream.engine)._process.pid

    def cpu() -> float:
        stat = pathlib.Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2]
        return sum(map(int, stat.split()[11:13])) / _TICKS + time.process_time()

    return rates(stream, tokens, secs, cpu)


def peer(spec: StreamSpec, tokens: int, secs: float) -> Iterator[Rate]:
    import tensorflow as tf

    folder = pathlib.Path(spec.data.paths[0])
    files = [str(folder / s.file) for s in load_manifest(folder).splits["train"]]
    features = {"tokens": tf.io.FixedLenFeature([], tf.string)}

    def decode(record):
        raw = tf.io.parse_single_example(record, features)["tokens"]
        return tf.cast(tf.io.decode_raw(raw, tf.uint16), tf.int32)

    auto = tf.data.AUTOTUNE
    rows = (
        tf.data.Dataset.from_tensor_slices(files)
        .repeat()
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=auto)
        .map(decode, num_parallel_calls=auto)
        .rebatch(spec.data.seq_len)
        .shuffle(1024)
        .batch(spec.global_batch_seqs)
        .prefetch(auto)
    )
    batches = iter(rows.as_numpy_iterator())
    next(batches)
    return rates(batches, tokens, secs, time.process_time)


def peer_in_its_process(spec: StreamSpec, tokens: int, secs: float) -> Iterator[Rate]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(
        target=_serve_peer, args=(spec, tokens, secs, theirs), daemon=True
    ).start()
    while True:
        ours.send(None)
        yield ours.recv()


def _serve_peer(spec, tokens, secs, pipe) -> None:
    _import_tensorflow()
    measured = peer(spec, tokens, secs)
    with contextlib.suppress(EOFError):
        while True:
            pipe.recv()
            pipe.send(next(measured))


def _import_tensorflow() -> None:
    thread = threading.Thread(target=import_tensorflow)  # its priority becomes low
    thread.start()
    thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=40_000_000, help="in the corpus")
    parser.add_argument("--batch_tokens", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--secs", type=float, default=1.0, help="of a measurement")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    _import_tensorflow()
    with (
        tempfile.TemporaryDirectory() as folder,
        InputServer.start(tf_data_after_steps=None) as direct_server,
        InputServer.start(tf_data_after_steps=1) as server,
    ):
        write_corpus(pathlib.Path(folder), args.tokens)
        found: dict[tuple[int, str, str], list[Rate]] = {}
        for seq_len, packing in (
            (2048, "concat"),
            (2048, "best_fit"),
            (8192, "concat"),
        ):
            spec = spec_of(folder, seq_len, packing, args.batch_tokens)
            given = spec, args.batch_tokens, args.secs
            ways = {
                "read, first epoch (with checksums)": verified(*given),
                "read, later epochs": direct(*given),
                "through tf.data": through_tf_data(*given),
                "into the trainer, direct": through_memory(
                    *given, direct_server, "direct"
                ),
                "into the trainer, tf.data": through_memory(*given, server, "tf.data"),
            }
            if packing == "concat":
                ways["peer: plain tf.data"] = peer_in_its_process(*given)
            for _ in range(args.repeats):
                for way, measured in ways.items():
                    found.setdefault((seq_len, packing, way), []).append(next(measured))
        start_secs = [seconds_to_first_batch(spec) for _ in range(args.repeats)]
    rows = [
        {
            "seq_len": seq_len,
            "packing": packing,
            "path": way,
            "tokens_per_sec_per_core": statistics.median(r[0] for r in measured),
            "tokens_per_sec": statistics.median(r[1] for r in measured),
        }
        for (seq_len, packing, way), measured in found.items()
    ]
    report(rows, statistics.median(start_secs), args)


def seconds_to_first_batch(spec: StreamSpec) -> float:
    begin = time.perf_counter()
    with InputServer.start() as server:
        next(server.open(spec))
        return time.perf_counter() - begin


def report(rows: list[dict], start_secs: float, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps({"rows": rows, "first_batch_secs": start_secs}))
        return
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    print(f"{datetime.date.today()}, {machine()}, commit {commit or 'none'}")
    print(
        f"Shuffled; batches of {args.batch_tokens:,} tokens; corpus {args.tokens:,} "
        f"tokens; median of {args.repeats} x {args.secs:g} s.\n"
    )
    print("| T | packing | path | M tokens/s per core | M tokens/s |")
    print("|--:|---|---|--:|--:|")
    for row in rows:
        print(
            f"| {row['seq_len']} | {row['packing']} | {row['path']} "
            f"| {row['tokens_per_sec_per_core'] / 1e6:.1f} "
            f"| {row['tokens_per_sec'] / 1e6:.1f} |"
        )
    print(f"\nInputServer.start() to the first batch: {start_secs:.2f} s")


def machine() -> str:
    """Cores and processor."""
    name = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {name}, load {load:.1f}"


if __name__ == "__main__":
    main()
