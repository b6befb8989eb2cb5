# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The cheap check of a data set, before a run begins: a few KiB of every shard.

`load_manifest` has compared the manifest with itself and with the sizes of the files.
Here every index is read whole (20 bytes a record, as the reader does anyway) and
compared with its SHA-256, and of every shard the first and the last record is read.
What this can and cannot find: docs/data-format.md.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from podium.config import DataConfig
from podium.errors import DataError
from podium.input.damage import SKIPS, Damage, raise_damage
from podium.input.manifest import ChatInfo, Manifest, Shard, has_pairs
from podium.input.records import (
    BEGINS_SECOND,
    FOOTER_BYTES,
    HEADER_BYTES,
    SCORED,
    frame_fault,
    mask_span,
    sound_length,
    token_span,
)
from podium.input.tfrecord import read_index
from podium.storage import Folder, open_folder

_NUM_THREADS = 16  # shards at a time: the work is waiting for storage

_REWRITE = "write the data again (docs/data-format.md)"

Entry = tuple[int, int, int]  # of an index: offset, payload, tokens


def check_datasets(data: DataConfig, manifests: Sequence[Manifest]) -> None:
    """Raises DataError, naming file and record, at the first thing that is wrong.

    Under `data.on_damage=skip`, a record whose checksum is wrong is left to its reader;
    a shard that is not the one of its index is refused all the same.
    """
    allows_damage = data.on_damage == "skip"
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        found = []
        for path, manifest in zip(data.paths, manifests, strict=True):
            folder = open_folder(path)
            _check_tokenizer(folder, manifest)
            shards = [s for split in manifest.splits.values() for s in split]
            row_tokens = data.seq_len if has_pairs(manifest) else None
            found += [
                pool.submit(
                    _check_shard, folder, manifest, shard, allows_damage, row_tokens
                )
                for shard in shards
            ]
        try:
            for each in found:
                each.result()
        finally:
            pool.shutdown(cancel_futures=True)


def check_record(data: bytes, entry: Entry, manifest: Manifest, where: str) -> None:
    """Every promise that a record makes, its checksums aside. Raises DataError.

    Args:
        data: of the frame.
        entry: of the index, for this record.
        where: file and record, for messages.
    """
    offset, payload, tokens = entry
    dtype = np.dtype(manifest.token_dtype).newbyteorder("<")
    start, stop = token_span(data, where)
    begin = offset + HEADER_BYTES
    if begin + start != payload or stop - start != tokens * dtype.itemsize:
        raise DataError(
            f"{where}: {stop - start} bytes of tokens from byte {begin + start} on, the "
            f"index says {tokens * dtype.itemsize} from {payload} on; copy the shard and "
            "its index again or prepare the data again"
        )
    if stop != len(data):
        raise DataError(f"{where}: there are bytes behind the tokens; {_REWRITE}")
    ids, info = np.frombuffer(data[start:stop], dtype), manifest.tokenizer
    if int(ids.max(initial=0)) >= info.vocab_size:
        raise DataError(
            f"{where}: id {int(ids.max())} is beyond the vocabulary of "
            f"{info.vocab_size}; {_REWRITE}"
        )
    if manifest.chat:  # its template writes what begins and ends a record
        _check_mask(data, tokens, manifest.chat, where)
        return
    if not len(ids) or int(ids[-1]) != info.eos_id:
        raise DataError(f"{where}: does not end in eos ({info.eos_id}); {_REWRITE}")
    if info.bos_id is not None and int(ids[0]) != info.bos_id:
        raise DataError(f"{where}: does not start with bos ({info.bos_id}); {_REWRITE}")


def _check_mask(data: bytes, tokens: int, chat: ChatInfo, where: str) -> None:
    mask = data[slice(*mask_span(data, tokens, where))]
    borders = mask.count(BEGINS_SECOND)
    is_pair = chat.records == "preferences"
    if borders != is_pair or max(mask) > BEGINS_SECOND or mask[0] == BEGINS_SECOND:
        raise DataError(
            f"{where}: {borders} sequences begin within a loss mask that holds values up "
            f"to {max(mask)}; {chat.records} have {int(is_pair)}; {_REWRITE}"
        )
    parts = mask.split(bytes([BEGINS_SECOND]))
    # A sequence's first token follows on nothing, so it is never predicted.
    if not all(SCORED in part[i == 0 :] for i, part in enumerate(parts)):
        raise DataError(f"{where}: nothing of it is scored; {_REWRITE}")


def _check_tokenizer(folder: Folder, manifest: Manifest) -> None:
    info = manifest.tokenizer
    if info.file is None:
        return
    path = f"{folder}/{info.file}"
    try:
        actual = hashlib.sha256(folder.read(info.file)).hexdigest()
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from e
    if actual != info.sha256:
        raise DataError(
            f"{path}: SHA-256 is {actual}, the manifest says {info.sha256}; copy it "
            "again or prepare the data again"
        )


def _check_shard(
    folder: Folder,
    manifest: Manifest,
    shard: Shard,
    allows_damage: bool,
    row_tokens: int | None,
) -> None:
    index = read_index(folder, manifest, shard)
    longest = int(index["tokens"].max())
    if row_tokens is not None and longest > row_tokens:
        number = int((index["tokens"] > row_tokens).sum())
        raise DataError(
            f"{folder}/{shard.file}: {number} of {len(index)} pairs are longer than "
            f"data.seq_len ({row_tokens}), the longest has {longest} tokens; set "
            f"--config.data.seq_len={longest} or more, or prepare again with "
            f"--max_tokens={row_tokens}, which leaves them out"
        )
    ends = [*index["offset"][1:].tolist(), shard.bytes]
    path = f"{folder}/{shard.file}"
    for record in sorted({0, shard.records - 1}):
        entry: Entry = index[record].item()
        offset, num_bytes = entry[0], ends[record] - entry[0]
        try:
            frame = folder.read_at(shard.file, offset, num_bytes)
        except OSError as e:
            raise DataError(f"{path}: cannot be read: {e.strerror}") from e
        where = f"{path}: record {record} at byte {offset}"
        expected = num_bytes - HEADER_BYTES - FOOTER_BYTES
        if (length := sound_length(frame)) not in (None, expected):
            raise DataError(
                f"{where}: has {length} bytes of data, its index says {expected}: this "
                "is another shard, were two exchanged? Copy both again or prepare the "
                "data again"
            )
        fault = frame_fault(frame, num_bytes)
        if fault and allows_damage:
            continue
        raise_damage([Damage(path, record, offset, fault)] if fault else [], SKIPS)
        check_record(frame[HEADER_BYTES:-FOOTER_BYTES], entry, manifest, where)
