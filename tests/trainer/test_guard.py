# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import FaultsConfig, OptimConfig, ScheduleConfig
from podium.trainer.guard import HISTORY, judge, nothing_yet
from podium.trainer.step import batch_sharding
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")


def judged(losses, norms=None, **settings):
    """(skipped, z) of every step of a history."""
    cfg, recent, found = FaultsConfig(**settings), nothing_yet(), []
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        verdict = judge(cfg, recent, jnp.float32(loss), jnp.float32(norm))
        recent = verdict.recent
        found.append((bool(verdict.is_skipped), float(verdict.spike_z)))
    return found


def noisy(num, seed=0):
    return list(np.random.default_rng(seed).normal(3.0, 0.05, num))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_skipped_from_the_first_step_on(bad):
    assert judged([bad, 1.0, bad]) == [(True, 0.0), (False, 0.0), (True, 0.0)]
    assert judged([1.0, 1.0], [bad, 1.0])[0][0]


def test_a_spike_is_judged_by_the_last_steps_and_the_policy():
    losses = [*noisy(60), 5.0, *noisy(10, 1)]
    for policy in ("keep", "skip", "rewind", "stop"):
        found = judged(losses, on_spike=policy)
        assert found[60][1] == pytest.approx(40, rel=0.4)  # 2 over 0.05
        assert [i for i, (skipped, _) in enumerate(found) if skipped] == (
            [] if policy == "keep" else [60]
        )
    assert all(z < 6 for i, (_, z) in enumerate(found) if i != 60)


def test_a_spike_of_the_gradient_alone_is_found_and_a_fall_is_none():
    norms = list(np.random.default_rng(2).lognormal(0.0, 0.1, 60))
    assert judged(noisy(61), [*norms, 30.0], on_spike="skip")[60][0]
    assert not judged(noisy(61), [*norms, 0.001], on_spike="skip")[60][0]


def test_few_or_equal_steps_make_no_spike_and_a_new_level_becomes_usual():
    assert judged([3.0] * 20 + [30.0], on_spike="skip")[20] == (False, 0.0)
    assert not judged([3.0] * 60 + [3.01], on_spike="skip")[60][0]
    higher = judged(
        [*noisy(HISTORY), *(x + 2 for x in noisy(HISTORY))], on_spike="skip"
    )
    assert higher[HISTORY][0]
    assert not higher[-1][0]


def poisoned(cfg, poison_at, steps=4, poison=jnp.nan):
    """Trains with one step's weights of the head made a poison for that step alone."""
    parts, state = tiny.start(cfg)
    rows, states = [], [jax.tree.map(np.asarray, state)]
    for i in range(steps):
        on_devices = jax.device_put(tiny.batch(i), batch_sharding(parts.rules))
        given = state
        if i == poison_at:
            params = dict(state.params)
            params["embed"] = {
                "table": state.params["embed"]["table"].at[0].set(poison)
            }
            given = dataclasses.replace(state, params=params)
        state, metrics = parts.train_step(given, on_devices)
        rows.append(metrics)
        states.append(jax.tree.map(np.asarray, state))
    return rows, states


@pytest.mark.parametrize("kind", ["adamw", "lion", "muon", "adafactor", "host"])
def test_a_step_that_is_no_number_changes_nothing_but_the_count(kind):
    optim = OptimConfig(peak_lr=1e-2, schedule=ScheduleConfig(warmup_steps=2))
    if kind == "host":
        optim = dataclasses.replace(optim, state_memory="host")
    elif kind != "adamw":
        from podium import config

        kinds = {
            "lion": config.LionConfig(),
            "muon": config.MuonConfig(),
            "adafactor": config.AdafactorConfig(),
        }
        optim = dataclasses.replace(optim, optimizer=kinds[kind])
    rows, states = poisoned(tiny.config(optim=optim), 1, steps=2)
    assert [float(r["skipped"]) for r in rows] == [0.0, 1.0]
    before, after = states[1], states[2]
    assert int(after.step) == 2
    changed = [
        jax.tree_util.keystr(path)
        for (path, x), y in zip(
            jax.tree_util.tree_leaves_with_path(
                (before.params, before.opt_state, before.recent)
            ),
            jax.tree.leaves((after.params, after.opt_state, after.recent)),
            strict=True,
        )
        if not np.array_equal(x, y, equal_nan=True)
    ]
    # The poison itself was in the weights that the step was given.
    assert changed == ["[0]['embed']['table']"]


def test_the_norms_of_the_layers_make_up_that_of_the_gradient():
    rows, _ = poisoned(tiny.config(tiny.EIGHT), None, steps=1)
    layers = {k: v for k, v in rows[0].items() if k.startswith("layer_grad_norm/")}
    assert layers["layer_grad_norm/stack/block_0/mlp/up"].shape == (2,)
    assert layers["layer_grad_norm/embed/table"].shape == (1,)
    total = np.sqrt(sum(float(np.sum(np.square(v))) for v in layers.values()))
    assert float(rows[0]["grad_norm"]) == pytest.approx(total, rel=1e-6)
