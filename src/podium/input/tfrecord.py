# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Random access to the documents of a gold data set: any token span by its number.

The index beside each shard says where a document's tokens begin, so a row is copied
straight out of the mapped file without parsing a record. The checksum of a record is
verified when a process first touches it.
"""

import mmap
import os
import pathlib
import struct

import numpy as np

from podium.errors import DataError
from podium.input.manifest import Manifest, Shard, load_manifest
from podium.input.records import (
    FOOTER_BYTES,
    HEADER_BYTES,
    masked_crc32c,
    read_index,
)

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


class Documents:
    """The documents of one split, numbered 0.. in the order of shards and records.

    Holds 33 bytes of memory a document. Safe to use from several threads.

    Attributes:
        manifest: of the folder.
        tokens: [n] int64, tokens in each document.
        first_token: [n + 1] int64, tokens in all documents before.
    """

    def __init__(self, folder: str | os.PathLike, split: str):
        self.folder, self.split = pathlib.Path(folder), split
        self.manifest: Manifest = load_manifest(self.folder)
        self.shards = self.manifest.splits[split]
        self.token_bytes = np.dtype(self.manifest.token_dtype).itemsize
        indexes = [self._index(shard) for shard in self.shards]
        counts = [len(index) for index in indexes]
        self._first_document = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        if not self._first_document[-1]:
            raise DataError(
                f"{self.folder}: the {split} split holds no documents; prepare the data "
                "with a larger or another share held out"
            )
        self._offset = np.concatenate([i["offset"] for i in indexes]).astype(np.int64)
        self._payload = np.concatenate([i["payload"] for i in indexes]).astype(np.int64)
        self.tokens = np.concatenate([i["tokens"] for i in indexes]).astype(np.int64)
        self.first_token = np.concatenate([[0], np.cumsum(self.tokens)])
        self._verified = np.zeros(len(self.tokens), bool)
        self._files: dict[int, int] = {}
        self._maps = _Maps(self)

    def __len__(self) -> int:
        return len(self.tokens)

    def locate(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shard, record in the shard) of each document."""
        shard = np.searchsorted(self._first_document, documents, side="right") - 1
        return shard, documents - self._first_document[shard]

    def copy(
        self,
        out: memoryview,
        at: np.ndarray,
        document: np.ndarray,
        start: np.ndarray,
        length: np.ndarray,
    ) -> None:
        """out[at[i]:][:length[i]] = tokens start[i].. of document[i], for every i.

        `out` is a flat memoryview of bytes; `at`, `start` and `length` count tokens of
        `manifest.token_dtype`. Raises DataError if a record is damaged.
        """
        shard = np.searchsorted(self._first_document, document, side="right") - 1
        unverified = ~self._verified[document]
        if unverified.any():
            self._verify(document[unverified], shard[unverified])
        size = self.token_bytes
        source = self._payload[document] + start * size
        at, length = at * size, length * size
        spans = (shard, source, source + length, at, at + length)
        maps = self._maps
        for i, a, b, c, d in zip(*(s.tolist() for s in spans), strict=True):
            out[c:d] = maps[i][a:b]

    def read_range(self, first: int, stop: int) -> np.ndarray:
        """All tokens of documents first..stop-1 on end, in the stored type."""
        base = self.first_token[first]
        out = np.empty(int(self.first_token[stop] - base), self.manifest.token_dtype)
        documents = np.arange(first, stop)
        length = self.tokens[first:stop]
        at = self.first_token[first:stop] - base
        self.copy(out.view(np.uint8).data, at, documents, np.zeros_like(length), length)
        return out

    def _index(self, shard: Shard) -> np.ndarray:
        """The index of a shard; its entries lie in the file, without gaps."""
        path = self.folder / shard.index
        index = read_index(
            path,
            token_bytes=self.token_bytes,
            records=shard.records,
            file_bytes=shard.bytes,
        )
        num_tokens = int(index["tokens"].sum(dtype=np.int64))
        if num_tokens != shard.tokens:
            raise DataError(
                f"{path}: {num_tokens} tokens, the manifest says {shard.tokens}; copy "
                "the folder again or prepare the data again"
            )
        if not index["tokens"].all():
            raise DataError(
                f"{path}: record {int(index['tokens'].argmin())} has no tokens; each "
                "must end in eos: write the data again"
            )
        return index

    def _verify(self, documents: np.ndarray, shards: np.ndarray) -> None:
        """Checks the CRC-32C of records not seen before by this process."""
        for document, shard in zip(documents.tolist(), shards.tolist(), strict=True):
            if self._verified[document]:
                continue
            offset = int(self._offset[document])
            end = int(self._payload[document]) + self.token_bytes * int(
                self.tokens[document]
            )
            fd = self._file(shard)
            if not _is_sound(fd, offset, end + FOOTER_BYTES - offset):
                record = document - int(self._first_document[shard])
                raise DataError(
                    f"{self.folder / self.shards[shard].file}: record {record} at byte "
                    f"{offset} is damaged (CRC-32C differs); copy the file again or "
                    "prepare the data again"
                )
            self._verified[document] = True

    def _file(self, shard: int) -> int:
        """The open file of a shard."""
        if shard not in self._files:
            path = self.folder / self.shards[shard].file
            try:
                self._files[shard] = os.open(path, os.O_RDONLY)
            except OSError as e:
                raise DataError(f"{path}: cannot be read: {e.strerror}") from e
        return self._files[shard]


class _Maps(dict[int, memoryview]):
    """Shard number -> its mapped bytes, mapped when first asked for."""

    def __init__(self, documents: Documents):
        super().__init__()
        self._open = documents._file

    def __missing__(self, shard: int) -> memoryview:
        mapped = mmap.mmap(self._open(shard), 0, access=mmap.ACCESS_READ)
        return self.setdefault(shard, memoryview(mapped))


def _is_sound(fd: int, offset: int, num_bytes: int) -> bool:
    """Whether the frame at `offset`, expected to have `num_bytes`, matches its CRCs."""
    # pread lets other threads run while the disk works; a page fault would not.
    frame = os.pread(fd, num_bytes, offset)
    if len(frame) < num_bytes:
        return False
    length, length_crc = _HEADER.unpack_from(frame)
    end = num_bytes - FOOTER_BYTES
    return (
        length == end - HEADER_BYTES
        and masked_crc32c(frame[:8]) == length_crc
        and masked_crc32c(frame[HEADER_BYTES:end]) == _CRC.unpack_from(frame, end)[0]
    )
