# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The plan of `best_fit` packing: which documents share a row.

Documents longer than T are cut into pieces of T, each a row; what remains of every
document is placed longest first into the fullest row with room (best-fit decreasing;
Ding et al. 2024, arXiv:2404.10830). Rows with equal room and documents of equal length
are interchangeable, so the work is per distinct length, and a few vectorised moves
each: ten million documents take seconds.

A plan depends on the documents' lengths and T alone. It is made once and kept beside
the manifest; where that folder cannot be written, in the user's cache folder.
"""

import bisect
import contextlib
import hashlib
import logging
import os
import pathlib
import shutil
import tempfile
from typing import NamedTuple

import numpy as np

from podium.input.tfrecord import Documents
from podium.storage import is_remote

_PLAN_VERSION = 2
_DIGEST_FILE = "sha256"


class Plan(NamedTuple):
    """Row r holds chunks row_begin[r] to row_begin[r + 1]."""

    row_begin: np.ndarray  # [rows + 1] int64
    document: np.ndarray  # [chunks] uint32 or uint64
    start: np.ndarray  # [chunks] uint32, a multiple of T


def make_plan(tokens: np.ndarray, seq_len: int) -> Plan:
    """The best-fit-decreasing plan for documents of `tokens` [n] tokens each.

    Rows are numbered in the order of their first document, documents in a row too.
    """
    num_documents = len(tokens)
    num_full, rest = np.divmod(tokens, seq_len)
    bin_of, num_bins = _best_fit_decreasing(rest, seq_len)
    documents = np.arange(num_documents)
    with_rest = np.flatnonzero(rest)
    first_of_bin = np.full(num_bins, num_documents)
    backwards = with_rest[::-1]
    first_of_bin[bin_of[backwards]] = backwards  # the last assignment stands
    opens_row = np.zeros(num_documents, np.int64)
    opens_row[first_of_bin] = 1

    rows_of = num_full + opens_row
    first_row = np.cumsum(rows_of) - rows_of
    row_of_bin = first_row[first_of_bin] + num_full[first_of_bin]
    full_document = np.repeat(documents, num_full)
    piece = np.arange(len(full_document)) - np.repeat(
        np.cumsum(num_full) - num_full, num_full
    )
    row = np.concatenate(
        [first_row[full_document] + piece, row_of_bin[bin_of[with_rest]]]
    )
    document = np.concatenate([full_document, with_rest])
    start = np.concatenate([piece, num_full[with_rest]]) * seq_len
    order = np.argsort(row, kind="stable")
    row_begin = np.zeros(int(rows_of.sum()) + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=len(row_begin) - 1), out=row_begin[1:])
    number = np.uint32 if num_documents <= 2**32 else np.uint64
    return Plan(
        row_begin, document[order].astype(number), start[order].astype(np.uint32)
    )


def load_or_make_plan(documents: Documents, seq_len: int) -> Plan:
    """The plan for a split and T, from the cache or made and cached. Any number of
    processes may do this at once: the first to finish is kept."""
    name = (
        f"best_fit-v{_PLAN_VERSION}-{documents.split}-{seq_len}"
        f"-{documents.manifest.fingerprint[:16]}"
    )
    folders = [_user_cache() / "podium" / "packing"]
    if not is_remote(documents.folder.path):
        folders.insert(0, pathlib.Path(documents.folder.path) / "packing")
    for folder in folders:
        if (plan := _load(folder / name)) is not None:
            return plan
    plan = make_plan(documents.tokens, seq_len)
    for folder in folders:
        try:
            _save(folder / name, plan)
        except OSError as e:
            logging.getLogger(__name__).warning(
                "%s: cannot keep the packing plan here: %s", folder, e.strerror
            )
            continue
        break
    return plan


def _best_fit_decreasing(rest: np.ndarray, seq_len: int) -> tuple[np.ndarray, int]:
    """(bin of each document, number of bins) for remainders in [0, T); 0 has none."""
    by_length = np.argsort(rest.astype(np.min_scalar_type(seq_len)), kind="stable")
    counts = np.bincount(rest, minlength=seq_len)
    first = np.cumsum(counts) - counts
    bin_of_sorted = np.full(len(rest), -1, np.int64)
    room: dict[int, list[np.ndarray]] = {}  # free tokens -> bins with exactly that
    rooms: list[int] = []  # its keys, ascending
    num_bins = 0

    def put(free: int, bins: np.ndarray) -> None:
        if free and len(bins):
            if free not in room:
                bisect.insort(rooms, free)
            room.setdefault(free, []).append(bins)

    for length in np.flatnonzero(counts)[::-1].tolist():
        if length == 0:
            break
        at, left = int(first[length]), int(counts[length])
        while left:
            i = bisect.bisect_left(rooms, length)
            free = rooms[i] if i < len(rooms) else seq_len
            each = free // length  # the fullest bin with room stays it until full
            wanted = -(-left // each)
            if free == seq_len:
                bins = np.arange(num_bins, num_bins + wanted)
                num_bins += wanted
            else:
                bins = room[free].pop()
                if len(bins) > wanted:
                    room[free].append(bins[wanted:])
                    bins = bins[:wanted]
                if not room[free]:
                    del room[free], rooms[i]
            placed = min(left, len(bins) * each)
            bin_of_sorted[at : at + placed] = np.repeat(bins, each)[:placed]
            full, partial = divmod(placed, each)
            put(free - each * length, bins[:full])
            put(free - partial * length, bins[full : full + (partial > 0)])
            at, left = at + placed, left - placed
    bin_of = np.empty(len(rest), np.int64)
    bin_of[by_length] = bin_of_sorted
    return bin_of, num_bins


def _load(folder: pathlib.Path) -> Plan | None:
    try:
        plan = Plan(
            *(np.load(folder / f"{f}.npy", mmap_mode="r") for f in Plan._fields)
        )
        stated = (folder / _DIGEST_FILE).read_text()
    except (OSError, ValueError):  # absent, or cut short by a crash of the machine
        return None
    return plan if stated == _digest(plan) else None


def _digest(plan: Plan) -> str:
    digest = hashlib.sha256()
    for array in plan:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _save(folder: pathlib.Path, plan: Plan) -> None:
    """Writes a folder of three arrays in one step. Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = pathlib.Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        for name, array in plan._asdict().items():
            with open(made / f"{name}.npy", "wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        (made / _DIGEST_FILE).write_text(_digest(plan))
        made.chmod(0o755)
        if _load(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                made.rename(folder)  # fails if another process was first: same plan
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _user_cache() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
