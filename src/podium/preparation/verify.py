# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every promise of the format, checked byte by byte (docs/data-format.md)."""

import contextlib
import hashlib
import mmap
from collections.abc import Callable, Iterator

from podium.errors import DataError
from podium.input.check import check_record
from podium.input.manifest import Manifest, Shard, load_manifest
from podium.input.records import decode_record
from podium.input.tfrecord import read_index
from podium.storage import Folder, is_remote, open_folder
from podium.tokenizer import load_tokenizer


def verify(folder: str, report: Callable[[int], None]) -> Manifest:
    """Reads the whole data set. Raises DataError at the first thing that is wrong.

    Args:
        folder: the data set.
        report: is told how many bytes were checked since the last call.
    """
    manifest = load_manifest(folder)
    load_tokenizer(folder)
    for shards in manifest.splits.values():
        for shard in shards:
            _verify_shard(open_folder(folder), manifest, shard)
            report(shard.bytes)
    return manifest


def _verify_shard(folder: Folder, manifest: Manifest, shard: Shard) -> None:
    path = f"{folder}/{shard.file}"
    with _whole(folder, shard.file) as data:
        if (actual := hashlib.sha256(data).hexdigest()) != shard.sha256:
            raise DataError(
                f"{path}: SHA-256 is {actual}, the manifest says {shard.sha256}; "
                "copy it again or prepare the data again"
            )
        index = read_index(folder, manifest, shard)
        for number, entry in enumerate(index.tolist()):
            where = f"{path}: record {number}"
            check_record(decode_record(data, entry[0], where), entry, manifest, where)


@contextlib.contextmanager
def _whole(folder: Folder, name: str) -> Iterator[memoryview]:
    """All of a file: mapped from a disk, in memory from a bucket."""
    if is_remote(folder.path):
        yield memoryview(folder.read(name))
        return
    with (
        open(f"{folder}/{name}", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw,
        memoryview(raw) as view,
    ):
        yield view
