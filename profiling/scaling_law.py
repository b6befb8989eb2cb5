# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Loss over parameters and tokens: L(N, D) = E + A / N**alpha + B / D**beta.

Hoffmann et al. 2022, arXiv:2203.15556, approach 3 and appendix D.2: the sum of Huber losses
(delta 1e-3) between the logarithms of the law and of the measured losses, minimised by
L-BFGS from a grid of starts; the best is kept. Of the paper's 4500 starts those with the
lowest sums are followed, and exponents stay between 0 and 3. Intervals come from a
bootstrap of residuals, where the paper draws runs: a ladder has few of those.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from podium.errors import ConfigError

_DELTA = 1e-3
_FOLLOWED = 12  # starts
_BOUNDS = ((-20.0, 60.0), (-20.0, 60.0), (-8.0, 5.0), (0.0, 3.0), (0.0, 3.0))
_LEAST_POINTS = 6  # one more than there are constants
_LEAST_SIZES = 3  # of each kind: a curve through two has no bend


@dataclasses.dataclass(frozen=True)
class Point:
    """A finished run."""

    params: float  # N
    tokens: float  # D
    loss: float  # nats a token, held out


@dataclasses.dataclass(frozen=True)
class Law:
    """The five constants."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, params: float, tokens: float) -> float:
        """Nats a token."""
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) of the least loss under flops = 6 N D, the paper's equation 4."""
        total = self.alpha + self.beta
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        params = G * (flops / 6) ** (self.beta / total)
        return params, flops / 6 / params


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value and where 90% of the bootstrap's lie."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Fit:
    """A law, those of the bootstrap, and how far points lie from it."""

    law: Law
    draws: tuple[Law, ...]
    residuals: tuple[float, ...]  # log(measured) - log(law)

    def constant(self, name: str) -> Interval:
        """One of the law's constants."""
        return _interval(
            getattr(self.law, name), [getattr(d, name) for d in self.draws]
        )

    def predict(self, params: float, tokens: float) -> Interval:
        """The loss of a run to come: doubt about the law, and a run's own scatter."""
        rng = np.random.default_rng(0)
        scatter = rng.choice(_spread(self.residuals), len(self.draws))
        drawn = [
            draw.loss(params, tokens) * math.exp(off)
            for draw, off in zip(self.draws, scatter, strict=True)
        ]
        return _interval(self.law.loss(params, tokens), drawn)

    def optimum(self, flops: float) -> tuple[Interval, Interval]:
        """(N, D) of the least loss under flops = 6 N D."""
        best = self.law.optimum(flops)
        drawn = list(zip(*(draw.optimum(flops) for draw in self.draws), strict=True))
        first, second = (
            _interval(value, values) for value, values in zip(best, drawn, strict=True)
        )
        return first, second


DRAWS = 100  # of the bootstrap


def fit(
    points: Sequence[Point],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    advance: Callable[[int], None] = lambda number: None,
) -> Fit:
    """The law of some runs. Raises ConfigError where they cannot tell its constants.

    `advance` is told of draws of the bootstrap that are done.
    """
    check_identified([p.params for p in points], [p.tokens for p in points])
    N, D, L = (np.array([getattr(p, k) for p in points]) for k in _FIELDS)
    if not (np.isfinite(L).all() and (L > 0).all()):
        raise ConfigError("a run's loss is no positive number; leave that run out")
    law = _minimise(N, D, np.log(L), _starts(N, D, np.log(L)))
    fitted = np.log([law.loss(n, d) for n, d in zip(N, D, strict=True)])
    residuals = tuple(np.log(L) - fitted)
    _check_found(law)
    rng, near = np.random.default_rng(seed), [_as_vector(law)]
    drawn: list[Law] = []
    for _ in range(draws):
        losses = fitted + rng.choice(_spread(residuals), len(N))
        drawn.append(_minimise(N, D, losses, near))
        advance(1)
    return Fit(law, tuple(drawn), residuals)


_FIELDS = ("params", "tokens", "loss")


