# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import collections
import itertools
import math

import numpy as np
import pytest

from podium.input import ngram
from podium.input.ngram import ngram_losses


def oracle(train, held_out, vocab_size):
    """The formulas, pair by pair."""
    pairs = collections.Counter(p for d in train for p in itertools.pairwise(d))
    word, context, types = (collections.Counter() for _ in range(3))
    for (a, b), n in pairs.items():
        word[b] += n
        context[a] += n
        types[a] += 1
    total = sum(word.values()) + vocab_size

    def p_bigram(a, b):
        p = (word[b] + 1) / total
        if not context[a]:
            return p
        return (pairs[a, b] + types[a] * p) / (context[a] + types[a])

    for a in range(vocab_size):
        assert math.isclose(sum(p_bigram(a, b) for b in range(vocab_size)), 1)
    scored = [p for d in held_out for p in itertools.pairwise(d)]
    return {
        "unigram": -np.mean([math.log((word[b] + 1) / total) for _, b in scored]),
        "bigram": -np.mean([math.log(p_bigram(a, b)) for a, b in scored]),
    }


@pytest.mark.parametrize("block_tokens", [1, 37, 1 << 20])
def test_losses_are_those_of_the_formulas(gold, documents, monkeypatch, block_tokens):
    monkeypatch.setattr(ngram, "_BLOCK_TOKENS", block_tokens)
    train, held_out = documents(0, 60, 20, 30), documents(1, 20, 20, 40)
    got = ngram_losses(gold(train, held_out, vocab_size=50))
    assert got == pytest.approx(oracle(train, held_out, 50), rel=1e-9)


def test_text_that_repeats_is_easier_for_the_bigram(gold):
    train = [[1, 2, 3, 4] * 20 + [0]] * 5
    losses = ngram_losses(gold(train, train[:1]))
    assert losses["bigram"] < 0.5 < losses["unigram"]
