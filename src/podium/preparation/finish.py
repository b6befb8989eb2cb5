# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Finished parts -> a data folder: names, eval shards put together, manifest last."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import podium
from podium.code_commit import commit
from podium.input.manifest import (
    ChatInfo,
    Manifest,
    Shard,
    SourceRange,
    TokenizerInfo,
    save_manifest,
    token_dtype_for,
)
from podium.preparation.shard import ShardTask, write_index
from podium.tokenizer import TOKENIZER_FILE

REJECTS_FILE = "rejects.jsonl"
_COPY_BYTES = 1 << 20

Part = dict[str, Any]  # what shard.write_shard returns


def assemble(
    folder: str,
    tasks: Sequence[ShardTask],
    parts: Sequence[Part],
    tokenizer: TokenizerInfo,
    chat: ChatInfo | None = None,
) -> Manifest:
    """Fills the empty `folder` with everything but the manifest, which it returns."""
    firsts = _first_items(tasks, parts)
    train = [i for i, part in enumerate(parts) if part["splits"]["train"]["records"]]
    held_out = [i for i, part in enumerate(parts) if part["splits"]["eval"]["records"]]
    train_bytes = sum(parts[i]["splits"]["train"]["bytes"] for i in train)
    eval_bytes = sum(parts[i]["splits"]["eval"]["bytes"] for i in held_out)
    # As large as the train shards: thousands of tiny files help nobody.
    typical = max(1, train_bytes // max(1, len(train)))
    num_eval = min(len(held_out), -(-eval_bytes // typical))
    count = len(held_out)
    groups = {
        "train": [[i] for i in train],
        "eval": [
            held_out[count * j // num_eval : count * (j + 1) // num_eval]
            for j in range(num_eval)
        ],
    }
    splits = {
        split: tuple(
            _shard(folder, split, number, len(members), group, tasks, parts, firsts)
            for number, group in enumerate(members)
        )
        for split, members in groups.items()
    }
    write_rejects(os.path.join(folder, REJECTS_FILE), tasks, parts)
    if tokenizer.file:
        source = os.path.join(tasks[0].folder, TOKENIZER_FILE)
        shutil.copyfile(source, os.path.join(folder, tokenizer.file))
    return Manifest(
        tokenizer=tokenizer,
        token_dtype=token_dtype_for(tokenizer.vocab_size),
        splits=splits,
        created_by=_created_by(),
        chat=chat,
    )


def publish(folder: str, output: str, manifest: Manifest) -> None:
    """Writes the manifest into `folder` and moves it to `output` in one rename."""
    save_manifest(folder, manifest)
    _sync_folder(folder)
    old = None
    if os.path.exists(output):
        if os.listdir(output):
            old = f"{output}.old-{os.getpid()}"
            os.rename(output, old)
        else:
            os.rmdir(output)
    os.rename(folder, output)
    _sync_folder(os.path.dirname(output))
    if old:
        shutil.rmtree(old)


def _first_items(tasks: Sequence[ShardTask], parts: Sequence[Part]) -> list[list[int]]:
    """For every unit of every shard, the number of its first item in the source."""
    counted: dict[str, int] = {}
    firsts = []
    for task, part in zip(tasks, parts, strict=True):
        row = []
        for unit, items in zip(task.units, part["unit_items"], strict=True):
            first = counted.get(unit.uri, 0)
            row.append(first if unit.first_item is None else unit.first_item)
            counted[unit.uri] = first + items
        firsts.append(row)
    return firsts


def _shard(
    folder: str,
    split: str,
    number: int,
    count: int,
    group: Sequence[int],
    tasks: Sequence[ShardTask],
    parts: Sequence[Part],
    firsts: Sequence[Sequence[int]],
) -> Shard:
    """One shard out of the parts numbered in `group`."""
    name = f"{split}-{number:05d}-of-{count:05d}"
    file, index = f"{name}.tfrecord", f"{name}.index.npy"
    paths = [tasks[i].path(split) for i in group]
    counts = [parts[i]["splits"][split] for i in group]
    sources: list[SourceRange] = []
    for i, part in zip(group, counts, strict=True):
        record = sources[-1].first_record + sources[-1].num_records if sources else 0
        for first, num, item, unit in part["sources"]:
            found = SourceRange(
                record + first, num, firsts[i][unit] + item, tasks[i].units[unit].uri
            )
            _append(sources, found)
    target = os.path.join(folder, file)
    if len(group) == 1:
        _link(paths[0] + ".tfrecord", target)
        _link(paths[0] + ".npy", os.path.join(folder, index))
        sha256, index_sha256 = counts[0]["sha256"], counts[0]["index_sha256"]
    else:
        sha256 = _join([f"{path}.tfrecord" for path in paths], target)
        shift, tables = 0, []
        for path, part in zip(paths, counts, strict=True):
            table = np.load(f"{path}.npy")
            table["offset"] += np.uint64(shift)
            table["payload"] += np.uint64(shift)
            tables.append(table)
            shift += part["bytes"]
        index_sha256 = write_index(os.path.join(folder, index), np.concatenate(tables))
    total = {
        key: sum(part[key] for part in counts)
        for key in ("records", "documents", "tokens", "bytes")
    }
    return Shard(
        file=file,
        index=index,
        sha256=sha256,
        index_sha256=index_sha256,
        sources=tuple(sources),
        **total,
    )


def _append(sources: list[SourceRange], found: SourceRange) -> None:
    """Adds a range, or lengthens the last one if it goes on where that one ends."""
    if sources:
        last = sources[-1]
        if (
            last.uri == found.uri
            and last.first_item + last.num_records == found.first_item
        ):
            sources[-1] = last._replace(
                num_records=last.num_records + found.num_records
            )
            return
    sources.append(found)


def _join(paths: Iterable[str], target: str) -> str:
    """Files one after the other; the SHA-256 of the whole."""
    digest = hashlib.sha256()
    with open(target, "wb") as out:
        for path in paths:
            with open(path, "rb") as file:
                while chunk := file.read(_COPY_BYTES):
                    out.write(chunk)
                    digest.update(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _link(source: str, target: str) -> None:
    """The same file under its final name; the part stays, in case we are killed now."""
    try:
        os.link(source, target)
    except OSError:  # some network file systems have no links
        shutil.copyfile(source, target)


def write_rejects(path: str, tasks: Sequence[ShardTask], parts: Sequence[Part]) -> None:
    """All that was not used, as rejects.jsonl."""
    firsts = _first_items(tasks, parts)
    with open(path, "w", encoding="utf-8") as out:
        for task, first in zip(tasks, firsts, strict=True):
            with open(task.path("rejects"), encoding="utf-8") as file:
                for line in file:
                    unit, item, reason, detail = json.loads(line)
                    row = {
                        "uri": task.units[unit].uri,
                        "item": first[unit] + item,
                        "reason": reason,
                        "detail": detail,
                    }
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _created_by() -> dict[str, Any]:
    return {
        "podium": podium.__version__,
        "commit": commit() or None,
        "command": sys.argv,
    }
