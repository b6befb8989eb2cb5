# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import pytest

from podium.preparation import bpe
from podium.preparation.shard import document_hash
from podium.preparation.sources import find_units


@pytest.fixture
def task(tmp_path):
    def make(vocab_size, eval_below=0, text_bytes=100):
        for i in range(40):
            (tmp_path / f"{i:02}.txt").write_text(f"{i:02}" * (text_bytes // 2))
        units = find_units(
            [str(tmp_path)],
            text_key="text",
            max_document_bytes=1 << 20,
            data_dir=None,
            leave_out=(),
        )
        return bpe.BpeTask(
            rejects_file=str(tmp_path / "rejects.jsonl"),
            folder="",
            vocab_size=vocab_size,
            units=units,
            text_key="text",
            max_document_bytes=1 << 20,
            eval_below=eval_below,
        )

    return make


def _sample(task, **kwargs):
    return list(bpe.sample(task, lambda n: None, **kwargs))


def test_a_small_corpus_is_the_sample(task):
    assert len(_sample(task(8192))) == 40


def test_held_out_documents_are_not_in_the_sample_unless_there_are_no_others(task):
    some = task(8192, eval_below=2**63)
    texts = _sample(some)
    assert 0 < len(texts) < 40
    assert all(document_hash(text) >= 2**63 for text in texts)
    none_left = task(8192, eval_below=2**64)
    assert _sample(none_left) == []
    assert len(_sample(none_left, held_out=True)) == 40


def test_a_large_corpus_is_sampled_from_all_over_and_not_beyond_the_limit(
    task, monkeypatch
):
    monkeypatch.setattr(bpe, "_MIN_UNIT_CHARS", 50)
    large = task(2)  # 4,000 bytes of text, 2,048 wanted
    texts = _sample(large)
    assert 1900 <= sum(map(len, texts)) <= 2048
    files = [int(text[:2]) for text in texts]
    assert files != sorted(files)
    assert max(files) > 30
    assert _sample(large) == texts
