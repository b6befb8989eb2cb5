# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Loss masks and pairs, from records to batches."""

import dataclasses
import shutil

import numpy as np
import pytest

from podium.config import DataConfig
from podium.errors import DataError
from podium.input.check import check_datasets
from podium.input.loader import Loader
from podium.input.manifest import load_manifest, save_manifest
from podium.input.records import encode_record, mask_span, masked_crc32c
from podium.input.spec import StreamSpec

T = 32


def loader(paths, packing="best_fit", rows=8, **changes):
    data = DataConfig(
        paths=tuple(map(str, paths)), seq_len=T, packing=packing, **changes
    )
    rows_here = range(rows)
    spec = StreamSpec(
        data=data,
        split="train",
        global_batch_seqs=rows,
        rows=rows_here,
        is_one_pass=True,
    )
    return Loader(spec)


def masked(documents, seed=0):
    """Masks of documents, each with something scored."""
    rng = np.random.default_rng(seed)
    masks = [rng.integers(0, 2, len(d)).tolist() for d in documents]
    for mask in masks:
        mask[-1] = 1
    return masks


def pairs_of(seed, count):
    """(records, masks, sequences): each record is two sequences on end."""
    rng = np.random.default_rng(seed)
    records, masks, sequences = [], [], []
    for _ in range(count):
        record, mask = [], []
        for side in range(2):
            n = int(rng.integers(2, T // 2))
            ids = rng.integers(1, 1000, n).tolist()
            of_side = [*rng.integers(0, 2, n - 1).tolist(), 1]
            of_side[0] = 2 * side
            sequences.append((ids, of_side))
            record, mask = record + ids, mask + of_side
        records.append(record)
        masks.append(mask)
    return records, masks, sequences


def stretches(batch):
    """Of every segment: (tokens, targets, positions)."""
    for row in range(len(batch.tokens)):
        for number in range(1, batch.segment_ids[row].max() + 1):
            mine = batch.segment_ids[row] == number
            if mine.any():
                fields = batch.tokens, batch.targets, batch.positions
                yield tuple(f[row][mine].tolist() for f in fields)


@pytest.mark.parametrize("packing", ["best_fit", "concat"])
def test_what_is_masked_is_context_and_all_else_is_as_without(gold, documents, packing):
    texts = [d if len(d) > 1 else [*d, 0] for d in documents(1, 60, 3 * T)]
    texts.append(documents(2, 1, 40_000)[0] * 2)  # of several blocks
    masks = masked(texts)
    plain, ours = (
        loader([gold(texts)], packing),
        loader([gold(texts, masks=masks)], packing),
    )
    scored = {(t, i) for t, m in enumerate(masks) for i, on in enumerate(m) if on and i}
    seen = set()
    for _ in range(2):  # the second time, records are known
        for step in range(ours.stop_step):
            want, got = plain.batch(step), ours.batch(step)
            for field in ("tokens", "segment_ids", "positions"):
                np.testing.assert_array_equal(getattr(got, field), getattr(want, field))
            _, chunks = ours.chunks(step)
            target = np.full_like(want.targets, -1)
            for row, column, document, start, length in zip(*chunks, strict=True):
                for i in range(length):
                    if (document, start + i + 1) in scored:
                        target[row, column + i] = want.targets[row, column + i]
                        seen.add((document, start + i + 1))
            np.testing.assert_array_equal(got.targets, target)
    assert seen == scored


def test_chats_and_texts_mix(gold, documents):
    texts = [d if len(d) > 1 else [*d, 0] for d in documents(3, 30, T)]
    masks = [[0] * (len(d) - 1) + [1] for d in texts]
    both = loader([gold(texts), gold(texts, masks=masks)])
    found = [s for step in range(both.stop_step) for s in stretches(both.batch(step))]
    plain = [s for s in found if s[1][:-1] == s[0][1:]]
    only_last = [s for s in found if s[1][:-2] == [-1] * (len(s[1]) - 2)]
    assert len(found) == 60
    assert sorted(s[0] for s in plain if len(s[0]) > 2) == sorted(
        d for d in texts if len(d) > 2
    )
    assert sorted(s[0] for s in only_last if len(s[0]) > 2) == sorted(
        d for d in texts if len(d) > 2
    )


def test_a_pair_is_two_segments_of_one_row(gold):
    records, masks, sequences = pairs_of(0, 40)
    ours = loader([gold(records, masks=masks, records="preferences")])
    found = []
    for step in range(ours.stop_step):
        batch = ours.batch(step)
        for row in batch.segment_ids:
            assert set(row[row > 0]) == set(range(1, row.max() + 1))
            assert row.max() % 2 == 0
        found += stretches(batch)
    wanted = [
        (
            ids,
            [i if m == 1 else -1 for i, m in zip(ids[1:], mask[1:], strict=True)]
            + [-1],
            list(range(len(ids))),
        )
        for ids, mask in sequences
    ]
    assert sorted(found) == sorted(wanted)
    pairs = {tuple(map(str, wanted[i : i + 2])) for i in range(0, len(wanted), 2)}
    batches = [list(stretches(ours.batch(step))) for step in range(ours.stop_step)]
    assert pairs == {
        tuple(map(str, each[i : i + 2]))
        for each in batches
        for i in range(0, len(each), 2)
    }


def test_pairs_beside_a_damaged_one_keep_their_numbers(gold, tmp_path):
    records, masks, _ = pairs_of(1, 30)
    folder = tmp_path / "gold"
    source = gold(records, masks=masks, records="preferences", num_shards=1)
    shutil.copytree(source, folder)
    whole = loader([source])
    shard = folder / load_manifest(folder).splits["train"][0].file
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    ours = loader([folder], on_damage="skip")
    lost = 0
    for step in range(whole.stop_step):
        want, got = whole.batch(step), ours.batch(step)
        gone = (want.segment_ids > 0) & (got.segment_ids == 0)
        lost += gone.any()
        for field in range(4):
            np.testing.assert_array_equal(got[field][~gone], want[field][~gone])
        assert (got.targets[gone] == -1).all()
    assert lost == 1


def test_a_mask_that_does_not_fit_its_tokens_is_damage(gold, tmp_path):
    folder = tmp_path / "gold"
    shutil.copytree(gold([[1, 2, 3]] * 3, masks=[[0, 1, 1]] * 3, num_shards=1), folder)
    manifest = load_manifest(folder)
    (shard,) = manifest.splits["train"]
    tokens = np.array([1, 2, 3], "<u2").tobytes()
    good, _ = encode_record(tokens, b"\0\1\1")
    # The same length, under another name: a mask is missing.
    bad = good[:-4].replace(b"loss_mask", b"loss_musk")
    bad += masked_crc32c(bad[12:]).to_bytes(4, "little")
    (folder / shard.file).write_bytes(good + bad + good)
    with pytest.raises(DataError, match=r"record 1 .*'loss_mask' has no bytes for 3"):
        loader([folder]).batch(0)


def test_the_mask_stands_before_the_tokens():
    frame, payload = encode_record(b"\1\0\2\0\3\0", b"\0\1\0")
    start, stop = mask_span(frame[12:-4], 3, "x")
    assert frame[12 + start : 12 + stop] == b"\0\1\0"
    assert 12 + stop < payload


@pytest.mark.parametrize(
    ("mask", "records", "said"),
    [
        ([1, 0, 0, 0], "conversations", "nothing of it is scored"),
        ([0, 1, 2, 1], "conversations", "1 sequences begin .* conversations have 0"),
        ([0, 1, 0, 1], "preferences", "0 sequences begin .* preferences have 1"),
        ([0, 1, 2, 0], "preferences", "nothing of it is scored"),
        ([2, 1, 0, 1], "preferences", "1 sequences begin"),
        ([0, 1, 3, 1], "conversations", "values up to 3"),
    ],
)
def test_a_record_that_breaks_the_format_is_refused(gold, mask, records, said):
    folder = gold([[1, 2, 3, 4]], masks=[mask], records=records)
    with pytest.raises(DataError, match=said):
        check_datasets(DataConfig(paths=(str(folder),)), [load_manifest(folder)])


def test_pairs_longer_than_a_row_are_refused_before_a_run(gold):
    records, masks, _ = pairs_of(2, 9)
    folder = gold(records, masks=masks, records="preferences")
    data = DataConfig(paths=(str(folder),), seq_len=8, packing="best_fit")
    with pytest.raises(DataError, match=r"pairs are longer than data.seq_len"):
        check_datasets(data, [load_manifest(folder)])


def test_mixed_chats_need_one_template(gold, documents):
    texts = [[1, 2], [3, 4]]
    first, second = gold(texts, masks=[[0, 1]] * 2), gold(texts, masks=[[0, 1]] * 2)
    manifest = load_manifest(second)
    assert manifest.chat
    chat = dataclasses.replace(manifest.chat, template_sha256="y")
    save_manifest(second, dataclasses.replace(manifest, chat=chat))
    with pytest.raises(DataError, match="another chat template"):
        loader([first, second])
