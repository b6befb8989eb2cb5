# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from podium.errors import ConfigError
from profiling.scaling_law import Law, Point, fit

KNOWN = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # arXiv:2203.15556, eq. 10
SIZES = [3e6, 1e7, 3e7, 1e8, 3e8]
LENGTHS = [1e8, 1e9, 1e10, 1e11]


def runs(noise: float, law: Law = KNOWN) -> list[Point]:
    rng = np.random.default_rng(3)
    return [
        Point(n, d, law.loss(n, d) * np.exp(noise * rng.standard_normal()))
        for n in SIZES
        for d in LENGTHS
    ]


def test_known_constants_come_back_from_exact_points():
    law = fit(runs(0.0), draws=0).law
    for name in ("E", "alpha", "beta"):
        np.testing.assert_allclose(getattr(law, name), getattr(KNOWN, name), rtol=1e-2)
    np.testing.assert_allclose(
        law.loss(7e10, 1.4e12), KNOWN.loss(7e10, 1.4e12), rtol=1e-3
    )


def test_from_noisy_points_the_constants_and_the_next_size_lie_in_the_interval():
    found = fit(runs(0.005), draws=60)
    for name in ("E", "alpha", "beta"):
        interval = found.constant(name)
        assert interval.low < getattr(KNOWN, name) < interval.high, name
        assert interval.high - interval.low < 0.5 * getattr(KNOWN, name)
    next_size = found.predict(1e9, 1e11)
    assert next_size.low < KNOWN.loss(1e9, 1e11) < next_size.high
    assert next_size.high - next_size.low < 0.1


def test_a_run_that_failed_a_little_does_not_pull_the_law():
    points = runs(0.0)
    points[7] = Point(points[7].params, points[7].tokens, points[7].loss * 1.1)
    np.testing.assert_allclose(fit(points, draws=0).law.alpha, KNOWN.alpha, rtol=0.05)


def test_the_optimum_has_the_least_loss_of_its_budget():
    budget = 1e20
    params, tokens = KNOWN.optimum(budget)
    np.testing.assert_allclose(6 * params * tokens, budget)
    for other in (0.8, 1.25):
        worse = KNOWN.loss(params * other, tokens / other)
        assert worse > KNOWN.loss(params, tokens)


def test_what_does_not_tell_the_constants_is_an_error():
    with pytest.raises(ConfigError, match="5 runs of 5 sizes and 1 numbers of tokens"):
        fit([p for p in runs(0.0) if p.tokens == 1e8])
    flat = [Point(n, d, 2.0) for n in SIZES for d in LENGTHS]
    with pytest.raises(ConfigError, match="do not tell the law's constants"):
        fit(flat)
