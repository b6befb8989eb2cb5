# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""One record: TFRecord framing around a tf.train.Example with the feature `tokens`.

Records of chats have a feature `loss_mask` before it, a byte a token.

Frame (TensorFlow's core/lib/io/record_writer.h), all integers little-endian:
    uint64 length, uint32 masked CRC-32C of the length,
    length bytes of data, uint32 masked CRC-32C of the data.
Masked: the CRC rotated right by 15 bits, plus 0xa282ead8, modulo 2**32.

Written by hand rather than through protobuf: an Example with one feature is six nested
length prefixes, and the reader wants to know where its token bytes begin.
"""

import io
import os
import struct
from collections.abc import Iterator
from typing import IO

import google_crc32c
import numpy as np

from podium.errors import DataError

INDEX_DTYPE = np.dtype([("offset", "<u8"), ("payload", "<u8"), ("tokens", "<u4")])
HEADER_BYTES = 12  # before the data of a frame
FOOTER_BYTES = 4  # after it

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_LENGTH_DELIMITED = 2  # protobuf wire type
_MAX_PREFIX_BYTES = 64  # of an Example before its tokens; ours are 19 to 35

# Values of `loss_mask`. The second sequence of a pair of answers begins somewhere.
CONTEXT, SCORED, BEGINS_SECOND = 0, 1, 2


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C of `data`, masked as TensorFlow stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def encode_record(
    token_bytes: bytes, loss_mask: bytes | None = None
) -> tuple[bytes, int]:
    """A whole frame, and where in it the first token byte stands."""
    mask = b"" if loss_mask is None else _feature("loss_mask", loss_mask) + loss_mask
    feature = mask + _feature("tokens", token_bytes)
    features = b"\x0a" + _varint(len(feature) + len(token_bytes))  # Example.features
    prefix = features + feature
    data = prefix + token_bytes
    length = struct.pack("<Q", len(data))
    header = length + _CRC.pack(masked_crc32c(length))
    frame = b"".join((header, data, _CRC.pack(masked_crc32c(data))))
    return frame, HEADER_BYTES + len(prefix)


def decode_record(buffer: bytes | memoryview, offset: int, where: str) -> bytes:
    """The data of the frame at `offset`, both checksums verified.

    Args:
        buffer: a whole file, or any stretch of one that holds the frame.
        offset: of the frame in `buffer`; the next frame is HEADER_BYTES + len(data) +
            FOOTER_BYTES further on.
        where: file name for messages. Raises DataError if the frame is damaged.
    """
    if not 0 <= offset <= len(buffer) - HEADER_BYTES:
        raise DataError(f"{where}: byte {offset}: the record header is cut off")
    length, length_crc = _HEADER.unpack_from(buffer, offset)
    if masked_crc32c(bytes(buffer[offset : offset + 8])) != length_crc:
        raise DataError(f"{where}: byte {offset}: wrong CRC-32C of a record length")
    start = offset + HEADER_BYTES
    if length > len(buffer) - start - FOOTER_BYTES:
        raise DataError(f"{where}: byte {offset}: the record is cut off")
    data = bytes(buffer[start : start + length])
    if masked_crc32c(data) != _CRC.unpack_from(buffer, start + length)[0]:
        raise DataError(f"{where}: byte {offset}: wrong CRC-32C of a record")
    return data


def read_frames(file: IO[bytes], where: str) -> Iterator[bytes]:
    """The data of every frame of an open TFRecord file, in order, checksums verified.

    Holds one record at a time. Raises DataError at the first damaged frame.
    """
    at, size = 0, os.fstat(file.fileno()).st_size
    while header := file.read(HEADER_BYTES):
        if len(header) < HEADER_BYTES:
            raise DataError(f"{where}: byte {at}: the record header is cut off")
        length, length_crc = _HEADER.unpack(header)
        if masked_crc32c(header[:8]) != length_crc:
            raise DataError(f"{where}: byte {at}: wrong CRC-32C of a record length")
        if length > size:
            raise DataError(f"{where}: byte {at}: the record is cut off")
        frame = header + file.read(length + FOOTER_BYTES)
        data = decode_record(frame, 0, where)
        yield data
        at += len(frame)


def token_span(data: bytes, where: str) -> tuple[int, int]:
    """Where the value of the feature `tokens` stands in a serialised Example.

    Reads any valid encoding, not just ours. Raises DataError if `data` is no Example or
    does not hold exactly one feature `tokens` with exactly one bytes value.
    """
    spans = feature_spans(data, "tokens", where)
    if len(spans) != 1:
        raise DataError(
            f"{where}: feature 'tokens' has {len(spans)} values, expected 1"
        )
    return spans[0]


def mask_span(data: bytes, tokens: int, where: str) -> tuple[int, int]:
    """Where the value of the feature `loss_mask` stands. Raises DataError if there is
    not exactly one, of one byte a token."""
    spans = feature_spans(data, "loss_mask", where)
    sizes = [stop - start for start, stop in spans]
    if sizes != [tokens]:
        found = " and ".join(map(str, sizes)) or "no"
        raise DataError(
            f"{where}: feature 'loss_mask' has {found} bytes for {tokens} tokens"
        )
    return spans[0]


def feature_spans(data: bytes, name: str, where: str) -> list[tuple[int, int]]:
    """Start and end of every bytes value of feature `name` in a serialised Example."""
    spans: list[tuple[int, int]] = []
    for features in _fields(data, (0, len(data)), 1, where):
        for entry in _fields(data, features, 1, where):
            keys = [data[a:b] for a, b in _fields(data, entry, 1, where)]
            if keys != [name.encode()]:
                continue
            for feature in _fields(data, entry, 2, where):
                for bytes_list in _fields(data, feature, 1, where):
                    spans += _fields(data, bytes_list, 1, where)
    return spans


def frame_fault(frame: bytes, num_bytes: int) -> str | None:
    """Why a frame that the index says has `num_bytes` cannot be used; None: it can."""
    if len(frame) < num_bytes:
        return f"{len(frame)} of its {num_bytes} bytes are there"
    length, length_crc = _HEADER.unpack_from(frame)
    found = masked_crc32c(frame[:8])
    if found != length_crc:
        return _crc_differs("length", found, length_crc)
    end = num_bytes - FOOTER_BYTES
    if length != end - HEADER_BYTES:
        return f"{length} bytes of data, the index says {end - HEADER_BYTES}"
    (data_crc,) = _CRC.unpack_from(frame, end)
    found = masked_crc32c(frame[HEADER_BYTES:end])
    return None if found == data_crc else _crc_differs("data", found, data_crc)


def sound_length(header: bytes) -> int | None:
    """Bytes of data that a frame's header names; None if its checksum does not hold."""
    if len(header) < HEADER_BYTES:
        return None
    length, crc = _HEADER.unpack_from(header)
    return length if masked_crc32c(header[:8]) == crc else None


def parse_index(
    raw: bytes,
    where: str,
    *,
    token_bytes: int,
    records: int,
    file_bytes: int,
    has_mask: bool = False,
) -> np.ndarray:
    """The index beside a shard, [records] of INDEX_DTYPE. Raises DataError.

    Args:
        raw: the whole .index.npy file.
        where: its name for messages.
        token_bytes: width of a token, 2 or 4.
        records: how many the manifest says there are.
        has_mask: a byte a token stands before the tokens.
        file_bytes: size of the shard. Every entry returned lies inside it, and the
            records follow one another without a gap, so entries need no more checks.
    """
    file = io.BytesIO(raw)
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as e:  # NumPy raises half a dozen kinds on a damaged header
        raise DataError(f"{where}: not a NumPy array file; prepare again") from e
    if dtype != INDEX_DTYPE or shape != (records,):
        raise DataError(
            f"{where}: holds {shape} of {dtype}, expected ({records},) of "
            f"{INDEX_DTYPE}; prepare again"
        )
    entries = memoryview(raw)[file.tell() :]
    if len(entries) != records * INDEX_DTYPE.itemsize:
        raise DataError(
            f"{where}: {len(entries)} bytes for {records} entries; prepare again"
        )
    index = np.frombuffer(entries, INDEX_DTYPE)
    widths = index["tokens"].astype(np.uint64) * np.uint64(token_bytes)
    ends = index["payload"] + widths + np.uint64(FOOTER_BYTES)
    starts = np.concatenate([np.zeros(1, np.uint64), ends])
    prefix = index["payload"] - index["offset"]
    longest = np.full(records, HEADER_BYTES + _MAX_PREFIX_BYTES, np.uint64)
    if has_mask:
        longest += index["tokens"] + np.uint64(_MAX_PREFIX_BYTES)
    if (
        (index["offset"] != starts[:-1]).any()
        or int(starts[-1]) != file_bytes
        or (prefix <= HEADER_BYTES).any()
        or (prefix > longest).any()
    ):
        raise DataError(
            f"{where}: the entries do not describe a shard of {file_bytes} bytes; "
            "prepare again"
        )
    return index


def _crc_differs(of: str, found: int, stated: int) -> str:
    return f"CRC-32C of its {of} is {found:08x}, the record says {stated:08x}"


def _feature(name: str, value: bytes) -> bytes:
    """A feature of an Example up to its only value, which follows."""
    bytes_list = b"\x0a" + _varint(len(value))  # BytesList.value
    head = b"\x0a" + _varint(len(bytes_list) + len(value))  # Feature.bytes_list
    key = b"\x0a" + _varint(len(name)) + name.encode()  # map entry: key, value
    key += b"\x12" + _varint(len(head) + len(bytes_list) + len(value))
    entry_size = len(key) + len(head) + len(bytes_list) + len(value)
    return b"\x0a" + _varint(entry_size) + key + head + bytes_list  # Features.feature


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(
    data: bytes, span: tuple[int, int], number: int, where: str
) -> list[tuple[int, int]]:
    """Spans of the length-delimited fields `number` of the message at `span`."""
    at, end = span
    found = []
    while at < end:
        tag, at = _read_varint(data, at, end, where)
        wire = tag & 7
        if wire == _LENGTH_DELIMITED:
            size, at = _read_varint(data, at, end, where)
            if tag >> 3 == number:
                found.append((at, at + size))
            at += size
        elif wire == 0:
            _, at = _read_varint(data, at, end, where)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise DataError(f"{where}: a record is not a tf.train.Example")
        if at > end:
            raise DataError(f"{where}: a record is not a whole tf.train.Example")
    return found


def _read_varint(data: bytes, at: int, end: int, where: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DataError(f"{where}: a record is not a whole tf.train.Example")
