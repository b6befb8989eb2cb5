# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: data, step, metrics, eval, save.

The loop runs one step ahead of what it reports: step N is handed to the devices before
the metrics of N - 1 are read, so reporting costs the devices nothing. What a step sees
is a function of (seed, step) alone; the state is the only thing carried along.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from podium.errors import DivergedError, at_work
from podium.input.device import Feed, prefetch
from podium.input.server import InputServer
from podium.input.spec import StreamSpec
from podium.resume import latest_step
from podium.trainer.evaluate import evaluate
from podium.trainer.events import Events
from podium.trainer.metrics import Metrics, Rates, memory_bytes
from podium.trainer.profile import TraceWindow
from podium.trainer.progress import Progress
from podium.trainer.setup import Setup
from podium.trainer.state import TrainState, init_state
from podium.trainer.step import StepFn, batch_sharding, make_eval_step
from podium.trainer.stopping import Stopping

if TYPE_CHECKING:
    from podium.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    state: TrainState
    step: int
    is_done: bool  # False: stopped early by a signal, state saved
    eval_loss: float | None


class Trainer:
    """One run in one folder. `run` trains from the newest checkpoint to the end."""

    def __init__(
        self,
        setup: Setup,
        workdir: str | Path,
        server: InputServer,
        *,
        fingerprints: list[str],
        first_step: int | None,
        on_start: Callable[[], None] = lambda: None,
    ):
        """`first_step` is the checkpoint to continue from, None for a new run.

        `on_start` is called when all is compiled and restored: steps will be done.
        """
        self.setup, self.cfg, self.server = setup, setup.cfg, server
        self.workdir = Path(workdir)
        self.fingerprints = fingerprints
        self.resume_step = first_step
        self.on_start = on_start
        self.first_step = first_step or 0
        shape = (self.cfg.global_batch_seqs, self.cfg.data.seq_len)
        self.feed = Feed.of(batch_sharding(setup.rules), shape)
        # Every process trains; the first one writes and speaks.
        self.is_first = jax.process_index() == 0
        self.events = Events(workdir, process=jax.process_index())
        self.progress = Progress(
            self.cfg.num_steps,
            log_every_steps=self.cfg.log_every_steps,
            is_shown=self.is_first,
        )
        self.stopping = Stopping(self.progress.say)
        self.eval_step: Callable | None = None
        self.eval_loss: float | None = None
        self._checkpoints: Checkpoints | None = None

    def run(self) -> Outcome:
        """Trains to the last step; saves and returns early on SIGTERM or SIGINT."""
        try:
            with self.stopping:
                return self._run()
        except BaseException as error:
            self.events.add("fault", error=f"{type(error).__name__}: {error}"[:500])
            raise
        finally:
            self.progress.close()
            if self._checkpoints is not None:
                self._checkpoints.close()
            self.events.close()

    @property
    def checkpoints(self) -> "Checkpoints":
        """Orbax, opened when first needed: it is not on the way to the first step."""
        if self._checkpoints is None:
            from podium.checkpoint import Checkpoints

            self._checkpoints = Checkpoints(self.workdir, self.cfg.checkpoint)
        return self._checkpoints

    def _run(self) -> Outcome:
        cfg, num_steps = self.cfg, self.cfg.num_steps
        self.events.add(
            "start",
            step=self.first_step,
            mesh=dict(self.setup.mesh.shape),
            devices=len(self.setup.mesh.devices.flat),
            jax=jax.__version__,
        )
        stream = self.server.open(
            StreamSpec(
                data=cfg.data,
                split="train",
                seed=cfg.seed,
                global_batch_seqs=cfg.global_batch_seqs,
                rows=self.feed.rows,
                first_step=self.first_step,
                num_steps=num_steps - self.first_step,
            )
        )
        # Reading begins here: batches arrive while the state is made.
        with (
            prefetch(stream, self.feed) as batches,
            TraceWindow(cfg.profile, self.workdir) as trace,
            self._metrics() as metrics,
        ):
            train_step, state = self._compile_and_start()
            self.on_start()
            step = self.first_step
            reporter = _Reporter(self, metrics)
            with at_work():
                for index, batch, wait_secs in batches:
                    step = index + 1  # steps are counted from 1, order from 0
                    trace.before(step)
                    state, values = train_step(state, batch)
                    reporter.add(step, values, wait_secs)
                    trace.after(step, values)
                    is_stopping = self.stopping.reached(step)
                    if due := self.due(step):
                        reporter.flush()
                        if "eval" in due:
                            result = self._evaluate(state, step)
                            if metrics:
                                metrics.write(step, result)
                        if "save" in due:
                            self._save(state, step)
                        reporter.restart_clock()
                    if is_stopping:
                        break
                reporter.flush()
        if self._checkpoints is not None:
            self.checkpoints.wait()
        is_done = step >= num_steps
        self.events.add("stop", step=step, done=is_done, signal=self.stopping.signal)
        return Outcome(state, step, is_done, self.eval_loss)

    def _metrics(self) -> contextlib.AbstractContextManager[Metrics | None]:
        if not self.is_first:
            return contextlib.nullcontext()
        return Metrics(
            self.workdir,
            first_step=self.first_step,
            tensorboard_every=self.cfg.log_every_steps,
        )

    def _compile_and_start(self) -> tuple[StepFn, TrainState]:
        """Compiles the step in a thread while the state is made or restored."""
        start = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            compiling = pool.submit(self.setup.compile_step)
            state = self._first_state()
            train_step = compiling.result()
        self.events.add("compile", secs=round(time.monotonic() - start, 3))
        return train_step, state

    def _first_state(self) -> TrainState:
        if self.resume_step is None:
            return init_state(
                self.cfg.model,
                self.cfg.seed,
                self.setup.optimizer,
                self.setup.layout,
            )
        start = time.monotonic()
        state = self.checkpoints.restore(self.resume_step, self.setup.layout)
        secs = round(time.monotonic() - start, 3)
        self.events.add("restore", step=self.resume_step, secs=secs)
        self.progress.say(f"restored checkpoint {self.resume_step} in {secs:.1f} s")
        return state

    def due(self, step: int) -> set[str]:
        """What is to be done after a step: eval, save."""
        is_last = step == self.cfg.num_steps
        due = set()
        if self.cfg.eval and (is_last or step % self.cfg.eval.every_steps == 0):
            due.add("eval")
        is_stopping = self.stopping.signal is not None
        if is_last or is_stopping or step % self.cfg.checkpoint.every_steps == 0:
            due.add("save")
        return due

    def _evaluate(self, state: TrainState, step: int) -> dict[str, float]:
        start = time.monotonic()
        setup = self.setup
        if self.eval_step is None:
            self.eval_step = make_eval_step(
                self.cfg, setup.model, setup.rules, setup.layout.shardings.params
            )
        assert self.cfg.eval
        stream = self.server.open(
            StreamSpec(
                data=self.cfg.data,
                split="eval",
                seed=self.cfg.seed,
                global_batch_seqs=self.cfg.global_batch_seqs,
                rows=self.feed.rows,
                first_step=0,
                num_steps=self.cfg.eval.num_batches,
            )
        )
        params = state.params if state.ema is None else state.ema
        with prefetch(stream, self.feed) as batches:
            result = evaluate(self.eval_step, params, (b for _, b, _ in batches))
        self.eval_loss = result["eval_loss"]
        secs = round(time.monotonic() - start, 3)
        self.events.add("eval", step=step, secs=secs, loss=self.eval_loss)
        self.progress.say(
            f"step {step}: held-out loss {self.eval_loss:.4f} "
            f"(perplexity {result['eval_perplexity']:.1f}, {secs:.1f} s)"
        )
        return result

    def _save(self, state: TrainState, step: int) -> None:
        start = time.monotonic()
        self.checkpoints.save(
            state,
            step=step,
            cfg=self.cfg,
            fingerprints=self.fingerprints,
            eval_loss=self.eval_loss,
        )
        secs = round(time.monotonic() - start, 3)
        self.events.add("save", step=step, secs=secs)