def check_identified(params: Sequence[float], tokens: Sequence[float]) -> None:
    """Raises ConfigError where runs of these sizes cannot tell the law's constants."""
    sizes, lengths = len(set(params)), len(set(tokens))
    if len(params) < _LEAST_POINTS or min(sizes, lengths) < _LEAST_SIZES:
        raise ConfigError(
            f"{len(params)} runs of {sizes} sizes and {lengths} numbers of tokens do not "
            f"tell the law's five constants; expected {_LEAST_POINTS} or more, of "
            f"{_LEAST_SIZES} or more sizes and numbers of tokens: add to --widths or to "
            "--tokens"
        )


def _check_found(law: Law) -> None:
    for name in ("alpha", "beta"):
        value = getattr(law, name)
        if not 0.01 < value < 2.99:
            what = "parameters" if name == "alpha" else "tokens"
            raise ConfigError(
                f"the runs do not tell the law's constants: {name} would be {value:.2f}; "
                f"use runs that lie further apart in {what}, or more of them"
            )


def _objective(
    x: np.ndarray, N: np.ndarray, D: np.ndarray, log_L: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of Huber losses and its gradient; x is [5] or [starts, 5]: a, b, e, alpha,
    beta with A = exp(a), B = exp(b), E = exp(e)."""
    x = x[..., None]
    terms = np.stack(
        [
            x[..., 0, :] - x[..., 3, :] * np.log(N),
            x[..., 1, :] - x[..., 4, :] * np.log(D),
            np.broadcast_to(x[..., 2, :], (*x.shape[:-2], len(N))),
        ]
    )
    law = np.logaddexp.reduce(terms, axis=0)
    off = law - log_L
    near = np.abs(off) <= _DELTA
    value = np.where(near, 0.5 * off**2, _DELTA * (np.abs(off) - 0.5 * _DELTA)).sum(-1)
    slope = np.where(near, off, _DELTA * np.sign(off))
    of_A, of_B, of_E = np.exp(terms - law) * slope
    gradient = [of_A, of_B, of_E, -of_A * np.log(N), -of_B * np.log(D)]
    return value, np.stack([g.sum(-1) for g in gradient], axis=-1)


def _starts(N: np.ndarray, D: np.ndarray, log_L: np.ndarray) -> list[np.ndarray]:
    """Those of the paper's grid that are nearest to the points."""
    grid = np.array(
        list(
            itertools.product(
                np.arange(0.0, 26.0, 5.0),
                np.arange(0.0, 26.0, 5.0),
                np.arange(-1.0, 1.1, 0.5),
                np.arange(0.0, 2.1, 0.5),
                np.arange(0.0, 2.1, 0.5),
            )
        )
    )
    values, _ = _objective(grid, N, D, log_L)
    return list(grid[np.argsort(values)[:_FOLLOWED]])


def _minimise(
    N: np.ndarray, D: np.ndarray, log_L: np.ndarray, starts: Sequence[np.ndarray]
) -> Law:
    from scipy.optimize import minimize

    def scaled(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _objective(x, N, D, log_L)
        return float(value) * 1e4, gradient * 1e4  # else its tolerances end it early

    found = [
        minimize(
            scaled,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=_BOUNDS,
            options={"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-9},
        )
        for start in starts
    ]
    a, b, e, alpha, beta = min(found, key=lambda result: result.fun).x
    return Law(*map(float, (np.exp(e), np.exp(a), np.exp(b), alpha, beta)))


def _as_vector(law: Law) -> np.ndarray:
    logs = [math.log(v) for v in (law.A, law.B, law.E)]
    return np.array([*logs, law.alpha, law.beta])


def _spread(residuals: Sequence[float]) -> np.ndarray:
    """Residuals as wide as the runs' scatter is: five constants took some of it."""
    n = len(residuals)
    return np.asarray(residuals) * math.sqrt(n / max(1, n - 5))


def _interval(value: float, drawn: Sequence[float]) -> Interval:
    low, high = np.quantile(drawn, (0.05, 0.95)) if drawn else (value, value)
    return Interval(value, float(low), float(high))
