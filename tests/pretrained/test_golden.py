# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Imported models against what transformers computes from the same folders.

The golden file is written by tests/golden/make_pretrained.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.checkpoint import restore_params
from podium.generate import generate
from podium.models.bind import abstract, bind
from podium.sampling import Sampling
from tests.golden import hf_weights
from tests.pretrained.folders import GOLDEN, imported


def test_the_golden_file_has_every_family():
    assert set(GOLDEN) == set(hf_weights.NAMES)


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_and_greedy_tokens_are_those_of_transformers(name, tmp_path):
    run = imported(name, tmp_path)
    cfg, params = restore_params(run)
    model, want = cfg.model, GOLDEN[name]

    @jax.jit
    def forward(params, tokens):
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        bound = bind(abstract(model).graphdef, params)
        return bound.logits(bound(tokens, positions, None))

    got = forward(params, hf_weights.TOKENS.astype(np.int32))[0]
    logits = np.array(want["logits"])
    assert logits.std() > 0.3  # the model says something
    np.testing.assert_allclose(got[-len(logits) :], logits, rtol=0, atol=1e-4)
    (greedy,) = generate(
        model,
        params,
        hf_weights.TOKENS.tolist(),
        num_tokens=len(want["greedy"]),
        sampling=Sampling(temperature=0, top_k=None, top_p=1.0),
    )
    assert greedy == want["greedy"]
