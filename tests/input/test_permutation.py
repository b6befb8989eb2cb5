# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.input.permutation import mix, permute

KEYS = st.integers(0, 2**64 - 1)


@given(n=st.integers(1, 5000), key=KEYS)
@settings(max_examples=60, deadline=None)
def test_every_entry_is_hit_exactly_once(n, key):
    assert sorted(permute(np.arange(n), n, mix(key)).tolist()) == list(range(n))


@given(n=st.integers(1, 2**62), key=KEYS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_entries_of_a_huge_epoch_stay_in_range_and_apart(n, key, data):
    index = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=50))
    out = permute(np.array(sorted(index)), n, mix(key))
    assert len(set(out.tolist())) == len(index)
    assert out.min() >= 0
    assert out.max() < n


@given(n=st.integers(2, 10**6), key=KEYS, cut=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_an_entry_does_not_depend_on_what_is_asked_beside_it(n, key, cut):
    index = np.arange(min(n, 64))
    whole = permute(index, n, mix(key))
    parts = [permute(p, n, mix(key)) for p in np.array_split(index, cut)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_a_new_key_gives_a_new_order():
    n = 10_000
    a, b = permute(np.arange(n), n, mix(1, 0)), permute(np.arange(n), n, mix(1, 1))
    assert np.mean(a == b) < 0.002  # two random permutations agree in about 1 place


@pytest.mark.parametrize("n", [3, 4, 5])
def test_small_permutations_are_all_about_equally_likely(n):
    trials = 12_000
    counts = dict.fromkeys(itertools.permutations(range(n)), 0)
    keys = np.repeat(mix(np.arange(trials)), n)
    orders = permute(np.tile(np.arange(n), trials), n, keys).reshape(trials, n)
    for order in orders.tolist():
        counts[tuple(order)] += 1
    expected = trials / len(counts)
    chi2 = sum((c - expected) ** 2 / expected for c in counts.values())
    dof = len(counts) - 1
    assert chi2 < dof + 6 * (2 * dof) ** 0.5


@pytest.mark.parametrize("n", [100, 1000, 4096, 5000, 100_003])
def test_the_order_looks_uniform(n):
    out = permute(np.arange(n), n, mix(7, n)).astype(np.float64)
    # Places of entries, of neighbours' distances: means within 5 standard errors.
    assert abs(np.corrcoef(np.arange(n), out)[0, 1]) < 5 / n**0.5
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 5 / n**0.5
    ascents = np.mean(np.diff(out) > 0)
    assert abs(ascents - 0.5) < 5 * (1 / 12 / n) ** 0.5
    first_half = out[: n // 2]
    cells = np.histogram(first_half, bins=16, range=(0, n))[0]
    expected = len(first_half) / 16
    assert np.abs(cells - expected).max() < 5 * expected**0.5


def test_the_first_entry_lands_everywhere_over_keys():
    n, trials = 10, 50_000
    first = permute(np.zeros(trials, int), n, mix(np.arange(trials)))
    counts = np.bincount(first, minlength=n)
    assert np.abs(counts - trials / n).max() < 5 * (trials / n) ** 0.5


def test_many_keys_at_once_are_the_same_as_one_by_one():
    index, key = np.arange(50), mix(3, np.arange(50))
    one_by_one = [permute(index[i : i + 1], 999, key[i : i + 1])[0] for i in range(50)]
    assert permute(index, 999, key).tolist() == one_by_one


def test_the_order_is_the_same_on_every_machine_and_version():
    got = permute(np.arange(8), 10**12, mix(0, 1, 2)).tolist()
    assert got == GOLDEN


GOLDEN = [
    409395443013,
    354713604052,
    688384095193,
    621667089622,
    515224757510,
    770947812002,
    436986492090,
    898010268068,
]


@pytest.mark.parametrize("n", [0, -1, 2**62 + 1])
def test_a_domain_out_of_range_is_refused(n):
    with pytest.raises(ValueError, match="expected 1 to"):
        permute(np.arange(1), n, mix(0))
