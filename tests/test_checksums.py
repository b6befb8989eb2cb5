# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import random

import pytest

from podium import checksums
from podium.storage import open_folder


@pytest.fixture
def folder(tmp_path):
    """What Orbax writes, in small, with its checksums."""
    (tmp_path / "state" / "d").mkdir(parents=True)
    rng = random.Random(0)
    for name in ("state/d/0a1b", "state/manifest.ocdbt", "run/metadata", "empty"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"" if name == "empty" else rng.randbytes(1000))
    found = open_folder(tmp_path)
    checksums.write(found, has_late=False)
    for name in checksums.LATE:
        (tmp_path / name).write_bytes(b"{}")
    assert checksums.find_damage(found) is None
    checksums.write(found, has_late=True)
    assert checksums.find_damage(found) is None
    return found


def test_a_flipped_bit_in_any_file_is_found_and_named(folder, tmp_path):
    rng = random.Random(1)
    for name in folder.files():
        path = tmp_path / name
        before = path.read_bytes()
        for bit in rng.sample(range(8 * len(before)), k=min(8 * len(before), 40)):
            after = bytearray(before)
            after[bit // 8] ^= 1 << bit % 8
            path.write_bytes(after)
            assert name in (checksums.find_damage(folder) or ""), bit
        path.write_bytes(before)
    assert checksums.find_damage(folder) is None


def test_a_lost_and_a_shortened_file_are_named(folder, tmp_path):
    path = tmp_path / "state" / "d" / "0a1b"
    path.write_bytes(path.read_bytes()[:-1])
    assert checksums.find_damage(folder) == (
        "state/d/0a1b has 999 bytes, 1000 were written"
    )
    path.unlink()
    assert checksums.find_damage(folder) == "state/d/0a1b is missing"


def test_what_is_known_is_not_read_again_for_the_late_files(folder, tmp_path):
    # A bit that flipped between the two writes is not taken for what was written.
    (tmp_path / "run" / "metadata").write_bytes(bytes(1000))
    checksums.write(folder, has_late=True)
    assert "run/metadata has CRC-32C" in (checksums.find_damage(folder) or "")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"files": 3}', b'{"files": {"a": []}}'])
def test_checksums_that_make_no_sense_are_damage(folder, tmp_path, text):
    (tmp_path / checksums.NAME).write_bytes(text)
    assert checksums.find_damage(folder) == "checksums.json is damaged"
