# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out loss of a unigram and a bigram model: what a trained model must beat."""

import os
from collections.abc import Iterator

import numpy as np

from podium.input.tfrecord import Documents

_BLOCK_TOKENS = 1 << 22


def ngram_losses(folder: str | os.PathLike) -> dict[str, float]:
    """{"unigram", "bigram"}: nats per scored token of the eval split of `folder`.

    Both are counted on the train split and scored on exactly what a model is scored on:
    every token but the first of its document. The unigram adds one to every count; the
    bigram backs off to it by interpolation (Witten & Bell 1991):
        p(w | v) = (c(v, w) + types(v) * p(w)) / (c(v) + types(v)).
    """
    train, held_out = Documents(folder, "train"), Documents(folder, "eval")
    vocab_size = train.manifest.tokenizer.vocab_size
    codes, counts = _count_pairs(train, vocab_size)
    context, word = np.divmod(codes, vocab_size)
    p_word = 1.0 + np.bincount(word, counts, vocab_size)
    p_word /= p_word.sum()
    context_count = np.bincount(context, counts, vocab_size)
    num_types = np.bincount(context, minlength=vocab_size).astype(np.float64)

    num_scored, unigram, bigram = 0, 0.0, 0.0
    for pairs in _pairs(held_out, vocab_size):
        before, word = np.divmod(pairs, vocab_size)
        at = np.minimum(np.searchsorted(codes, pairs), len(codes) - 1)
        seen = np.where(codes[at] == pairs, counts[at], 0)
        p_unigram = p_word[word]
        types = num_types[before]
        total = context_count[before] + types
        mixed = (seen + types * p_unigram) / np.maximum(total, 1)
        p_bigram = np.where(total > 0, mixed, p_unigram)
        num_scored += len(pairs)
        unigram -= float(np.log(p_unigram).sum())
        bigram -= float(np.log(p_bigram).sum())
    return {"unigram": unigram / num_scored, "bigram": bigram / num_scored}


def _count_pairs(
    documents: Documents, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(codes, counts) of neighbouring tokens; code = first * V + second, ascending."""
    codes, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for pairs in _pairs(documents, vocab_size):
        new, new_counts = np.unique(pairs, return_counts=True)
        merged = np.concatenate([codes, new])
        codes, place = np.unique(merged, return_inverse=True)
        both = np.concatenate([counts, new_counts])
        counts = np.bincount(place, both, len(codes)).astype(np.int64)
    return codes, counts


def _pairs(documents: Documents, vocab_size: int) -> Iterator[np.ndarray]:
    """Codes of all pairs within documents, a block of documents at a time."""
    first, stops = 0, documents.first_token
    while first < len(documents):
        limit = stops[first] + _BLOCK_TOKENS
        stop = max(first + 1, int(np.searchsorted(stops, limit, side="right")) - 1)
        tokens = documents.read_range(first, stop).astype(np.int64)
        pairs = tokens[:-1] * vocab_size + tokens[1:]
        is_inside = np.ones(len(pairs), bool)
        is_inside[stops[first + 1 : stop] - stops[first] - 1] = False
        yield pairs[is_inside]
        first = stop
