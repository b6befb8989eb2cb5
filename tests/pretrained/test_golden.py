# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Imported models against what transformers computes from the same folders.

The golden file is written by tests/golden/make_pretrained.py.
"""

import numpy as np
import pytest

from tests.golden import hf_weights
from tests.pretrained.folders import GOLDEN, answers, imported


def test_the_golden_file_has_every_family():
    assert set(GOLDEN) == set(hf_weights.NAMES)


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_and_greedy_tokens_are_those_of_transformers(name, tmp_path):
    want = GOLDEN[name]
    got, greedy = answers(imported(name, tmp_path), len(want["greedy"]))
    logits = np.array(want["logits"])
    assert logits.std() > 0.3  # the model says something
    np.testing.assert_allclose(got[-len(logits) :], logits, rtol=0, atol=1e-4)
    assert greedy == want["greedy"]
