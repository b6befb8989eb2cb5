# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs -> units of work, from names and sizes alone: no text is read here.

A folder gives every file in it that may hold text, in the order of their names. Left
out: hidden files and folders, __pycache__, site-packages. Listed as rejects without
being opened: names that say binary (.png, .so, .zip), pipes, sockets, devices.
"""

import dataclasses
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Literal

from podium.errors import ConfigError

SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages"})
BINARY_SUFFIXES = tuple(
    f".{name}"
    for line in (
        "7z bz2 deb gz jar lz4 rar tar tgz whl xz zip zst",  # archives
        "a bin class dll dylib exe lib o obj pyc pyd pyo so wasm",  # programs
        "aac aif aiff au avi flac mov mp3 mp4 ogg wav webm",  # sound and film
        "bmp gif icns ico jpeg jpg png tif tiff webp eot otf ttf woff woff2",  # sight
        "doc docx pdf ppt pptx xls xlsx",  # documents
        "db h5 mo npy npz pickle pkl pt safetensors sqlite tfrecord",  # data
    )
    for name in line.split()
)

UnitKind = Literal["text", "jsonl", "jsonl_gz", "parquet", "tfds", "reject"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """A stretch of one file that one worker reads from front to back."""

    kind: UnitKind
    path: str
    uri: str  # how the manifest names the source
    start: int = 0  # byte of the file; row group for Parquet
    stop: int = 0
    size_bytes: int = 0  # its share of the work
    version: tuple[int, int] = (0, 0)  # of the file: size and modification time
    first_item: int | None = None  # its number in the source; None: known once read
    reason: str = ""  # for rejects
    detail: str = ""


def find_units(
    inputs: Sequence[str],
    *,
    text_key: str,
    max_document_bytes: int,
    data_dir: str | None,
    leave_out: Sequence[str],
) -> list[Unit]:
    """Units of all inputs in their order; a file named twice counts once.

    Args:
        inputs: as PrepareSpec.inputs. One that does not exist raises ConfigError.
        leave_out: folders and files to pass by: the output may lie inside an input.
    """
    units: list[Unit] = []
    seen: set[str] = set()
    hidden = {os.path.realpath(path) for path in leave_out}
    for name in inputs:
        if name.startswith("tfds:"):
            from podium.preparation.tfds_source import tfds_units

            units += tfds_units(name, text_key=text_key, data_dir=data_dir)
            continue
        for path in _files(name, hidden):
            path = os.path.abspath(path)
            if path not in seen:
                seen.add(path)
                units += _file_units(path, max_document_bytes, text_key)
    return units


def _files(name: str, hidden: set[str]) -> Iterator[str]:
    name = os.path.expanduser(name)
    if os.path.lexists(name):
        yield from _walk(name, hidden) if os.path.isdir(name) else (name,)
        return
    matches = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []
    if not matches:
        what = "matches nothing" if glob.has_magic(name) else "does not exist"
        raise ConfigError(
            f"--input={name} {what}; expected a folder, a file, a glob or tfds:NAME"
        )
    for match in matches:
        yield from _walk(match, hidden) if os.path.isdir(match) else (match,)


def _walk(folder: str, hidden: set[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in hidden:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError:
        yield folder  # _file_units says what is wrong with it
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
            continue
        if os.path.join(real, entry.name) in hidden:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, hidden)
        elif not (entry.is_symlink() and os.path.isdir(entry.path)):
            yield entry.path  # folders behind links are left out: they may loop


def _file_units(path: str, max_document_bytes: int, text_key: str) -> list[Unit]:
    uri = os.fsencode(path).decode("utf-8", "backslashreplace")

    def reject(reason: str, detail: str = "") -> list[Unit]:
        return [Unit(kind="reject", path=path, uri=uri, reason=reason, detail=detail)]

    try:
        info = os.stat(path)
    except OSError as e:
        return reject("unreadable", e.strerror or "")
    if not stat.S_ISREG(info.st_mode):
        return reject("unreadable", "not a regular file")
    size = info.st_size
    if not size:
        return reject("empty")
    version = (size, info.st_mtime_ns)
    lower = path.lower()
    if lower.endswith((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")):
        kind = "jsonl_gz" if lower.endswith(".gz") else "jsonl"
        return [
            Unit(
                kind=kind,
                path=path,
                uri=uri,
                stop=size,
                size_bytes=size,
                version=version,
            )
        ]
    if lower.endswith(".parquet"):
        return _parquet_units(path, uri, version, text_key)
    if lower.endswith(BINARY_SUFFIXES):
        return reject("binary")
    return [
        Unit(
            kind="text",
            path=path,
            uri=uri,
            start=start,
            stop=min(start + max_document_bytes, size),
            size_bytes=min(max_document_bytes, size - start),
            version=version,
        )
        for start in range(0, size, max_document_bytes)
    ]


def _parquet_units(
    path: str, uri: str, version: tuple[int, int], text_key: str
) -> list[Unit]:
    import pyarrow.parquet as pq  # 0.2 s, and only Parquet needs it

    reason, detail, sizes, rows = "empty", "", {}, []
    try:
        metadata = pq.read_metadata(path)
        columns = metadata.schema.to_arrow_schema().names
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        rows = [group.num_rows for group in groups]
        if text_key in columns:
            sizes = {i: groups[i].total_byte_size for i, n in enumerate(rows) if n}
        else:
            reason = "no text"
            detail = f"no column {text_key!r}; there are {', '.join(columns)}"
    except Exception as e:  # Arrow's own kinds, and OSError
        reason, detail = "corrupt Parquet", str(e).split("\n")[0]
    if not sizes:
        return [Unit(kind="reject", path=path, uri=uri, reason=reason, detail=detail)]
    return [
        Unit(
            kind="parquet",
            path=path,
            uri=uri,
            start=i,
            stop=i + 1,
            size_bytes=size,
            version=version,
            first_item=sum(rows[:i]),
        )
        for i, size in sizes.items()
    ]
