# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Preferences as the objective."""

import dataclasses
import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import DataConfig, DpoConfig, LossConfig, OptimConfig, ScheduleConfig
from podium.config_lora import LoraConfig
from podium.errors import ConfigError
from podium.input.batch import Batch
from podium.models import adapters, bind
from podium.sharding.constrain import use_rules
from podium.trainer.evaluate import evaluate_pairs
from podium.trainer.loss import token_logprobs
from podium.trainer.preference import num_pairs, preference_sums
from podium.trainer.state import weights
from podium.trainer.step import batch_sharding, make_pair_eval_step, run_blocks
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")

GOLDEN = json.loads(pathlib.Path("tests/golden/dpo.json").read_text())
B, T = 16, 16


def config(mesh=tiny.ONE_DEVICE, dpo=None, **changes):
    return tiny.config(
        mesh,
        dpo=dpo or DpoConfig(),
        init_from="somewhere",
        data=DataConfig(seq_len=T, packing="best_fit"),
        loss=LossConfig(),
        optim=OptimConfig(peak_lr=3e-3, schedule=ScheduleConfig(warmup_steps=2)),
        **changes,
    )


def pairs(seed, rows=B):
    """Rows of one or two pairs: the same three tokens, then an even or an odd answer."""
    rng = np.random.default_rng(seed)
    fields = [np.zeros((rows, T), np.int32) for _ in range(4)]
    tokens, targets, segments, positions = fields
    targets.fill(-1)
    for row in range(rows):
        at = 0
        for pair in range(1 + row % 2):
            prompt = rng.integers(2, 64, 2)
            for side in range(2):
                answer = 2 * rng.integers(1, 32, 2) + side
                ids = np.concatenate([prompt, answer])
                span = slice(at, at + 4)
                tokens[row, span], positions[row, span] = ids, range(4)
                segments[row, span] = 2 * pair + side + 1
                targets[row, at + 1 : at + 3] = answer
                at += 4
    return Batch(*fields)


def put(parts, batch):
    return jax.device_put(batch, batch_sharding(parts.rules))


def run(cfg, steps):
    parts, state = tiny.start(cfg)
    rows = []
    for i in range(steps):
        state, metrics = parts.train_step(state, put(parts, pairs(i)))
        rows.append({k: float(v) for k, v in metrics.items() if v.ndim == 0})
    return rows, state, parts


def oracle(logprobs, reference, batch, cfg):
    """Pair by pair, in NumPy: (mean loss, accuracy, chosen, rejected, number)."""
    rewards, losses = [], []
    for row in range(len(batch.tokens)):
        for first in range(1, batch.segment_ids[row].max() + 1, 2):
            sides = []
            for segment in (first, first + 1):
                at = (batch.segment_ids[row] == segment) & (batch.targets[row] >= 0)
                sides.append(cfg.beta * (logprobs - reference)[row][at].sum())
            margin = sides[0] - sides[1]
            right = np.log1p(np.exp(-margin))
            wrong = np.log1p(np.exp(margin))
            e = cfg.label_smoothing
            losses.append((1 - e) * right + e * wrong)
            rewards.append(sides)
    chosen, rejected = np.array(rewards).T
    accuracy = np.mean(chosen > rejected)
    return np.mean(losses), accuracy, chosen.mean(), rejected.mean(), len(losses)


@pytest.mark.parametrize("cfg", [DpoConfig(), DpoConfig(beta=0.7, label_smoothing=0.2)])
def test_the_sums_are_those_of_pairs_one_by_one(cfg):
    batch, rng = pairs(0), np.random.default_rng(1)
    scored = batch.targets >= 0
    ours, ref = (
        np.where(scored, -rng.exponential(2.0, (B, T)), 0).astype(np.float32)
        for _ in range(2)
    )
    sums = preference_sums(jnp.array(ours), jnp.array(ref), batch, cfg)
    found = sums.metrics()
    loss, accuracy, chosen, rejected, number = oracle(ours, ref, batch, cfg)
    assert number == int(num_pairs(batch)) == found["pairs"] == 24
    np.testing.assert_allclose(sums.mean(), loss, rtol=1e-5)
    np.testing.assert_allclose(found["reward_accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(found["reward_chosen"], chosen, rtol=1e-5)
    np.testing.assert_allclose(found["reward_rejected"], rejected, rtol=1e-5)
    np.testing.assert_allclose(found["reward_margin"], chosen - rejected, rtol=1e-5)


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda r: f"beta{r['beta']}")
def test_loss_and_gradient_are_those_of_pytorch(row):
    logits = np.array(GOLDEN["logits"], np.float32)
    P, _, n, V = logits.shape
    targets = np.where(GOLDEN["scored"], GOLDEN["targets"], -1).astype(np.int32)
    sides = np.broadcast_to(np.array([[[1], [2]]]), targets.shape).astype(np.int32)
    fields = (jnp.array(x.reshape(P, 2 * n)) for x in (targets, targets, sides, sides))
    batch = Batch(*fields)
    cfg = DpoConfig(beta=row["beta"], label_smoothing=row["label_smoothing"])

    def logprobs(x):
        flat = x.reshape(P, 2 * n, V)
        return token_logprobs(lambda h: h, flat, batch.targets, LossConfig())

    reference = logprobs(jnp.array(GOLDEN["reference"], jnp.float32))

    def loss(x):
        sums = preference_sums(logprobs(x), reference, batch, cfg)
        return sums.mean(), sums.metrics()

    (value, found), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.array(logits))
    np.testing.assert_allclose(value, row["loss"], rtol=1e-5)
    np.testing.assert_allclose(gradient, row["gradient"], rtol=1e-4, atol=1e-7)
    for name in ("chosen", "rejected", "accuracy"):
        np.testing.assert_allclose(found[f"reward_{name}"], row[name], rtol=1e-4)


