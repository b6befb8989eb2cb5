# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from podium.config import OptimConfig, ScheduleConfig
from podium.trainer.schedule import learning_rate

KINDS = ["cosine", "wsd", "linear", "inverse_sqrt", "constant"]


def rates(kind, num_steps=100, **changes):
    schedule = ScheduleConfig(**{"kind": kind, "warmup_steps": 10, **changes})
    fn = learning_rate(OptimConfig(peak_lr=2.0, schedule=schedule), num_steps)
    return np.array([float(fn(np.int32(i))) for i in range(num_steps + 20)])


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_is_linear_from_the_first_step_and_meets_the_peak(kind):
    r = rates(kind)
    np.testing.assert_allclose(r[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(r[10], 2.0, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_warmup_it_never_rises(kind):
    assert (np.diff(rates(kind)[10:]) <= 1e-6).all()


@pytest.mark.parametrize("kind", ["cosine", "wsd", "linear"])
def test_it_ends_at_the_end_ratio_and_stays(kind):
    r = rates(kind, end_lr_ratio=0.25)
    np.testing.assert_allclose(r[100:], 0.5, rtol=1e-6)


def test_wsd_is_stable_until_the_decay_begins():
    r = rates("wsd", decay_steps=30)
    np.testing.assert_allclose(r[10:71], 2.0, rtol=1e-6)
    assert r[71] < 2.0


def test_cosine_is_half_way_in_the_middle():
    r = rates("cosine", warmup_steps=0, end_lr_ratio=0.0)
    np.testing.assert_allclose(r[50], 1.0, rtol=1e-6)


def test_inverse_sqrt_halves_at_four_times_the_warmup():
    np.testing.assert_allclose(rates("inverse_sqrt")[40], 1.0, rtol=1e-6)
