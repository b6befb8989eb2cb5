# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out loss by group: under packing, on any mesh, and adding up to the whole."""

import jax
import numpy as np
import pytest

from podium.config import LossConfig, MeshConfig
from podium.errors import DataError
from podium.input.batch import Batch
from podium.models import bind
from podium.trainer.evaluate import evaluate
from podium.trainer.step import batch_sharding, make_eval_step
from tests.trainer import tiny

NAMES = ("web", "books", "nothing", "code")


def groups_of(batch: Batch, seed: int) -> np.ndarray:
    """A group for every document of every row, never the third."""
    of_segment = np.random.default_rng(seed).choice([0, 1, 3], (len(batch.tokens), 3))
    return np.take_along_axis(of_segment, batch.segment_ids, axis=1).astype(np.int32)


def run(mesh: MeshConfig, loss: LossConfig, names=NAMES):
    cfg = tiny.config(mesh, loss=loss)
    parts, state = tiny.start(cfg)
    step = make_eval_step(
        cfg, parts.model, parts.rules, parts.layout.shardings.params, len(names)
    )
    where = batch_sharding(parts.rules)
    batches = []
    for seed in range(3):
        batch = tiny.batch(seed)
        groups = groups_of(batch, seed) if len(names) > 1 else 0 * batch.tokens
        batches.append(jax.device_put((batch, groups), where))
    return evaluate(step, state.params, batches, names), state.params


@pytest.fixture(scope="module")
def one_device(standard_promotion):
    return run(tiny.ONE_DEVICE, LossConfig())


def test_each_group_is_the_mean_over_its_tokens(one_device):
    found, params = one_device

    @jax.jit
    def log_probs(tokens, positions, segment_ids):
        model = bind.bind(bind.abstract(tiny.MODEL).graphdef, params)
        return jax.nn.log_softmax(model.logits(model(tokens, positions, segment_ids)))

    nats, tokens = np.zeros(4), np.zeros(4, int)
    for seed in range(3):
        batch = tiny.batch(seed)
        logs = np.asarray(log_probs(batch.tokens, batch.positions, batch.segment_ids))
        for place in zip(*np.nonzero(batch.targets >= 0), strict=True):
            group = groups_of(batch, seed)[place]
            nats[group] -= logs[(*place, batch.targets[place])]
            tokens[group] += 1
    assert list(found.groups) == ["web", "books", "code"]
    for name, group in found.groups.items():
        i = NAMES.index(name)
        assert group.tokens == tokens[i]
        np.testing.assert_allclose(group.nats, nats[i], rtol=1e-5)
        np.testing.assert_allclose(group.perplexity, np.exp(nats[i] / tokens[i]), 1e-5)


def test_the_groups_add_up_to_the_whole(one_device):
    found, _ = one_device
    assert sum(g.nats for g in found.groups.values()) == found.total.nats
    assert sum(g.tokens for g in found.groups.values()) == found.total.tokens
    undivided, _ = run(tiny.ONE_DEVICE, LossConfig(), ("all",))
    assert undivided.groups == {}
    assert undivided.total.tokens == found.total.tokens
    np.testing.assert_allclose(undivided.total.nats, found.total.nats, rtol=1e-6)
    assert set(undivided.to_metrics()) == {
        "eval_loss",
        "eval_perplexity",
        "eval_tokens",
    }
    assert found.to_metrics()["eval_loss/books"] == found.groups["books"].loss


@pytest.mark.parametrize(
    ("mesh", "loss"),
    [
        (tiny.EIGHT, LossConfig()),
        (MeshConfig(data=2, fsdp=1, context=4), LossConfig(chunk_tokens=16)),
        (MeshConfig(stage=2, fsdp=2, tensor=2), LossConfig(chunk_tokens=24)),
    ],
)
def test_a_mesh_and_chunks_find_the_same(one_device, mesh, loss):
    want, _ = one_device
    found, _ = run(mesh, loss)
    assert list(found.groups) == list(want.groups)
    for name, group in found.groups.items():
        assert group.tokens == want.groups[name].tokens
        np.testing.assert_allclose(group.nats, want.groups[name].nats, rtol=1e-5)


def test_nothing_scored_is_an_error():
    cfg = tiny.config()
    parts, state = tiny.start(cfg)
    where = parts.layout.shardings.params
    step = make_eval_step(cfg, parts.model, parts.rules, where)
    batch = tiny.batch(0)
    batch = batch._replace(targets=batch.targets * 0 - 1)
    batches = [jax.device_put((batch, 0 * batch.tokens), batch_sharding(parts.rules))]
    with pytest.raises(DataError, match="holds no scored token"):
        evaluate(step, state.params, batches, ("all",))
