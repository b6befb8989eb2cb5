# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Stays with a job: its states, its log, how far the training is; ends as it ends.

States come from Vertex AI, lines from Cloud Logging, and the step, loss and tokens/s
from metrics.jsonl in the run's folder, which the job's first host keeps up to date.
"""

import contextlib
import dataclasses
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from launch import jobs
from launch.cloud import Cloud
from podium import cli
from podium.errors import CloudError
from podium.storage import Folder, open_folder

RUN_FOLDER = "run"  # of the run's folder in the bucket: what the job's D/ holds
SIGNALLED = (134, 139)  # with these the job was tried again: it had saved, or crashed

_TAIL_BYTES = 1 << 16  # of metrics.jsonl
_QUEUE_HINT_SECS = 300
_LINE_SECS = 30.0  # between lines about progress, where there is no terminal


@dataclasses.dataclass
class Progress:
    """How far a run is, from the last rows of its metrics."""

    step: int
    num_steps: int | None
    loss: float | None
    tokens_per_sec: float | None
    eta_secs: float | None

    def __str__(self) -> str:
        of = f" of {self.num_steps:,}" if self.num_steps else ""
        parts = [f"step {self.step:,}{of}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.tokens_per_sec is not None:
            parts.append(f"{self.tokens_per_sec:,.0f} tokens/s")
        if self.eta_secs is not None:
            parts.append(f"ETA {_duration(self.eta_secs)}")
        return "  ".join(parts)


def progress(rows: list[dict[str, Any]], num_steps: int | None) -> Progress | None:
    """Of rows of metrics.jsonl, the last of which may be of an evaluation."""
    steps = [row for row in rows if isinstance(row.get("step_secs"), int | float)]
    if not steps:
        return None
    last, recent = steps[-1], steps[-50:]
    secs = statistics.median(row["step_secs"] for row in recent)
    rates = [row["tokens_per_sec"] for row in recent if row.get("tokens_per_sec")]
    return Progress(
        step=last["step"],
        num_steps=num_steps,
        loss=last.get("loss"),
        tokens_per_sec=statistics.median(rates) if rates else None,
        eta_secs=None if num_steps is None else (num_steps - last["step"]) * secs,
    )


def find_run(address: str, holds: str) -> Folder | None:
    """The run folder at an address, a job's, gs://BUCKET/runs/RUN, or one that was copied
    there: where the file `holds` is. Raises StorageError."""
    for at in (f"{address.rstrip('/')}/{RUN_FOLDER}", address.rstrip("/")):
        there = open_folder(at)
        if holds in there.names():
            return there
    return None


class RunFiles:
    """The run's folder in the bucket, as far as the job has filled it."""

    def __init__(self, cloud: Cloud, folder: str):
        bucket, _, path = folder.removeprefix("gs://").partition("/")
        self._cloud, self._path = cloud, f"{path.rstrip('/')}/{RUN_FOLDER}"
        self._bucket = cloud.storage.bucket(bucket)
        self._num_steps: int | None = None

    def progress(self) -> Progress | None:
        """None while the job has not reported a step."""
        if self._num_steps is None:
            with contextlib.suppress(ValueError):
                tree = json.loads(self._tail("config.json") or b"{}")
                self._num_steps = tree.get("num_steps")
        rows = []
        for line in (self._tail("metrics.jsonl") or b"").splitlines():
            with contextlib.suppress(ValueError):  # the first may be cut
                rows.append(json.loads(line))
        return progress([row for row in rows if isinstance(row, dict)], self._num_steps)

    def _tail(self, name: str) -> bytes | None:
        from google.api_core.exceptions import NotFound

        def ask() -> bytes | None:
            try:
                blob = self._bucket.blob(f"{self._path}/{name}")
                blob.reload(retry=None)
                start = max(0, (blob.size or 0) - _TAIL_BYTES)
                return blob.download_as_bytes(start=start, retry=None, checksum=None)
            except NotFound:
                return None

        return self._cloud.call("progress", ask)


class Log:
    """The lines that a job's containers printed, each once."""

    def __init__(self, cloud: Cloud, job: Any):
        self._cloud, self._id = cloud, jobs.id_of(job)
        self._since = job.create_time.isoformat()
        self._seen: set[str] = set()

    def new_lines(self) -> Iterator[str]:
        """Those since the last call. Raises CloudError."""
        found = (
            f'resource.type="ml_job" AND resource.labels.job_id="{self._id}" AND '
            f'timestamp>="{self._since}"'
        )

        def ask() -> list[Any]:
            entries = self._cloud.logs.list_entries(
                resource_names=[f"projects/{self._cloud.project}"],
                filter_=found,
                order_by="timestamp asc",
                page_size=1000,
            )
            return list(entries)

        for entry in self._cloud.call("log", ask):
            if entry.insert_id in self._seen:
                continue
            self._seen.add(entry.insert_id)
            self._since = entry.timestamp.isoformat()
            yield _log_line(entry)


def _log_line(entry: Any) -> str:
    payload = entry.payload
    text = payload.get("message", "") if isinstance(payload, dict) else str(payload)
    labels = {
        **(entry.labels or {}),
        **(entry.resource.labels if entry.resource else {}),
    }
    task = labels.get("task_name", "")
    is_first = task in ("", "workerpool0-0", "service")
    return text.rstrip() if is_first else f"[{task}] {text.rstrip()}"


