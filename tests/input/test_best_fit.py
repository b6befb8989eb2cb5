# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import logging
import multiprocessing
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.input import best_fit
from podium.input.best_fit import load_or_make_plan, make_plan
from podium.input.tfrecord import Documents


def best_fit_decreasing_oracle(lengths, seq_len):
    """Numbers of bins by the textbook: each item into the fullest bin with room."""
    room = []
    for length in sorted((n for n in lengths if n), reverse=True):
        fits = [i for i, r in enumerate(room) if r >= length]
        if fits:
            room[min(fits, key=lambda i: room[i])] -= length
        else:
            room.append(seq_len - length)
    return sorted(room)


def rows_of(plan, tokens, seq_len):
    for begin, end in zip(plan.row_begin[:-1], plan.row_begin[1:], strict=True):
        document = plan.document[begin:end].astype(int)
        start = plan.start[begin:end].astype(int)
        yield document, start, np.minimum(tokens[document] - start, seq_len)


@given(
    tokens=st.lists(st.integers(1, 60), min_size=1, max_size=80),
    seq_len=st.sampled_from([2, 5, 16, 33]),
)
@settings(max_examples=150, deadline=None)
def test_the_plan_is_best_fit_decreasing(tokens, seq_len):
    tokens = np.array(tokens)
    plan = make_plan(tokens, seq_len)
    seen, room = [], []
    for document, start, length in rows_of(plan, tokens, seq_len):
        assert 0 < length.sum() <= seq_len
        seen += zip(document.tolist(), start.tolist(), strict=True)
        if (length < seq_len).all():
            room.append(seq_len - length.sum())
    cuts = [(d, s) for d, n in enumerate(tokens.tolist()) for s in range(0, n, seq_len)]
    assert sorted(seen) == cuts
    assert sorted(room) == best_fit_decreasing_oracle(
        (tokens % seq_len).tolist(), seq_len
    )


def test_rows_and_documents_in_rows_are_in_file_order():
    tokens = np.random.default_rng(0).integers(1, 40, 200)
    firsts = []
    for document, start, _ in rows_of(make_plan(tokens, 16), tokens, 16):
        assert (np.diff(document) > 0).all()
        firsts.append((document[0], start[0]))
    assert firsts == sorted(firsts)


def test_packing_a_natural_mix_of_lengths_wastes_little():
    tokens = np.random.default_rng(0).lognormal(6, 1.2, 20_000).astype(int) + 1
    plan = make_plan(tokens, 2048)
    assert tokens.sum() / ((len(plan.row_begin) - 1) * 2048) > 0.999


def test_a_plan_is_made_once_and_then_loaded(gold, documents, monkeypatch):
    opened = Documents(gold(documents(0, 50, 30)), "train")
    made = load_or_make_plan(opened, 16)
    monkeypatch.setattr(best_fit, "make_plan", None)
    loaded = load_or_make_plan(opened, 16)
    for a, b in zip(made, loaded, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_plan_cut_short_is_made_again(gold, documents):
    opened = Documents(gold(documents(0, 50, 30)), "train")
    made = load_or_make_plan(opened, 16)
    (folder,) = (pathlib.Path(opened.folder.path) / "packing").iterdir()
    path = folder / "document.npy"
    path.write_bytes(path.read_bytes()[:-8])
    again = load_or_make_plan(opened, 16)
    np.testing.assert_array_equal(made.document, again.document)
    assert path.stat().st_size > 128
    assert [
        p.name for p in (pathlib.Path(opened.folder.path) / "packing").iterdir()
    ] == [folder.name]


def test_a_kept_plan_with_any_byte_changed_is_made_again(gold, documents):
    opened = Documents(gold(documents(0, 50, 30)), "train")
    made = [array.copy() for array in load_or_make_plan(opened, 16)]
    [folder] = (pathlib.Path(opened.folder.path) / "packing").iterdir()
    for path in sorted(folder.iterdir()):
        for byte in (6, path.stat().st_size // 2, path.stat().st_size - 1):
            raw = bytearray(path.read_bytes())
            raw[byte] ^= 1
            path.write_bytes(raw)
            for want, got in zip(made, load_or_make_plan(opened, 16), strict=True):
                np.testing.assert_array_equal(want, got)
            raw[byte] ^= 1
            assert path.read_bytes() == raw


def test_changed_data_or_another_length_gets_a_plan_of_its_own(gold, documents):
    opened = Documents(gold(documents(0, 50, 30)), "train")
    assert len(load_or_make_plan(opened, 16).row_begin) > len(
        load_or_make_plan(opened, 64).row_begin
    )
    assert len(list((pathlib.Path(opened.folder.path) / "packing").iterdir())) == 2


def test_a_folder_that_cannot_be_written_falls_back_to_the_cache_and_says_so(
    gold, documents, monkeypatch, tmp_path, caplog
):
    folder = gold(documents(0, 50, 30))
    (folder / "packing").write_text("in the way")  # root may write anywhere: no chmod
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        load_or_make_plan(Documents(folder, "train"), 16)
    assert "cannot keep the packing plan here" in caplog.text
    assert len(list((tmp_path / "podium" / "packing").iterdir())) == 1


def _make(folder, barrier):
    barrier.wait()
    load_or_make_plan(Documents(folder, "train"), 16)


def test_processes_may_race_for_the_same_plan(gold, documents):
    folder = gold(documents(0, 500, 30))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    racers = [context.Process(target=_make, args=(folder, barrier)) for _ in range(3)]
    for p in racers:
        p.start()
    for p in racers:
        p.join()
    assert [p.exitcode for p in racers] == [0, 0, 0]
    assert len(list((folder / "packing").iterdir())) == 1


@pytest.mark.parametrize("seq_len", [2, 16, 1000])
def test_one_document_is_enough(seq_len):
    plan = make_plan(np.array([16]), seq_len)
    assert plan.row_begin[-1] == -(-16 // seq_len)
