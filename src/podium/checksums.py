# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Checksums of a checkpoint: checksums.json has size and CRC-32C of its other files.

It is written last but for two small files of Orbax's, which are added once they are
there: a checkpoint that was finished and has none is damaged. No jax.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import google_crc32c

from podium.storage import File, Folder

NAME = "checksums.json"
# What Orbax writes as it moves a finished checkpoint to its place: the time, mostly.
LATE = ("_CHECKPOINT_METADATA", "commit_success.txt")
_THREADS = 8


def write(folder: Folder, *, has_late: bool) -> None:
    """Writes checksums.json of what is there, with or without the two late files.

    With them what is known already is not read again.
    """
    names = [name for name in folder.files() if name != NAME]
    known: dict[str, File] = {}
    if has_late:
        found = _load(folder)
        known = {} if isinstance(found, str) else found
        missing = [name for name in names if name not in known]
    else:
        names = missing = [name for name in names if name not in LATE]
    known |= zip(missing, _describe(folder, missing), strict=True)
    files = {name: known[name] for name in names}
    tree = {"crc32c": _own_checksum(files), "files": files}
    folder.write(NAME, json.dumps(tree).encode())


def find_damage(folder: Folder) -> str | None:
    """Which file of a checkpoint is not as it was written, and how; None: all are."""
    found = _load(folder)
    if isinstance(found, str):
        return found
    there = set(folder.files())
    if lost := sorted(found.keys() - there):
        return f"{lost[0]} is missing"
    names = list(found)
    for name, now in zip(names, _describe(folder, names), strict=True):
        then = found[name]
        if now.num_bytes != then.num_bytes:
            return f"{name} has {now.num_bytes} bytes, {then.num_bytes} were written"
        if now.crc32c != then.crc32c:
            return f"{name} has CRC-32C {now.crc32c:08x}, {then.crc32c:08x} was written"
    return None


def _load(folder: Folder) -> dict[str, File] | str:
    try:
        tree = json.loads(folder.read(NAME))
        files = {name: File(*entry) for name, entry in tree["files"].items()}
        is_sound = tree["crc32c"] == _own_checksum(files)
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        is_sound, files = False, {}
    return files if is_sound else f"{NAME} is damaged"


def _own_checksum(files: dict[str, File]) -> int:
    text = json.dumps(files, sort_keys=True)
    return google_crc32c.value(text.encode())


def _describe(folder: Folder, names: list[str]) -> list[File]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(folder.describe, names))
