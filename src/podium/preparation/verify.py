# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every promise of the format, checked byte by byte (docs/data-format.md)."""

import hashlib
import mmap
import pathlib
from collections.abc import Callable

import numpy as np

from podium.errors import DataError
from podium.input.manifest import Manifest, Shard, load_manifest
from podium.input.records import HEADER_BYTES, decode_record, read_index, token_span
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
            _verify_shard(pathlib.Path(folder), manifest, shard)
            report(shard.bytes)
    return manifest


def _verify_shard(folder: pathlib.Path, manifest: Manifest, shard: Shard) -> None:
    for name, wanted in ((shard.file, shard.sha256), (shard.index, shard.index_sha256)):
        with (folder / name).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != wanted:
            raise DataError(
                f"{folder / name}: SHA-256 is {actual}, the manifest says {wanted}; "
                "copy it again or prepare the data again"
            )
    dtype = np.dtype(manifest.token_dtype).newbyteorder("<")
    index = read_index(
        folder / shard.index,
        token_bytes=dtype.itemsize,
        records=shard.records,
        file_bytes=shard.bytes,
    )
    if int(index["tokens"].sum()) != shard.tokens:
        raise DataError(f"{folder / shard.index}: token counts do not add up")
    path = str(folder / shard.file)
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw,
        memoryview(raw) as view,
    ):
        for number, (offset, payload, tokens) in enumerate(index.tolist()):
            where = f"{path}: record {number}"
            data = decode_record(view, offset, where)
            start, stop = token_span(data, where)
            begin = offset + HEADER_BYTES
            if begin + start != payload or stop - start != tokens * dtype.itemsize:
                raise DataError(f"{where}: the index does not match the record")
            if stop != len(data):
                raise DataError(f"{where}: there are bytes behind the tokens")
            _verify_tokens(np.frombuffer(data[start:stop], dtype), manifest, where)


def _verify_tokens(ids: np.ndarray, manifest: Manifest, where: str) -> None:
    info = manifest.tokenizer
    if not len(ids) or int(ids[-1]) != info.eos_id:
        raise DataError(f"{where}: does not end in eos ({info.eos_id})")
    if info.bos_id is not None and int(ids[0]) != info.bos_id:
        raise DataError(f"{where}: does not start with bos ({info.bos_id})")
    if int(ids.max()) >= info.vocab_size:
        raise DataError(
            f"{where}: id {int(ids.max())} is beyond the vocabulary of {info.vocab_size}"
        )
