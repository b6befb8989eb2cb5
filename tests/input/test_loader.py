# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.config import DataConfig
from podium.errors import DataError
from podium.input.loader import Loader
from podium.input.spec import StreamSpec

PACKINGS = ["concat", "best_fit"]
CORPUS = {
    "seed": st.integers(0, 1000),
    "count": st.integers(1, 30),
    "max_tokens": st.sampled_from([1, 5, 16, 70]),
    "seq_len": st.sampled_from([2, 7, 16, 64]),
    "packing": st.sampled_from(PACKINGS),
}


def loader_of(*folders, split="train", batch=4, rows=None, seed=0, steps=None, **data):
    config = DataConfig(paths=tuple(map(str, folders)), **data)
    spec = StreamSpec(
        data=config,
        split=split,
        seed=seed,
        global_batch_seqs=batch,
        rows=rows or range(batch),
        num_steps=steps,
    )
    return Loader(spec)


def oracle_row(chunks, seq_len):
    """A row, token by token, from (document tokens, start, length)."""
    row = []
    for segment, (document, start, length) in enumerate(chunks, 1):
        for at in range(start, start + length):
            target = document[at + 1] if at + 1 < len(document) else -1
            row.append((document[at], target, segment, at - start))
    row += [(0, -1, 0, 0)] * (seq_len - len(row))
    return np.array(row).T


@given(**CORPUS, vocab_size=st.sampled_from([1000, 70_000]))
@settings(max_examples=25, deadline=None)
def test_a_batch_is_what_its_chunks_say(
    gold, documents, seed, count, max_tokens, seq_len, packing, vocab_size
):
    train = documents(seed, count, max_tokens, vocab_size)
    folder = gold(train, vocab_size=vocab_size)
    loader = loader_of(folder, seq_len=seq_len, packing=packing, seed=seed)
    for step in (0, 1, 10**6):
        got = loader.read(step)
        _, chunks = loader.chunks(step)
        for row in range(4):
            mine = [
                (train[d], s, n)
                for r, _, d, s, n in zip(*(f.tolist() for f in chunks), strict=True)
                if r == row
            ]
            np.testing.assert_array_equal(got[:, row], oracle_row(mine, seq_len))


@given(**CORPUS)
@settings(max_examples=25, deadline=None)
def test_every_token_but_a_first_one_is_a_target_once_per_epoch(
    gold, documents, seed, count, max_tokens, seq_len, packing
):
    train = documents(seed, count, max_tokens)
    loader = loader_of(gold(train), seq_len=seq_len, packing=packing, batch=1)
    inputs, pairs = collections.Counter(), collections.Counter()
    for step in range(5 * loader.order.num_rows, 6 * loader.order.num_rows):
        tokens, targets, segments, _ = loader.read(step)
        inputs.update(tokens[segments > 0].tolist())
        scored = targets >= 0
        pairs.update(
            zip(tokens[scored].tolist(), targets[scored].tolist(), strict=True)
        )
    assert inputs == collections.Counter(t for d in train for t in d)
    assert pairs == collections.Counter(p for d in train for p in itertools.pairwise(d))


