# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import shutil

import numpy as np
import pytest

from podium.errors import DataError
from podium.input.tfrecord import Documents


def read(opened, document):
    return opened.read_range(document, document + 1).tolist()


@pytest.mark.parametrize("vocab_size", [1000, 70_000])
@pytest.mark.parametrize("num_shards", [1, 3, 7])
def test_documents_come_back_as_written(gold, documents, vocab_size, num_shards):
    train = documents(0, 30, 50, vocab_size)
    opened = Documents(
        gold(train, vocab_size=vocab_size, num_shards=num_shards), "train"
    )
    assert len(opened) == 30
    assert [read(opened, i) for i in range(30)] == train
    assert opened.read_range(4, 20).tolist() == [t for d in train[4:20] for t in d]


def test_a_document_knows_its_shard_and_record(gold):
    opened = Documents(gold([[0]] * 10, num_shards=3), "train")
    shard, record = opened.locate(np.arange(10))
    assert shard.tolist() == [0] * 3 + [1] * 3 + [2] * 4
    assert record.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3]


def damage(folder, byte, split="train"):
    path = sorted(folder.glob(f"{split}-*.tfrecord"))[-1]
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("byte", [-20, -1, 0, 9])
def test_a_damaged_record_is_named_when_it_is_first_read(gold, documents, byte):
    folder = gold(documents(0, 1, 50), num_shards=1)
    path = damage(folder, byte)
    opened = Documents(folder, "train")
    with pytest.raises(DataError, match=rf"{path.name}: record 0 .*CRC-32C") as e:
        read(opened, 0)
    assert "\n" not in str(e.value)


def part(opened, document, start, length):
    out = np.zeros(length, opened.manifest.token_dtype)
    where = (np.array([x]) for x in (0, document, start, length))
    damaged = opened.copy(out.view(np.uint8).data, *where)
    return out.tolist(), damaged


@pytest.mark.parametrize("tokens", [50, 100_000])  # read whole each time, and by blocks
def test_what_changes_after_a_record_was_found_sound_is_not_used(
    gold, documents, tokens
):
    (train,) = documents(0, 1, tokens)
    train = [*train[:-1], *[3] * (tokens - len(train)), 0]
    folder = gold([train], num_shards=1)
    opened = Documents(folder, "train")
    assert read(opened, 0) == train
    rng = np.random.default_rng(0)
    for start in (0, len(train) - 20, *rng.integers(0, len(train) - 20, 9)):
        assert part(opened, 0, start, 20) == (train[start : start + 20], [])
    damage(folder, -20)
    got, damaged = part(opened, 0, len(train) - 20, 20)
    assert (got, damaged) == ([0] * 20, [0])
    says = "CRC-32C of its data" if tokens == 50 else "not those that were read before"
    assert says in str(opened.damage(0))
    assert part(opened, 0, 0, 20) == ([0] * 20, [0])  # from now on all of it


def test_of_a_long_record_the_blocks_that_are_needed_are_read(gold, monkeypatch):
    opened = Documents(gold([[*[7] * 100_000, 0]], num_shards=1), "train")
    read(opened, 0)
    read_bytes = []
    real = opened._files.read

    def counted(file, num_bytes, offset):
        read_bytes.append(num_bytes)
        return real(file, num_bytes, offset)

    monkeypatch.setattr(opened._files, "read", counted)
    part(opened, 0, 50_000, 2000)
    part(opened, 0, 99_990, 11)
    assert len(read_bytes) == 2
    assert max(read_bytes) <= 2 * 16_384


def test_other_records_of_a_damaged_shard_can_be_read(gold):
    train = [[5, 6, 0], [7, 8, 0]]
    folder = gold(train, num_shards=1)
    damage(folder, -6)
    opened = Documents(folder, "train")
    assert read(opened, 0) == train[0]
    with pytest.raises(DataError, match="record 1 "):
        read(opened, 1)


def test_a_file_cut_after_it_was_opened_is_an_error(gold, documents):
    folder = gold(documents(0, 50, 50), num_shards=1)
    opened = Documents(folder, "train")
    path = folder / opened.shards[0].file
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="is damaged"):
        read(opened, 49)


def test_an_index_of_another_data_set_is_refused(gold, documents):
    one, other = gold(documents(0, 9, 50)), gold(documents(1, 9, 50))
    name = "train-00000-of-00002.index.npy"
    shutil.copy(other / name, one / name)
    with pytest.raises(DataError, match="do not describe a shard"):
        Documents(one, "train")


def test_a_record_without_tokens_is_refused(gold):
    with pytest.raises(DataError, match="record 1 has no tokens"):
        Documents(gold([[1, 0], [], [2, 0]], num_shards=1), "train")
