# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Unit -> items, one after the other: a text, or the reason why there is none.

Readers hold one line, one piece or a few rows at a time, never a whole file.
"""

import codecs
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from podium.errors import DataError
from podium.input.records import feature_spans, read_frames
from podium.preparation.sources import Unit

MAX_LINE_BYTES = 256 << 20  # of JSON; a whole array on one line would fill the memory
_CUT_WINDOW_BYTES = 1 << 20  # how far behind its place a cut looks for a line end
_BINARY_PROBE_BYTES = 8192  # as git and grep: a NUL byte this early means binary
_MOST_KEY_CHARS = 200  # of the keys of a line that lacks the one with the text
_PARQUET_ROWS = 64  # at a time; a row may be a book


class Item(NamedTuple):
    """One line, row, example or piece of a source."""

    number: int  # within the unit, from 0
    text: str | None  # None: rejected, or nothing to see (no reason)
    read_bytes: int  # progress within the unit's size_bytes
    reason: str = ""
    detail: str = ""
    starts_document: bool = True  # False: continues the item before


def read_unit(
    unit: Unit, *, text_key: str | None, max_document_bytes: int
) -> Iterator[Item]:
    """Items of a unit in order; long texts are cut into pieces of about the limit.

    Without `text_key`, a text is a whole line of JSONL that holds an object.

    Never raises for what a file holds, nor for a file that cannot be read.
    """
    if unit.kind == "reject":
        yield Item(0, None, 0, unit.reason, unit.detail)
        return
    number = -1
    try:
        for item in _READERS[unit.kind](unit, text_key, max_document_bytes):
            number = item.number
            # The file's reader has cut a plain text already.
            if unit.kind == "text" or item.text is None or text_key is None:
                yield item
            else:
                yield from _pieces(item, item.text, max_document_bytes)
    except _DamageError as e:
        yield Item(number + 1, None, 0, e.reason, e.detail)
    except OSError as e:
        yield Item(number + 1, None, 0, "unreadable", e.strerror or str(e))


def line_number(unit: Unit, number: int) -> int:
    """Of item `number` of a unit of JSONL: the line of its file, from 1."""
    before, left = 0, unit.start - 1
    with open(unit.path, "rb") as file:
        while left > 0 and (chunk := file.read(min(left, _CUT_WINDOW_BYTES))):
            before += chunk.count(b"\n")
            left -= len(chunk)
    return number + 1 + (before + 1 if unit.start else 0)


class _DamageError(Exception):
    """The rest of a unit cannot be read."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def _open(unit: Unit) -> IO[bytes]:
    # O_NONBLOCK: a pipe put in the file's place since the scan must not hang us.
    file = os.fdopen(os.open(unit.path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if os.fstat(file.fileno()).st_size != unit.version[0]:
        file.close()
        raise _DamageError("changed", "its size changed while the run was going on")
    return file


def _cut_place(window: bytes, at: int) -> int:
    """Where a text is cut at or behind byte `at`; `window` is its bytes from at - 1.

    Behind the first line end; without one in the window, between two characters.
    """
    line_end = window.find(b"\n")
    if line_end >= 0:
        return at + line_end
    into_character = 0
    for byte in window[1:4]:
        if byte & 0xC0 != 0x80:
            break
        into_character += 1
    return at + into_character


def _pieces(item: Item, text: str, limit: int) -> Iterator[Item]:
    raw = text.encode() if len(text) * 4 > limit else b""  # 4: longest character
    if len(raw) <= limit:
        yield item
        return
    window = min(limit, _CUT_WINDOW_BYTES)
    inner = range(limit, len(raw), limit)
    cuts = [_cut_place(raw[at - 1 : at + window], at) for at in inner]
    borders = [0, *cuts, len(raw)]
    for i, (start, stop) in enumerate(itertools.pairwise(borders)):
        if start < stop:
            piece = raw[start:stop].decode()
            read_bytes = 0 if i else item.read_bytes
            yield item._replace(
                text=piece, read_bytes=read_bytes, starts_document=i == 0
            )


def _item(number: int, raw: bytes, read_bytes: int, **kwargs: Any) -> Item:
    """An item from the UTF-8 bytes of a text."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        return Item(
            number, None, read_bytes, "not UTF-8", f"byte {e.start}: {e.reason}"
        )
    if not text.strip():
        return Item(number, None, read_bytes, "empty")
    return Item(number, text, read_bytes, **kwargs)


def _read_text(unit: Unit, text_key: str, limit: int) -> Iterator[Item]:
    size, _ = unit.version
    with _open(unit) as file:

        def cut(at: int) -> int:
            if at in (0, size):
                return at
            file.seek(at - 1)
            return _cut_place(file.read(min(limit, _CUT_WINDOW_BYTES) + 1), at)

        if b"\0" in file.read(_BINARY_PROBE_BYTES):
            yield Item(0, None, unit.size_bytes, "" if unit.start else "binary")
            return
        start, stop = cut(unit.start), cut(unit.stop)
        file.seek(start)
        raw = file.read(stop - start)
    if not unit.start:
        raw = raw.removeprefix(codecs.BOM_UTF8)
    if start < stop:
        yield _item(0, raw, unit.size_bytes, starts_document=not unit.start)
    else:
        yield Item(0, None, unit.size_bytes)


def _read_jsonl(unit: Unit, text_key: str | None, limit: int) -> Iterator[Item]:
    with _open(unit) as file:
        at = unit.start
        if at:  # the line across our start belongs to the unit before
            file.seek(at - 1)
            at += _skip_line(file) - 1
        number = 0
        while at < unit.stop and (line := file.readline(MAX_LINE_BYTES)):
            size = len(line)
            if size == MAX_LINE_BYTES and not line.endswith(b"\n"):
                size += _skip_line(file)
                item = Item(number, None, size, "line too long")
            else:
                item = _json_item(number, line, text_key)
            yield item
            at += size
            number += 1


def _read_jsonl_gz(unit: Unit, text_key: str | None, limit: int) -> Iterator[Item]:
    with _open(unit) as raw, gzip.open(raw) as file:
        at = 0
        try:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    _skip_line(file)
                    item = Item(number, None, 0, "line too long")
                else:
                    item = _json_item(number, line, text_key)
                yield item._replace(read_bytes=raw.tell() - at)
                at = raw.tell()
                number += 1
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise _DamageError("corrupt gzip", str(e)) from e


def _skip_line(file: IO[bytes] | gzip.GzipFile) -> int:
    """Reads up to and with the next line end; the number of bytes that were."""
    skipped = 0
    while chunk := file.readline(1 << 20):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def _json_item(number: int, line: bytes, text_key: str | None) -> Item:
    size = len(line)
    if not line.strip():
        return Item(number, None, size)
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as e:
        return Item(number, None, size, "not UTF-8", f"byte {e.start}: {e.reason}")
    except (ValueError, RecursionError) as e:
        return Item(number, None, size, "invalid JSON", str(e))
    if not isinstance(value, dict):
        found = type(value).__name__
        return Item(number, None, size, "no text", f"a {found}, no JSON object")
    if text_key is None:
        return Item(number, line.decode(), size)
    if text_key not in value:
        keys = ", ".join(value)[:_MOST_KEY_CHARS] or "none"
        detail = f"no key {text_key!r}; there are {keys}"
        return Item(number, None, size, "no text", detail)
    text = value[text_key]
    if not isinstance(text, str):
        found = type(text).__name__
        return Item(number, None, size, "no text", f"{text_key!r} is a {found}")
    try:
        text.encode()
    except UnicodeEncodeError:
        return Item(number, None, size, "not UTF-8", "half a surrogate pair")
    if not text.strip():
        return Item(number, None, size, "empty")
    return Item(number, text, size)


def _read_parquet(unit: Unit, text_key: str, limit: int) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with _open(unit) as raw:
        try:
            file = pq.ParquetFile(raw)
            groups = range(unit.start, unit.stop)
            rows = sum(file.metadata.row_group(i).num_rows for i in groups) or 1
            for batch in file.iter_batches(
                _PARQUET_ROWS, row_groups=groups, columns=[text_key], use_threads=False
            ):
                try:  # as bytes: a column may say string and hold no UTF-8
                    values = batch.column(0).cast(pa.large_binary()).to_pylist()
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
                    kind = batch.column(0).type
                    detail = f"column {text_key!r} is {kind}"
                    raise _DamageError("no text", detail) from e
                for value in values:
                    share = unit.size_bytes * (number + 1) // rows
                    share -= unit.size_bytes * number // rows
                    if value is None:
                        yield Item(number, None, share, "no text", "null")
                    else:
                        yield _item(number, value, share)
                    number += 1
        except (pa.ArrowException, OSError) as e:
            raise _DamageError("corrupt Parquet", str(e).split("\n")[0]) from e


def _read_tfds(unit: Unit, text_key: str, limit: int) -> Iterator[Item]:
    with _open(unit) as file:
        try:
            for number, data in enumerate(read_frames(file, unit.path)):
                spans = feature_spans(data, text_key, unit.path)
                if len(spans) == 1:
                    yield _item(number, data[slice(*spans[0])], len(data))
                else:
                    detail = f"{len(spans)} texts in feature {text_key!r}"
                    yield Item(number, None, len(data), "no text", detail)
        except DataError as e:
            raise _DamageError("corrupt TFRecord", str(e)) from e


_READERS: dict[str, Callable[[Unit, Any, int], Iterator[Item]]] = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "jsonl_gz": _read_jsonl_gz,
    "parquet": _read_parquet,
    "tfds": _read_tfds,
}