class _Reporter:
    """Reads the metrics of a step once the next one is under way."""

    def __init__(self, trainer: Trainer, metrics: Metrics | None):
        """`metrics` where this process writes them."""
        self._trainer, self._metrics = trainer, metrics
        self._rates = Rates(trainer.cfg, list(trainer.setup.mesh.devices.flat))
        self._device = jax.local_devices()[0]
        self._pending: tuple[int, dict, float] | None = None
        self._clock = time.monotonic()
        self._mean_secs = 0.0
        self._bad_since: int | None = None

    def add(self, step: int, values: dict[str, jax.Array], wait_secs: float) -> None:
        """Takes over the metrics of a step just dispatched; reports the one before."""
        previous, self._pending = self._pending, (step, values, wait_secs)
        if previous is not None:
            self._report(*previous)

    def flush(self) -> None:
        """Reports the last step too; the devices are idle after it."""
        if self._pending is not None:
            self._report(*self._pending)
            self._pending = None

    def restart_clock(self) -> None:
        """The time since the last step went to something else."""
        self._clock = time.monotonic()

    def _report(self, step: int, values: dict[str, jax.Array], wait_secs: float):
        host = {name: float(v) for name, v in jax.device_get(values).items()}
        host["tokens"] = round(host["tokens"])
        now = time.monotonic()
        step_secs, self._clock = now - self._clock, now
        trainer = self._trainer
        rates = self._rates.of(step_secs)
        known = self._mean_secs or step_secs
        self._mean_secs = 0.95 * known + 0.05 * step_secs
        if self._metrics:
            self._metrics.write(
                step,
                {
                    **host,
                    "step_secs": step_secs,
                    "input_wait_secs": wait_secs,
                    **rates,
                    "device_memory_bytes": memory_bytes(self._device),
                },
            )
        trainer.progress.step(
            step,
            host["loss"],
            tokens=self._rates.tokens,
            secs=step_secs,
            eta_secs=(trainer.cfg.num_steps - step) * self._mean_secs,
        )
        self._check_finite(step, host)

    def _check_finite(self, step: int, host: dict[str, float]) -> None:
        """Warns of a loss or gradient that is no number, and ends the run if it stays.

        Always before a save: no checkpoint holds such weights.
        """
        trainer, cfg = self._trainer, self._trainer.cfg
        watched = ("loss", "grad_norm", "param_norm")
        bad = next((n for n in watched if not math.isfinite(host[n])), None)
        if bad is None:
            self._bad_since = None
            return
        if self._bad_since is None:
            self._bad_since = step
            trainer.progress.say(f"WARNING: {bad} is {host[bad]} at step {step}")
        if step % cfg.log_every_steps == 0 or trainer.due(step):
            saved = latest_step(trainer.workdir)
            raise DivergedError(
                f"{bad} is {host[bad]} since step {self._bad_since}; last good checkpoint: "
                f"{'none' if saved is None else saved}. Lower optim.peak_lr "
                f"({cfg.optim.peak_lr}) or warm up longer, in another --workdir"
            )
