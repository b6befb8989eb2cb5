# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import hypothesis
import pytest
from hypothesis import strategies as st

from podium.preparation.plan import default_num_shards, plan_shards
from podium.preparation.sources import Unit


def _unit(kind, name, size):
    return Unit(kind=kind, path=name, uri=name, stop=size, size_bytes=size)


@pytest.mark.parametrize(
    ("size", "shards"),
    [
        (0, 1),
        (1, 1),
        (8 << 20, 1),
        ((8 << 20) + 1, 2),
        (1 << 30, 64),
        (32 << 30, 64),
        (1 << 40, 2048),
    ],
)
def test_the_number_of_shards_follows_the_size(size, shards):
    assert default_num_shards(size) == shards


def test_files_of_one_size_are_shared_out_evenly_and_in_order():
    units = [_unit("text", f"{i:03}", 10) for i in range(100)]
    shards = plan_shards(units, 8)
    assert {len(shard) for shard in shards} <= {12, 13}
    assert [unit for shard in shards for unit in shard] == units


def test_no_shard_is_empty_when_there_are_few_files():
    shards = plan_shards([_unit("text", "a", 5), _unit("text", "b", 5)], 16)
    assert [len(shard) for shard in shards] == [1, 1]


def test_a_large_jsonl_file_is_cut_to_size():
    shards = plan_shards([_unit("jsonl", "big", 1000)], 4)
    assert [(s[0].start, s[0].stop) for s in shards] == [
        (0, 250),
        (250, 500),
        (500, 750),
        (750, 1000),
    ]


_UNITS = st.lists(
    st.tuples(st.sampled_from(["text", "jsonl", "reject"]), st.integers(0, 300)),
    max_size=12,
)


@hypothesis.given(_UNITS, st.integers(1, 20))
@hypothesis.settings(max_examples=300, deadline=None)
def test_every_byte_of_every_input_lies_in_exactly_one_shard(sizes, num_shards):
    units = [_unit(kind, str(i), size) for i, (kind, size) in enumerate(sizes)]
    shards = plan_shards(units, num_shards)
    assert len(shards) <= num_shards
    assert all(shards)
    planned = [unit for shard in shards for unit in shard]
    at = 0
    for unit in units:
        covered = 0
        while at < len(planned) and planned[at].uri == unit.uri:
            assert planned[at].start == covered
            covered = planned[at].stop
            at += 1
        assert covered == unit.stop
    assert at == len(planned)
