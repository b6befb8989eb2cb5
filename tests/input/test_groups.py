# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Groups of held-out tokens: sources by folder, and never more than asked for."""

import collections

import numpy as np
import pytest

from podium.config import DataConfig
from podium.input.groups import Groups, group_sources
from podium.input.loader import Loader
from podium.input.manifest import Shard, SourceRange
from podium.input.spec import StreamSpec


def shard_of(records: dict[str, int]) -> Shard:
    sources, at = [], 0
    for uri, num in records.items():
        sources.append(SourceRange(at, num, 0, uri))
        at += num
    return Shard(
        file="f",
        index="i",
        records=at,
        documents=at,
        tokens=at,
        bytes=1,
        sha256="",
        index_sha256="",
        sources=tuple(sources),
    )


def named(records: dict[str, int], max_groups: int) -> dict[str, list[str]]:
    names, group_of = group_sources([[shard_of(records)]], max_groups)
    assert len(names) <= max_groups
    assert set(group_of) == set(records)
    out = collections.defaultdict(list)
    for uri, group in group_of.items():
        out[names[group]].append(uri)
    assert set(out) == set(names)
    return dict(out)


BOOKS_AND_WEB = {
    **{f"/data/books/{i}.txt": 1 for i in range(50)},
    **{f"/data/web/{d}/{i}.jsonl": 10 for d in "abc" for i in range(9)},
    "/data/code.parquet": 7,
}


def test_sources_are_grouped_by_folder_and_the_largest_is_parted():
    got = named(BOOKS_AND_WEB, 8)
    assert set(got) == {"books", "web/a", "web/b", "web/c", "code.parquet"}
    assert len(got["books"]) == 50
    assert set(named(BOOKS_AND_WEB, 3)) == {"books", "web", "code.parquet"}
    assert set(named(BOOKS_AND_WEB, 2)) == {"data"}
    assert len(named(BOOKS_AND_WEB, 100)) == 78  # one a source
    assert set(named({"/texts/only.txt": 3}, 5)) == {"only.txt"}


def test_ten_thousand_files_of_one_folder_are_one_group():
    assert len(named({f"/x/{i}.txt": 1 for i in range(10_000)}, 20)) == 1


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_every_token_of_a_packed_row_has_the_group_of_its_document(
    gold, documents, packing
):
    folders = [gold(documents(k, 40, 30), documents(k + 7, 30, 12)) for k in range(2)]
    data = DataConfig(paths=tuple(map(str, folders)), seq_len=16, packing=packing)
    rows = [1, 2, 4]  # of 6: those of one process
    spec = StreamSpec(data=data, split="eval", global_batch_seqs=6, rows=rows)
    by_source = Groups(spec, "source", max_groups=9)
    by_dataset = Groups(spec, "dataset", max_groups=1)
    assert by_source.names == (
        *("eval-00000-of-00002/a.txt", "eval-00000-of-00002/b.txt"),
        *("eval-00001-of-00002/a.txt", "eval-00001-of-00002/b.txt"),
    )
    assert by_dataset.names == tuple(f.name for f in folders)
    loader = Loader(spec)
    seen = set()
    for step in range(loader.stop_step or 0):
        sources, sets = by_source.of_batch(step), by_dataset.of_batch(step)
        dataset, chunks = loader.chunks(step)
        want = np.full(sources.shape, -1)
        for k, row, column, document, _, length in zip(
            dataset, *(f.tolist() for f in chunks), strict=True
        ):
            documents_of = loader.datasets[k].documents
            number, record = documents_of.locate(np.int64(document))
            uri, _ = documents_of.shards[number].source(int(record))
            group = by_source.names.index(uri.removeprefix("file:///"))
            want[row, column : column + length] = group
            assert (sets[row, column : column + length] == k).all()
            seen.add((int(k), group))
        np.testing.assert_array_equal(np.where(want >= 0, want, 0), sources)
    assert len(seen) == 8


def test_the_whole_is_one_group_and_opens_nothing():
    data = DataConfig(paths=("nowhere",), seq_len=4)
    spec = StreamSpec(data=data, split="eval", global_batch_seqs=2, rows=range(2))
    for by in ("total", "dataset"):
        groups = Groups(spec, by, 20)
        assert groups.names == ("all",)
        assert groups.of_batch(3).tolist() == [[0] * 4] * 2


def test_a_folder_named_twice_is_numbered(gold, documents):
    folder = str(gold(documents(0, 4, 9), documents(1, 4, 9)))
    data = DataConfig(paths=(folder, folder + "/"), seq_len=4)
    spec = StreamSpec(data=data, split="eval", global_batch_seqs=2, rows=range(2))
    first, second = Groups(spec, "dataset", 20).names
    assert second == f"{first}#2"
