# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.input.mixing import Mixing

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9)


@given(weights=WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_every_prefix_holds_each_data_set_in_its_share(weights):
    num_slots = 3000
    mixing = Mixing(weights)
    dataset, _ = mixing.locate(np.arange(num_slots))
    share = np.array(weights) / sum(weights)
    counts = np.cumsum(dataset[:, None] == np.arange(len(weights)), axis=0)
    wanted = np.arange(1, num_slots + 1)[:, None] * share
    assert np.abs(counts - wanted).max() <= mixing.max_error + 1e-4


@given(weights=WEIGHTS)
@settings(max_examples=40, deadline=None)
def test_each_data_set_is_walked_in_order_without_gaps(weights):
    dataset, index = Mixing(weights).locate(np.arange(2000))
    for k in range(len(weights)):
        np.testing.assert_array_equal(
            index[dataset == k], np.arange((dataset == k).sum())
        )


@given(weights=WEIGHTS, start=st.integers(0, 2**52))
@settings(max_examples=40, deadline=None)
def test_far_slots_keep_shares_and_order(weights, start):
    mixing = Mixing(weights)
    dataset, index = mixing.locate(start + np.arange(500))
    for k in range(len(weights)):
        np.testing.assert_array_equal(np.diff(index[dataset == k]), 1)
    share = np.array(weights) / sum(weights)
    k, j = dataset[0], index[0]
    assert abs(j - start * share[k]) <= mixing.max_error + start * 1e-6 + 1


def test_integer_weights_are_met_exactly_after_their_sum():
    dataset, _ = Mixing([5, 3, 8, 1]).locate(np.arange(17 * 4))
    assert np.bincount(dataset).tolist() == [20, 12, 32, 4]


def test_one_data_set_is_the_identity():
    dataset, index = Mixing([0.3]).locate(np.arange(5))
    assert dataset.tolist() == [0] * 5
    assert index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num", [2, 3, 5, 64])
def test_equal_weights_take_turns(num):
    dataset, _ = Mixing([1.0] * num).locate(np.arange(num * 3))
    assert np.bincount(dataset).tolist() == [3] * num
