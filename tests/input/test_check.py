# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What is found before a run begins, without reading whole shards."""

import dataclasses
import hashlib
import os
import shutil

import numpy as np
import pytest

from podium.config import DataConfig
from podium.errors import DataError
from podium.input.check import check_datasets
from podium.input.manifest import load_manifest, save_manifest
from podium.input.records import encode_record


@pytest.fixture
def folder(gold, tmp_path):
    # Shards of equal size, but the records differ in length: nothing but the records
    # tells them apart.
    first = [[*range(1, 20), 0], [7] * 5 + [0], [1, 0], [2, 0], [9] * 10 + [0]]
    source = gold(first + first[::-1], [[5, 0], [6, 0]], num_shards=2)
    folder = tmp_path / "data"
    shutil.copytree(source, folder)
    sizes = {s.bytes for s in load_manifest(folder).splits["train"]}
    assert len(sizes) == 1
    return folder


def check(folder, **data):
    """None, or the one line that says what is wrong."""
    paths = (str(folder),)
    try:
        check_datasets(DataConfig(paths=paths, **data), [load_manifest(folder)])
    except DataError as error:
        return str(error)
    return None


def swap(folder, a, b):
    (folder / a).rename(folder / "aside")
    (folder / b).rename(folder / a)
    (folder / "aside").rename(folder / b)


def flip(path, byte):
    raw = bytearray(path.read_bytes())
    raw[byte] ^= 1
    path.write_bytes(raw)


TRAIN = [f"train-0000{i}-of-00002.tfrecord" for i in range(2)]
INDEX = [name.replace(".tfrecord", ".index.npy") for name in TRAIN]
EVAL = "eval-00000-of-00002.tfrecord"


def test_a_whole_data_set_passes(folder):
    assert check(folder) is None


def test_two_shards_exchanged_are_found_under_either_policy(folder):
    swap(folder, *TRAIN)
    for policy in ("error", "skip"):
        says = check(folder, on_damage=policy)
        assert f"{TRAIN[0]}: record 0 at byte 0: has " in says
        assert "another shard, were two exchanged?" in says


def test_two_shards_of_unequal_size_exchanged_are_told_by_their_sizes(folder):
    swap(folder, TRAIN[0], EVAL)
    says = check(folder)
    assert f"{TRAIN[0]}: " in says or f"{EVAL}: " in says
    assert "were the two exchanged?" in says


@pytest.mark.parametrize("name", ["a copy", "with its shard"])
def test_an_index_of_another_shard_is_found(folder, name):
    if name == "a copy":
        shutil.copy(folder / INDEX[1], folder / INDEX[0])
    else:  # the pair is consistent, but it is not the one that the manifest lists
        swap(folder, *TRAIN)
        swap(folder, *INDEX)
    assert f"{INDEX[0]}: SHA-256 is" in check(folder)


@pytest.mark.parametrize("record", ["first", "last"])
@pytest.mark.parametrize("where", ["header", "data", "footer"])
def test_a_damaged_end_of_a_shard_is_found_and_left_to_the_reader_under_skip(
    folder, record, where
):
    index = np.load(folder / INDEX[1])
    number, entry = (0, index[0]) if record == "first" else (4, index[4])
    end = os.path.getsize(folder / TRAIN[1]) if number else int(index[1]["offset"])
    byte = {"header": int(entry["offset"]), "data": end - 6, "footer": end - 1}[where]
    flip(folder / TRAIN[1], byte)
    says = check(folder)
    assert f"{TRAIN[1]}: record {number} at byte {entry['offset']} is damaged" in says
    assert "CRC-32C of its" in says
    assert "copy the file again" in says
    assert check(folder, on_damage="skip") is None


def test_damage_in_the_middle_of_a_shard_is_not_looked_for(folder):
    flip(folder / TRAIN[0], int(np.load(folder / INDEX[0])[2]["payload"]))
    assert check(folder) is None


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: p.unlink(), "No such file or directory, but the manifest lists it"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "bytes, the manifest says"),
        (lambda p: p.write_bytes(p.read_bytes() + b"x"), "bytes, the manifest says"),
        (lambda p: p.write_bytes(b"\0" * p.stat().st_size), "CRC-32C of its length"),
    ],
)
def test_a_missing_truncated_or_blank_shard_is_found(folder, damage, says):
    damage(folder / TRAIN[0])
    told = check(folder)
    assert TRAIN[0] in told
    assert says in told


def test_a_byte_of_the_tokenizer_is_found(folder):
    flip(folder / "tokenizer.json", 0)
    assert "tokenizer.json: SHA-256 is" in check(folder)


def forge(folder, record: bytes, tokens: int, **tokenizer):
    """The first train shard has one record, with right checksums all around."""
    manifest = load_manifest(folder)
    shard = manifest.splits["train"][0]
    frame, payload = encode_record(record)
    (folder / shard.file).write_bytes(frame)
    index = np.array([(0, payload, tokens)], np.load(folder / shard.index).dtype)
    np.save(folder / shard.index, index)
    shard = dataclasses.replace(
        shard,
        records=1,
        documents=1,
        tokens=tokens,
        bytes=len(frame),
        sources=(shard.sources[0]._replace(num_records=1),),
        index_sha256=hashlib.sha256((folder / shard.index).read_bytes()).hexdigest(),
    )
    splits = {"train": (shard,), "eval": manifest.splits["eval"]}
    info = dataclasses.replace(manifest.tokenizer, **tokenizer)
    save_manifest(folder, dataclasses.replace(manifest, splits=splits, tokenizer=info))


@pytest.mark.parametrize(
    ("ids", "tokenizer", "says"),
    [
        ([1, 2, 3], {}, "does not end in eos (0)"),
        ([1, 0], {"bos_id": 2}, "does not start with bos (2)"),
        ([1, 5000, 0], {}, "id 5000 is beyond the vocabulary of 1000"),
    ],
)
def test_what_another_program_got_wrong_is_found_with_every_checksum_right(
    folder, ids, tokenizer, says
):
    forge(folder, np.array(ids, "<u2").tobytes(), len(ids), **tokenizer)
    assert f".tfrecord: record 0 at byte 0: {says}; write the data" in check(folder)
