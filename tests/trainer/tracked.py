# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A run's rows, as the loop writes them, and a service that is to have them."""

import pytest

from podium.trainer import tracking
from podium.trainer.metrics import Metrics
from podium.trainer.tracking import About, Tracker


def hurry(monkeypatch):
    monkeypatch.setattr(tracking, "_LEAST_SECS", 0.01)
    monkeypatch.setattr(tracking, "_FIRST_PAUSE_SECS", 0.05)
    monkeypatch.setattr(tracking, "_MOST_PAUSE_SECS", 0.2)


def about(workdir, **params):
    return About(
        run="mine",
        workdir=str(workdir),
        params={"num_steps": 8, "optim.peak_lr": 0.01, "data.text": "", **params},
        data=[("gs://b/gold", "f" * 64)],
        commit="c0ffee-dirty",
        config="gs://b/runs/mine/run/config.json",
        checkpoints="gs://b/runs/mine/checkpoints",
    )


def rows(workdir, first, last, tracker):
    """Steps of a run, their losses in metrics.jsonl."""
    with Metrics(
        workdir, first_step=first, tensorboard_every=1, trackers=[tracker]
    ) as metrics:
        for step in range(first + 1, last + 1):
            metrics.write(step, {"loss": 4.0 - step / 10, "grad_norm": None})
            if step % 4 == 0:
                metrics.write(step, {"eval_loss": 5.0 - step / 10})


SUMMARY = {"step": 8.0, "loss": 3.2, "goodput": 0.5}


def run(backend, workdir, first, last, *, state="COMPLETE", secs=60.0, **params):
    """One start of a run, and what the tracker says of it."""
    tracker = Tracker(backend, about(workdir, **params), every=1)
    tracker.start()
    rows(workdir, first, last, tracker)
    return tracker.close(state, SUMMARY, list(range(4, last + 1, 4)), secs)


def losses(first, last):
    return {step: pytest.approx(4.0 - step / 10) for step in range(first, last + 1)}
