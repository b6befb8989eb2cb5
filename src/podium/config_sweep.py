# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a sweep tries: the settings that vary, what is compared, and for how long.

One file says it for both places that a sweep runs in, this machine and Vertex AI.
"""

import dataclasses
from typing import Any, Literal

from podium.config import TrainConfig
from podium.config_dict import describe, from_config_dict, to_json_dict, unknown_key
from podium.config_override import override_all
from podium.config_setting import setting
from podium.errors import ConfigError

Value = int | float | str | bool


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both in it; whole ones where the setting is."""

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"

    def __post_init__(self):
        if not self.low < self.high:
            raise ConfigError(
                f"Range({self.low}, {self.high}): expected the lower end first"
            )
        if self.scale not in ("linear", "log"):
            raise ConfigError(f"Range: scale is {self.scale!r}; expected linear or log")
        if self.scale == "log" and self.low <= 0:
            raise ConfigError(
                f"Range({self.low}, {self.high}): a log scale needs low above 0"
            )


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    def __post_init__(self):
        if not isinstance(self.values, tuple | list) or len(self.values) < 2:
            raise ConfigError(
                f"Choice({self.values!r}): expected two values or more, e.g. "
                "Choice((0.0, 0.1))"
            )
        if odd := [v for v in self.values if not isinstance(v, Value)]:
            raise ConfigError(f"Choice: {odd[0]!r} is no number, text or boolean")
        object.__setattr__(self, "values", tuple(self.values))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MedianStopping:
    """A trial is ended where its best so far is worse than the median of the others at
    that step (Golovin et al. 2017, Google Vizier, section 3.2)."""

    after_trials: int = setting(4, "that came to their end, before any is ended", low=1)
    after_steps: int = setting(0, "of each trial, before it is ended", low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A search over settings."""

    space: dict[str, Range | Choice]  # dotted setting -> what it may be
    metric: str = "eval_loss"  # of metrics.jsonl; the last one of a trial counts
    goal: Literal["minimize", "maximize"] = "minimize"
    num_trials: int = 20
    parallel: int = 1  # trials at a time
    stopping: MedianStopping | None = dataclasses.field(default_factory=MedianStopping)
    seed: int = 0

    def __post_init__(self):
        if not self.space:
            raise ConfigError("space is empty; expected {'optim.peak_lr': Range(…)}")
        for key, choices in self.space.items():
            if not isinstance(choices, Range | Choice):
                raise ConfigError(
                    f"space[{key!r}] is {choices!r}; expected a Range or a Choice"
                )
        if self.goal not in ("minimize", "maximize"):
            raise ConfigError(f"goal is {self.goal!r}; expected minimize or maximize")
        for name in ("num_trials", "parallel"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; expected 1 or more"
                )


def check_space(sweep: SweepConfig, cfg: TrainConfig) -> None:
    """Raises ConfigError for a setting that there is not, or a value it cannot have.

    Values that only clash with those of others are left to the trials.
    """
    tree = to_json_dict(cfg)
    for key, choices in sweep.space.items():
        if key not in kinds():
            raise ConfigError(f"space: {unknown_key(TrainConfig, key)}")
        if isinstance(choices, Range) and kinds()[key] is None:
            raise ConfigError(
                f"space: {key} is no number; expected a Choice, not a Range"
            )
        ends = (
            choices.values
            if isinstance(choices, Choice)
            else (rounded(key, choices.low), rounded(key, choices.high))
        )
        for value in ends:
            try:
                override_all(TrainConfig, changed := _copy(tree), {key: str(value)})
                from_config_dict(TrainConfig, changed)
            except ConfigError as error:
                if str(error).startswith(f"{key} is "):
                    raise ConfigError(f"space: {error}") from error
    if sweep.metric.startswith("eval") and cfg.eval is None:
        raise ConfigError(
            f"metric is {sweep.metric}, but eval is None: no trial has it; set "
            "--config.eval.every_steps="
        )


def kinds() -> dict[str, type | None]:
    """Every setting -> int or float; None where it is no number."""
    found: dict[str, type | None] = {}
    for key, kind, *_ in describe(TrainConfig):
        words = kind.split(" or ")
        found[key] = int if "int" in words else float if "float" in words else None
    return found


def rounded(key: str, value: float) -> int | float:
    """The number as the setting takes it."""
    return round(value) if kinds()[key] is int else float(value)


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return list(tree) if isinstance(tree, list) else tree