def follow(cloud: Cloud, job: Any, log: Log | None = None) -> int:
    """Prints what happens to a job until it has ended; the exit code that mirrors it.

    `log` has been read in part, where this goes on after an interruption.
    """
    folder = job.job_spec.base_output_directory.output_uri_prefix
    files, log = RunFiles(cloud, folder), log or Log(cloud, job)
    with _screen(sys.stderr) as screen:
        state, since, is_hinted = None, time.monotonic(), False
        while True:
            job = jobs.get(cloud, job.name)
            if jobs.state_of(job) != state:
                waited = "" if state is None else f" after {_since(since)} {state}"
                is_again = state == "RUNNING" and jobs.is_active(job)
                state, since = jobs.state_of(job), time.monotonic()
                why = ": started again, from its newest checkpoint" if is_again else ""
                screen.say(f"job       {state}{waited}{why}")
            waits = state in ("QUEUED", "PENDING")
            if waits and not is_hinted and time.monotonic() - since > _QUEUE_HINT_SECS:
                is_hinted = True
                screen.say(
                    "job       waits for machines or for quota; Vertex AI does not say "
                    "which: see https://console.cloud.google.com/iam-admin/quotas?"
                    f"project={cloud.project}"
                )
            screen.log(log)
            if (found := files.progress()) is not None:
                screen.show(str(found), is_last=not jobs.is_active(job))
            time.sleep(cloud.patience.poll_secs)
            if not jobs.is_active(job):
                screen.log(log)  # the last lines arrive late
                break
    if state == jobs.DONE:
        cli.say(f"run       all of it lies in {folder}")
        cli.say(f"compare   python -m launch.compare --runs={folder}")
        return 0
    code, more = exit_code(job), ""
    if code == cli.EXIT_RUN_AGAIN or state == "CANCELLED":
        words = jobs.command(cloud, f"resume {jobs.id_of(job)} --follow")
        more = f"; it goes on from its newest checkpoint: {words}"
    cli.say(f"CloudError: {str(jobs.failure(job)).rstrip('.')}{more}")
    return code


def exit_code(job: Any) -> int:
    """0 for a job that succeeded, else what its container ended with, as far as known."""
    if jobs.state_of(job) == jobs.DONE:
        return 0
    found = re.search(r"non-zero status of (\d+)", job.error.message)
    code = int(found[1]) if found else cli.EXIT_FAILED
    if code in SIGNALLED:
        return cli.EXIT_RUN_AGAIN  # tried again as often as Vertex AI does
    return code if code in (cli.EXIT_FAILED, cli.EXIT_USAGE) else cli.EXIT_FAILED


def follow_until_told(
    cloud: Cloud, job: Any, *, ask: Callable[[str], str] | None = None
) -> int:
    """As `follow`; Ctrl-C asks whether to leave the job or to end it, SIGTERM leaves it."""
    if ask is None and sys.stdin.isatty():
        ask = input
    log = Log(cloud, job)
    with cli.terminated_as_interrupted():
        while True:
            try:
                return follow(cloud, job, log)
            except KeyboardInterrupt as stop:
                answer = "d"
                if ask and not isinstance(stop, cli.Terminated):
                    with contextlib.suppress(KeyboardInterrupt, EOFError):
                        answer = ask("\n[d]etach, [c]ancel the job, or go on? ")
                if answer.strip().lower().startswith("c"):
                    jobs.cancel(cloud, job)
                    cli.say("job       is being cancelled; what was saved stays")
                elif answer.strip().lower().startswith("d"):
                    words = jobs.command(cloud, f"logs {jobs.id_of(job)} --follow")
                    cli.say(f"job       goes on; follow it again: {words}")
                    return cli.EXIT_INTERRUPTED


class _Screen:
    """No terminal: lines, and now and then one about progress."""

    def __init__(self, out: Any):
        self._out, self._last, self._time = out, "", -_LINE_SECS
        self._has_log = True

    def say(self, line: str) -> None:
        """A line that stays."""
        print(line, file=self._out, flush=True)

    def show(self, text: str, *, is_last: bool) -> None:
        """How far the training is."""
        is_due = is_last or time.monotonic() - self._time >= _LINE_SECS
        if text != self._last and is_due:
            self._last, self._time = text, time.monotonic()
            self.say(f"training  {text}")

    def log(self, log: Log) -> None:
        """New lines of the job; where they may not be read, that is said once."""
        if self._has_log:
            try:
                for line in log.new_lines():
                    self.say(f"| {line}")
            except CloudError as error:
                self._has_log = False
                self.say(f"log       not shown: {error}")


class _Live(_Screen):
    """A terminal: lines above, progress in the last one."""

    def __init__(self, console: Any, status: Any):
        super().__init__(console.file)
        self._console, self._status = console, status

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    def show(self, text: str, *, is_last: bool) -> None:
        if is_last:
            self.say(f"training  {text}")
        self._status.update(text)


@contextlib.contextmanager
def _screen(out: Any) -> Iterator[Any]:
    if not out.isatty():
        yield _Screen(out)
        return
    from rich.console import Console

    console = Console(file=out)
    with console.status("waiting for the job") as status:
        yield _Live(console, status)


def _since(start: float) -> str:
    return _duration(time.monotonic() - start)


def _duration(secs: float) -> str:
    secs = round(max(secs, 0.0))
    hours, minutes = divmod(secs // 60, 60)
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {secs % 60} s"