@given(**CORPUS, hosts=st.sampled_from([1, 2, 3, 6]), step=st.integers(0, 10**9))
@settings(max_examples=25, deadline=None)
def test_the_number_of_hosts_does_not_change_a_batch(
    gold, documents, seed, count, max_tokens, seq_len, packing, hosts, step
):
    folder = gold(documents(seed, count, max_tokens))
    data = {"seq_len": seq_len, "packing": packing, "batch": 6, "seed": seed}
    whole = loader_of(folder, **data).read(step)
    share = 6 // hosts
    parts = [
        loader_of(folder, rows=range(h * share, (h + 1) * share), **data).read(step)
        for h in range(hosts)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


@pytest.mark.parametrize("packing", PACKINGS)
def test_mixed_data_sets_keep_their_shares_and_their_epochs(gold, documents, packing):
    a = [[1, *d[1:-1], 2, 0] for d in documents(1, 40, 30)]
    b = [[3, *d[1:-1], 4, 0] for d in documents(2, 90, 30)]
    loader = loader_of(
        gold(a), gold(b), seq_len=16, packing=packing, batch=5, weights=(3.0, 1.0)
    )
    steps = 300
    seen = [loader.rows(step) for step in range(steps)]
    dataset = np.concatenate([d for d, _ in seen])
    row = np.concatenate([r for _, r in seen])
    assert np.bincount(dataset).tolist() == [steps * 5 * 3 // 4, steps * 5 // 4]
    for k in range(2):
        n = loader.datasets[k].packing.num_rows
        mine = row[dataset == k]
        for epoch in range(len(mine) // n):
            assert sorted(mine[epoch * n : (epoch + 1) * n]) == list(range(n))
    first, second = mine[:n], mine[n : 2 * n]
    assert (first != second).any()


def test_mixing_by_size_sees_every_row_of_every_data_set_once(gold, documents):
    folders = [gold(documents(k, 10 + 20 * k, 40)) for k in range(3)]
    loader = loader_of(*folders, seq_len=16, batch=1)
    seen = {
        (int(d[0]), int(r[0]))
        for d, r in map(loader.rows, range(loader.order.num_rows))
    }
    assert len(seen) == loader.order.num_rows


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_evaluation_is_one_pass_in_order_with_the_last_batch_padded(
    gold, documents, packing, hosts
):
    held_out = documents(5, 13, 20)
    folders = [gold([[0]], held_out), gold([[0]], held_out[:3])]
    share = 4 // hosts
    loaders = [
        loader_of(
            *folders,
            split="eval",
            seq_len=8,
            packing=packing,
            rows=range(h * share, (h + 1) * share),
        )
        for h in range(hosts)
    ]
    num_rows = loaders[0].order.num_rows
    assert loaders[0].stop_step == -(-num_rows // 4)
    batches = [
        np.concatenate([loader.read(step) for loader in loaders], axis=1)
        for step in range(loaders[0].stop_step)
    ]
    rows = np.concatenate(batches, axis=1)
    assert (rows[2, :num_rows, 0] == 1).all()
    assert (rows[2, num_rows:] == 0).all()
    assert (rows[1, num_rows:] == -1).all()
    assert (rows[1] >= 0).sum() == sum(len(d) - 1 for d in held_out + held_out[:3])
    if packing == "concat":
        flat = rows[0, :num_rows][rows[2, :num_rows] > 0].tolist()
        assert flat == [t for d in held_out + held_out[:3] for t in d]


def test_the_train_split_can_be_read_in_one_pass_too(gold, documents):
    train = documents(3, 20, 30)
    data = DataConfig(paths=(str(gold(train)),), seq_len=16)
    spec = StreamSpec(
        data=data, split="train", global_batch_seqs=4, rows=range(4), is_one_pass=True
    )
    loader = Loader(spec)
    rows = np.concatenate(list(map(loader.read, range(loader.stop_step))), axis=1)
    tokens, _, segments, _ = rows
    assert tokens[segments > 0].tolist() == [t for d in train for t in d]


def test_evaluation_can_stop_early(gold, documents):
    folder = gold([[0]], documents(5, 30, 20))
    assert loader_of(folder, split="eval", seq_len=8, steps=2).stop_step == 2
    assert loader_of(folder, split="eval", seq_len=8, steps=10**6).stop_step < 100


def test_without_shuffle_rows_come_in_file_order(gold, documents):
    train = documents(3, 20, 30)
    loader = loader_of(gold(train), seq_len=16, batch=1, shuffle=False)
    tokens = np.concatenate(
        [loader.read(i)[0, 0] for i in range(loader.order.num_rows)]
    )
    flat = [t for d in train for t in d]
    assert tokens[: len(flat)].tolist() == flat


def test_another_seed_gives_another_order(gold, documents):
    folder = gold(documents(3, 50, 50))
    a, b = (loader_of(folder, seq_len=16, seed=s).read(0) for s in (0, 1))
    assert (a != b).any()


def test_a_seek_far_ahead_computes_as_much_as_the_first_step(
    gold, documents, monkeypatch
):
    from podium.input import order

    work = []
    permute = order.permute
    monkeypatch.setattr(
        order, "permute", lambda i, n, key: (work.append(len(i)), permute(i, n, key))[1]
    )
    loader = loader_of(gold(documents(3, 5000, 30)), seq_len=2)
    loader.read(0)
    first = sum(work)
    loader.read(10**12)
    assert sum(work) - first <= first


def test_data_sets_with_two_tokenizers_are_refused(gold):
    folders = gold([[1, 0]]), gold([[1, 0]], tokenizer="other")
    with pytest.raises(DataError, match="need one tokenizer"):
        loader_of(*folders, seq_len=8)


def test_a_split_without_documents_is_refused(gold):
    with pytest.raises(DataError, match="eval split holds no documents"):
        loader_of(gold([[1, 0]]), split="eval", seq_len=8)


def test_no_data_folder_at_all_is_refused():
    with pytest.raises(DataError, match=r"data\.paths is empty"):
        loader_of(seq_len=8)


def test_the_padding_share_counts_positions_without_a_token(gold):
    train = [[1, 2, 3, 4, 0], [1, 2, 0], [1, 0]]
    info = loader_of(gold(train), seq_len=8, packing="best_fit").info()
    assert (info.num_rows, info.num_tokens) == (2, 10)
    assert info.padding_share == 6 / 16
