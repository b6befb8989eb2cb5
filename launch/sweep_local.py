# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A sweep on this machine: Optuna says what to try, each trial is a podium.train.

Its TPE proposes (Bergstra et al. 2011), its median rule ends trials early. What was tried
lies in D/optuna.log, each trial's run folder in D/trials/<number>: the same command goes
on, with the trials that were under way too.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from podium import cli
from podium.config_sweep import Choice, SweepConfig, Value, rounded
from podium.errors import ConfigError

_POLL_SECS = 0.5
_MOST_STARTS = 4  # of a trial that asks to be run again
_FAILED_FIRST = (
    3  # trials that fail before any has ended well: it is not their settings
)


@dataclasses.dataclass
class Running:
    """A trial whose process is at work."""

    trial: Any  # optuna.Trial
    workdir: Path
    process: subprocess.Popen
    starts: int = 1
    reported: int = 0  # rows of the metric that Optuna knows
    is_ended_early: bool = False


class LocalSweep:
    """Runs the trials of one sweep."""

    def __init__(self, sweep: SweepConfig, workdir: Path, flags: list[str]):
        """`flags` are those of podium.train that all trials share."""
        self._sweep, self._workdir, self._flags = sweep, workdir, flags
        self._running: list[Running] = []
        self.study = open_study(sweep, workdir)

    def run(self) -> None:
        """Returns when all trials have ended. Raises ConfigError, KeyboardInterrupt."""
        import optuna

        left = [t for t in self.study.trials if not t.state.is_finished()]
        for frozen in left:
            self._start(optuna.Trial(self.study, frozen._trial_id))
        with self._ending_trials():
            while self._running or self._num_to_do():
                while len(self._running) < self._sweep.parallel and self._num_to_do():
                    self._start(self._ask())
                time.sleep(_POLL_SECS)
                for each in list(self._running):
                    self._look_at(each)

    def _num_to_do(self) -> int:
        return self._sweep.num_trials - len(self.study.trials)

    def _ask(self) -> Any:
        trial = self.study.ask()
        for key, choices in self._sweep.space.items():
            if isinstance(choices, Choice):
                trial.suggest_categorical(key, choices.values)
                continue
            low, high = rounded(key, choices.low), rounded(key, choices.high)
            suggest = trial.suggest_int if isinstance(low, int) else trial.suggest_float
            suggest(key, low, high, log=choices.scale == "log")
        return trial

    def _start(self, trial: Any) -> None:
        workdir = self._workdir / "trials" / f"{trial.number:03}"
        workdir.parent.mkdir(parents=True, exist_ok=True)
        self._running.append(Running(trial, workdir, self._train(trial, workdir)))
        cli.say(f"trial {trial.number}: {as_text(trial.params)}")

    def _train(self, trial: Any, workdir: Path) -> subprocess.Popen:
        command = [
            *(sys.executable, "-m", "podium.train", *self._flags),
            *(f"--config.{key}={value}" for key, value in trial.params.items()),
            f"--workdir={workdir}",
        ]
        with workdir.with_suffix(".log").open("a") as log:
            # Of a session of its own: Ctrl-C is handed on, once.
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _look_at(self, each: Running) -> None:
        code = each.process.poll()  # before the metrics, which are then complete
        rows = metric_rows(each.workdir, self._sweep.metric)
        for step, value in rows[each.reported :]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a step done again, after a restart
                each.trial.report(value, step)
        is_news, each.reported = len(rows) > each.reported, len(rows)
        if code is None:
            if is_news and not each.is_ended_early and each.trial.should_prune():
                each.is_ended_early = True
                each.process.send_signal(signal.SIGTERM)
            return
        is_saved = code == cli.EXIT_RUN_AGAIN or code < 0
        if is_saved and not each.is_ended_early and each.starts < _MOST_STARTS:
            each.starts += 1
            each.process = self._train(each.trial, each.workdir)
            return
        self._running.remove(each)
        self._tell(each, code, rows)

    def _tell(self, each: Running, code: int, rows: list[tuple[int, float]]) -> None:
        from optuna.trial import TrialState

        trial, last = each.trial, last_line(each.workdir.with_suffix(".log"))
        value = rows[-1][1] if rows else None
        state, how = TrialState.FAIL, f"failed ({code}): {last}"
        if each.is_ended_early:
            state, how = TrialState.PRUNED, "ended early"
        elif last.startswith("DivergedError") and rows:  # as bad as it was, not unknown
            state, how = TrialState.PRUNED, "diverged"
        elif code == 0 and value is None:
            how = f"failed: its metrics.jsonl has no {self._sweep.metric}"
        elif code == 0:
            state, how = TrialState.COMPLETE, "done"
        trial.set_user_attr("end", how)
        self.study.tell(trial, value if state is TrialState.COMPLETE else None, state)
        shown = "" if value is None else f", {self._sweep.metric} {value:.4g}"
        cli.say(f"trial {trial.number}: {how}{shown}{self._best()}")
        states = [t.state for t in self.study.trials if t.state.is_finished()]
        if states == [TrialState.FAIL] * _FAILED_FIRST or (
            states == [TrialState.FAIL] and code == cli.EXIT_USAGE
        ):
            raise ConfigError(
                f"{how}; none has come to its end, see {each.workdir.with_suffix('.log')}"
            )

    def _best(self) -> str:
        done = ended_well(self.study)
        if not done:
            return ""
        best = self.study.best_trial
        return f" (best: {best.value:.4g} of trial {best.number})"

    @contextlib.contextmanager
    def _ending_trials(self) -> Iterator[None]:
        """Whatever ends the sweep ends its trials, saved: the next start goes on."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            if self._running:
                numbers = ", ".join(str(each.trial.number) for each in self._running)
                cli.say(f"trials {numbers} save and stop, after the step they are at")
            for each in self._running:
                each.process.send_signal(signal.SIGTERM)
            for each in self._running:
                each.process.wait()
            signal.signal(signal.SIGTERM, before)


def open_study(sweep: SweepConfig, workdir: Path) -> Any:
    """What was tried so far. Raises ConfigError where Optuna is not installed."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ConfigError(
            "sweeps on this machine need Optuna; install podium with the extra: "
            "uv sync --extra sweep"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    stopping = sweep.stopping
    study = optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(os.fspath(workdir / "optuna.log"))),
        direction=sweep.goal,
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=stopping.after_trials, n_warmup_steps=stopping.after_steps
        )
        if stopping
        else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    study.sampler = optuna.samplers.TPESampler(
        seed=sweep.seed + len(study.trials),  # else a later start draws the same again
        n_startup_trials=max(3, min(10, sweep.num_trials // 3)),
        constant_liar=sweep.parallel > 1,  # not the same place twice at a time
    )
    return study


def ended_well(study: Any) -> list[Any]:
    """The trials that came to their end."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])


def metric_rows(workdir: Path, metric: str) -> list[tuple[int, float]]:
    """(step, value) wherever a run reported a metric."""
    found: list[tuple[int, float]] = []
    with contextlib.suppress(FileNotFoundError):
        for line in (workdir / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut short
                row = json.loads(line)
                found.append((row["step"], float(row[metric])))
    return found


def as_text(params: dict[str, Value]) -> str:
    """a=1 b=2, numbers short."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    )


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line]
    return lines[-1][:300] if lines else "it said nothing"