@pytest.mark.parametrize("chunk_tokens", [8, 24, 1024])
def test_log_probabilities_do_not_depend_on_chunks(chunk_tokens):
    key = jax.random.key(0)
    hidden = jax.random.normal(key, (2, 13, 6))
    batch = np.random.default_rng(0).integers(-1, 6, (2, 13)).astype(np.int32)
    found = token_logprobs(
        lambda h: 3 * h, hidden, jnp.array(batch), LossConfig(chunk_tokens=chunk_tokens)
    )
    all_of = jax.nn.log_softmax(3 * hidden, axis=-1)
    wanted = np.take_along_axis(np.array(all_of), np.maximum(batch, 0)[..., None], 2)
    np.testing.assert_allclose(
        found, np.where(batch >= 0, wanted[..., 0], 0), rtol=1e-5
    )


def test_it_begins_at_log_2_and_learns_which_answers_are_chosen():
    rows, state, parts = run(config(), 40)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert rows[0]["pairs"] == 24
    late = rows[-5:]
    assert np.mean([r["reward_accuracy"] for r in late]) > 0.9
    assert np.mean([r["reward_margin"] for r in late]) > 0.2
    step = make_pair_eval_step(parts.cfg, parts.model, parts.rules, None)
    held_out = [put(parts, pairs(seed)) for seed in (900, 901)]
    after = evaluate_pairs(step, (state.params, state.reference), held_out)
    before = evaluate_pairs(step, (state.reference, state.reference), held_out)
    assert before["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_reward_accuracy"] > 0.9
    assert after["eval_pairs"] == 48
    first = tiny.start(config())[1]
    jax.tree.map(np.testing.assert_array_equal, state.reference, first.params)


def assert_same_weights(found, wanted):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5),
        jax.device_get(found.params),
        jax.device_get(wanted.params),
    )


def test_layout_and_micro_batches_change_nothing():
    wanted, state, _ = run(config(), 3)
    for cfg in (config(tiny.EIGHT), config(grad_accum_steps=4)):
        found, other, _ = run(cfg, 3)
        for want, got in zip(wanted, found, strict=True):
            for name in ("loss", "grad_norm", "reward_margin", "reward_chosen"):
                np.testing.assert_allclose(got[name], want[name], rtol=2e-4, atol=1e-6)
        assert_same_weights(other, state)
    layout = tiny.start(config(tiny.EIGHT))[0].layout.shardings
    assert layout.reference == layout.params


def test_the_reference_is_kept_in_the_type_that_it_computes_in():
    half = dataclasses.replace(tiny.MODEL, dtype="bfloat16")
    _, state = tiny.start(config(model=half))
    kinds = {
        path[-1].key: leaf.dtype
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.reference)
    }
    assert kinds.pop("scale") == jnp.float32
    assert set(kinds.values()) == {jnp.dtype(jnp.bfloat16)}
    rows, _, _ = run(config(model=half), 1)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    wide = config(model=half, dpo=DpoConfig(reference_dtype="float32"))
    leaves = jax.tree.leaves(tiny.start(wide)[1].reference)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


LORA = LoraConfig(rank=4, targets=("attention/*", "mlp/*"))


@functools.cache
def adapters_run():
    return run(config(lora=LORA), 4)


def test_with_adapters_the_reference_is_the_model_without_them():
    rows, state, parts = adapters_run()
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert state.reference is None
    assert parts.layout.shapes.reference is None

    def logprobs(params, batch):
        with use_rules(plain.rules):
            run = run_blocks(plain.model, params, batch)
            return token_logprobs(
                run.net.logits, run.hidden_BTD, run.targets_BT, LossConfig()
            )

    # The base, made by a run that knows neither adapters nor preferences.
    plain, base = tiny.start(tiny.config(loss=LossConfig()))
    batch = pairs(9)
    ours = adapters.merge(bind.abstract(tiny.MODEL), weights(parts.cfg, state))
    both = (np.array(jax.jit(logprobs)(w, batch)) for w in (ours, base.params))
    loss, accuracy, chosen, rejected, _ = oracle(*both, batch, parts.cfg.dpo)
    assert abs(chosen - rejected) > 1e-3
    _, found = parts.train_step(jax.tree.map(jnp.copy, state), put(parts, batch))
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["reward_accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(found["reward_chosen"], chosen, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["reward_rejected"], rejected, rtol=1e-3, atol=1e-6)


def test_with_adapters_layout_and_micro_batches_change_nothing():
    wanted, state, _ = adapters_run()
    found, other, _ = run(config(tiny.EIGHT, lora=LORA, grad_accum_steps=2), 4)
    for want, got in zip(wanted, found, strict=True):
        for name in ("loss", "grad_norm", "reward_margin", "reward_chosen"):
            np.testing.assert_allclose(got[name], want[name], rtol=1e-3, atol=1e-6)
    assert_same_weights(other, state)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init_from": None}, "init_from is not: its weights are the reference"),
        ({"data": DataConfig()}, "cuts pairs at row ends"),
        ({"loss": LossConfig(z_loss=1e-4)}, "dpo has no such part"),
        (
            {"lora": LORA, "dpo": DpoConfig(reference_dtype="bfloat16")},
            "with lora the reference is the frozen weights themselves",
        ),
    ],
)
def test_a_config_that_does_not_go_with_it_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(config(), **changes)
