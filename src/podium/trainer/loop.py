# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: data, step, metrics, eval, save.

The loop runs one step ahead of what it reports: step N is handed to the devices before
the metrics of N - 1 are read, so reporting costs the devices nothing. What a step sees
is a function of (seed, step) alone; the state is the only thing carried along.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from podium import lost_peers, processes
from podium.code_commit import commit
from podium.errors import HardwareError, at_work
from podium.input.device import Feed, Prefetcher, prefetch
from podium.input.server import InputServer, Stream
from podium.input.spec import StreamSpec
from podium.resume import (
    checkpoints_folder,
    skipped_batches,
    whole_steps,
)
from podium.skipped_batches import batch_of, num_skipped
from podium.skipped_batches import write as write_skips
from podium.starts import reference_step
from podium.trainer.damage import DamageLog
from podium.trainer.evaluator import Evaluator
from podium.trainer.events import Events, Steps
from podium.trainer.faults import Faults, Rewind
from podium.trainer.first_state import first_state
from podium.trainer.hosts import HostTimes
from podium.trainer.maintenance import Maintenance
from podium.trainer.metrics import Metrics
from podium.trainer.profile import SAVE, TraceWindow
from podium.trainer.progress import Progress
from podium.trainer.reference import reference_of
from podium.trainer.reporter import Reporter
from podium.trainer.saving import Saver
from podium.trainer.setup import Setup
from podium.trainer.state import TrainState
from podium.trainer.step import StepFn, batch_sharding
from podium.trainer.stopping import Stopping
from podium.trainer.summary import summary
from podium.trainer.tracking import END_SECS, HURRY_SECS, State, Tracker, lost_line
from podium.trainer.verify import Verifier
from podium.trainer.watchdog import Watchdog


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
        trackers: Sequence[Tracker] = (),
    ):
        """`first_step` is the checkpoint to continue from, None for a new run.

        `trackers` show the run in services; the first process has them.

        `on_start` is called when all is compiled and restored: steps will be done.
        """
        self.setup, self.cfg, self.server = setup, setup.cfg, server
        self.workdir = Path(workdir)
        self.fingerprints = fingerprints
        self.resume_step = first_step
        self.on_start, self.trackers = on_start, trackers
        self.first_step = first_step or 0
        shape = (self.cfg.global_batch_seqs, self.cfg.data.seq_len)
        self.feed = Feed.of(batch_sharding(setup.rules), shape)
        # Every process trains; the first one writes and speaks.
        self.is_first = jax.process_index() == 0
        self.events = Events(workdir, process=jax.process_index())
        self.steps = Steps(self.events)
        self.progress = Progress(
            self.cfg.num_steps,
            log_every_steps=self.cfg.log_every_steps,
            is_shown=self.is_first,
        )
        self.damage = DamageLog(
            workdir, self.events, self.progress.say, process=jax.process_index()
        )
        self.stopping = Stopping(self.progress.say)
        self.watchdog = Watchdog(
            self.cfg.watchdog, self.workdir, self.events, process=jax.process_index()
        )
        self.hosts = HostTimes(self.events, self.progress.say)
        self.maintenance = Maintenance(
            self.events, self.progress.say, self.stopping.ask
        )
        if jax.process_count() > 1:
            lost_peers.call_before_leaving(
                lambda: self.events.add("fault", what="lost process")
            )
        self.evaluator: Evaluator | None = None
        self.eval_loss: float | None = None
        self.skips = skipped_batches(self.workdir, self.cfg, first_step)
        self.saver = Saver(
            self.workdir,
            self.cfg,
            self.events,
            fingerprints=fingerprints,
            skips=self.skips,
            first_step=self.first_step,
            say=self.progress.say,
        )
        self.verifier = Verifier(setup, self.workdir, self.events, self.first_step)
        self.faults = Faults(
            self.cfg,
            self.workdir,
            self.events,
            self.progress.say,
            skips=self.skips,
            is_first=self.is_first,
        )

    def run(self) -> Outcome:
        """Trains to the last step; saves and returns early on SIGTERM or SIGINT."""
        try:
            with self.stopping, self.watchdog, self.hosts, self.maintenance:
                return self._run()
        except BaseException as error:
            if jax.process_count() > 1 and lost_peers.is_loss(error):
                line = str(error).splitlines()[0][:200]
                lost_peers.leave(f"lost another process of this run ({line})")
            self.steps.flush()
            self.events.add("fault", error=f"{type(error).__name__}: {error}"[:500])
            self._end_tracking("FAILED", HURRY_SECS)
            raise
        finally:
            self.progress.close()
            self.saver.close()
            self.events.close()

    def _end_tracking(self, state: State, secs: float) -> None:
        """Lets the services have the rest; what they did not get is said and noted."""
        if not self.trackers:
            return
        folder = checkpoints_folder(self.workdir, self.cfg.checkpoint.folder)
        figures, steps = summary(self.workdir), whole_steps(folder)
        for tracker in self.trackers:
            told = tracker.close(state, figures, steps, secs)
            self.events.add("tracking", **told)
            if line := lost_line(told):
                self.progress.say(line)

    def _run(self) -> Outcome:
        cfg, num_steps = self.cfg, self.cfg.num_steps
        self.events.add(
            "start",
            step=self.first_step,
            mesh=dict(self.setup.mesh.shape),
            devices=len(self.setup.mesh.devices.flat),
            jax=jax.__version__,
            commit=commit() if self.is_first else "",
        )
        if self.is_first:
            write_skips(self.workdir, self.skips)
        stream = self._open(self.first_step)
        # Reading begins here: batches arrive while the state is made.
        with (
            TraceWindow(cfg.profile, self.workdir, self.progress.say) as trace,
            self._metrics() as metrics,
        ):
            with prefetch(stream, self.feed) as batches:
                self.train_step, state = self._compile_and_start()
                self.on_start()
                self.watchdog.begin(self.train_step, self.first_step + 1)
                reporter = Reporter(self, metrics)
                with at_work():
                    state = self._train(
                        state, stream, batches, reporter, trace, metrics
                    )
            while isinstance(state, Rewind):
                with at_work(), self._rewound(state, reporter, metrics) as again:
                    state = self._first_state()
                    state = self._train(state, *again, reporter, trace, metrics)
        step = int(state.step)
        is_done = step >= num_steps
        if is_done:
            self._end_tracking("COMPLETE", END_SECS)
        else:
            self._end_tracking("CANCELLED", HURRY_SECS)
        self.events.add("stop", step=step, done=is_done, signal=self.stopping.signal)
        return Outcome(state, step, is_done, self.eval_loss)

    def _train(
        self,
        state: TrainState,
        stream: Stream,
        batches: Prefetcher,
        reporter: Reporter,
        trace: TraceWindow,
        metrics: Metrics | None,
    ) -> TrainState | Rewind:
        """The steps, to the last one or to one that is asked to be: the state then."""
        step = self.first_step
        batches.is_busy = reporter.is_busy
        try:
            for index, batch, wait_secs in batches:
                # Steps are counted from 1, the order from 0.
                step = index + 1 - num_skipped(self.skips, self.first_step + 1)
                self.damage.note(stream.take_damaged(index), step)
                if self.verifier.is_due(step):
                    reporter.flush()
                    with self.watchdog.during("verification"):
                        self._verify(step, state, batch)
                    reporter.restart_clock()
                trace.before(step)
                with trace.step(step):
                    state, values = self.train_step(state, batch)
                reporter.add(step, values, wait_secs)
                if trace.ends_with(step):
                    reporter.flush()
                    with self.watchdog.during("trace"):
                        trace.stop()
                    reporter.restart_clock()
                is_stopping = self.stopping.reached(step)
                is_end = is_stopping or step == self.cfg.num_steps
                self.saver.poll(reporter.mean_secs)
                is_save = self.saver.is_due(step, reporter.mean_secs)
                if is_end or is_save or self.is_eval(step):
                    reporter.flush()
                    if self.is_eval(step):
                        with self.watchdog.during("evaluation"):
                            result = self._evaluate(state, step)
                        if metrics:
                            metrics.write(step, result)
                    if metrics:
                        metrics.flush()
                    save = self.saver.finish if is_end else self.saver.save
                    if is_end or is_save:
                        self.verifier.check_replicas(step, state)
                        with self.watchdog.during("save"), self._held_up(step):
                            save(state, step, self.eval_loss, reporter.mean_secs)
                    reporter.restart_clock()
                if is_stopping:
                    break
            reporter.flush()
        except Rewind as rewind:
            return rewind
        return state

    def _verify(self, step: int, state: TrainState, batch: Any) -> None:
        try:
            self.verifier.check(step, state, batch)
        except HardwareError as error:
            self.faults.corrupted(step, error)
            raise

    @contextlib.contextmanager
    def _rewound(
        self, rewind: Rewind, reporter: Reporter, metrics: Metrics | None
    ) -> Iterator[tuple[Stream, Prefetcher]]:
        """Batches from behind the bad step, for a state from before it."""
        with self.watchdog.during("rewind"):
            reporter.drop()
            self.saver.wait(reporter.mean_secs)
            saved = self.saver.newest_step()
            self.resume_step, self.first_step = saved, saved or 0
            num = rewind.step - self.first_step
            self.skips.append((self.first_step, num))
            if self.is_first:
                write_skips(self.workdir, self.skips)
            if metrics:
                metrics.rewind(self.first_step)
            self.events.add("rewind", step=rewind.step, to=self.first_step, batches=num)
            self.progress.say(
                f"going back from step {rewind.step} to {self.first_step}; the {num} "
                "batches between are left out"
            )
        stream = self._open(self.first_step)
        with prefetch(stream, self.feed) as batches:
            yield stream, batches
            reporter.restart_clock()

    def _open(self, after_step: int) -> Stream:
        """The batches of the steps after that one."""
        return self.server.open(
            StreamSpec(
                data=self.cfg.data,
                split="train",
                seed=self.cfg.seed,
                global_batch_seqs=self.cfg.global_batch_seqs,
                rows=self.feed.rows,
                first_step=batch_of(self.skips, after_step + 1),
                num_steps=self.cfg.num_steps - after_step,
            )
        )

    def _metrics(self) -> contextlib.AbstractContextManager[Metrics | None]:
        if not self.is_first:
            return contextlib.nullcontext()
        return Metrics(
            self.workdir,
            first_step=self.first_step,
            tensorboard_every=self.cfg.log_every_steps,
            trackers=self.trackers,
        )

    def _compile_and_start(self) -> tuple[StepFn, TrainState]:
        """Compiles the step in a thread while the state is made or restored."""
        with ThreadPoolExecutor(1) as pool:
            compiling = pool.submit(self._compile)
            state = self._first_state()
            train_step = compiling.result()
        processes.meet("first step")
        return train_step, state

    def _compile(self) -> StepFn:
        start = time.monotonic()
        train_step = self.setup.compile_step()
        self.events.add("compile", secs=round(time.monotonic() - start, 3))
        return train_step

    @contextlib.contextmanager
    def _held_up(self, step: int) -> Iterator[None]:
        """Notes for how long saving kept the loop from the next step."""
        start = time.monotonic()
        try:
            with jax.profiler.TraceAnnotation(SAVE):
                yield
        finally:
            secs = round(time.monotonic() - start, 3)
            self.events.add("checkpoint", step=step, secs=secs)

    def _first_state(self) -> TrainState:
        setup = self.setup
        state, self.saver.base = first_state(
            setup, self.workdir, self.resume_step, self.saver.restore
        )
        if not self.cfg.has_reference:
            return state
        is_new = self.resume_step is None
        step = reference_step(
            self.workdir, self.cfg, is_new=is_new, is_first=self.is_first
        )
        shardings = setup.layout.shardings.reference
        reference = reference_of(self.cfg, shardings, step, setup.rules)
        return dataclasses.replace(state, reference=reference)

    def is_eval(self, step: int) -> bool:
        """Whether the state after a step is to be evaluated."""
        cfg = self.cfg.eval
        is_last = step == self.cfg.num_steps
        return cfg is not None and (is_last or step % cfg.every_steps == 0)

    def _evaluate(self, state: TrainState, step: int) -> dict[str, float]:
        start = time.monotonic()
        if self.evaluator is None:
            self.evaluator = Evaluator(self.setup, self.feed, self.server)
        result, damaged = self.evaluator.run(state)
        self.damage.note(damaged, step)
        self.eval_loss = result["eval_loss"]
        secs = round(time.monotonic() - start, 3)
        self.events.add("eval", step=step, secs=secs, loss=self.eval_loss)
        shown = f"perplexity {result.get('eval_perplexity', 0.0):.1f}"
        if self.cfg.dpo is not None:
            shown = f"{result['eval_reward_accuracy']:.1%} of pairs the right way round"
        self.progress.say(
            f"step {step}: held-out loss {self.eval_loss:.4f} ({shown}, {secs:.1f} s)"
        )
        return result
