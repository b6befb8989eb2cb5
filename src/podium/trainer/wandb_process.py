# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The process that holds `wandb`: a line of JSON in, a line out, on standard streams.

The steps that wandb counts only ever grow, while a run that goes on from a checkpoint does
steps again: ours are a metric, `step`, that the curves are drawn over. Data sets and
checkpoints are artifacts of one small file that says where they lie; no bytes of theirs
are sent. `python -m podium.trainer.wandb_process check` exits 0 where a key is known.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

_EXIT_CODES = {"RUNNING": 0, "COMPLETE": 0, "FAILED": 1, "CANCELLED": 75}
_FINISH_SECS = 60.0  # then what is left stays in D/wandb, for `wandb sync`
_LAST_SECS = 90.0  # to live, from when nobody speaks to it any more


class Wandb:
    """One run."""

    def __init__(self) -> None:
        self._run: Any = None
        self._about: dict[str, Any] = {}

    def open(self, project: str, entity: str | None, about: dict[str, Any]) -> None:
        """Begins the run, or goes on with it; its config and inputs."""
        import wandb

        self._about = about
        self._run = wandb.init(
            project=project,
            entity=entity,
            id=about["run"],
            name=about["run"],
            resume="allow",
            dir=about["workdir"],
            settings=wandb.Settings(
                console="off",
                silent=True,
                save_code=False,
                disable_code=True,
                disable_git=True,  # of this folder, which may be any
                git_commit=about["commit"].removesuffix("-dirty") or None,
                finish_timeout=_FINISH_SECS,
                finish_timeout_raises=True,
            ),
        )
        came = {"podium_commit": about["commit"], "podium_data": dict(about["data"])}
        config = {**about["params"], **came}
        self._run.config.update(config, allow_val_change=True)
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        if self._run.offline:  # a use is looked up in the service
            return
        # Curves must not wait for it, and `podium_data` says the same.
        try:
            for path, fingerprint in about["data"]:
                what = {"uri": path, "fingerprint": fingerprint}
                made = _artifact(f"data-{fingerprint[:32]}", "dataset", what)
                self._run.use_artifact(made)
        except Exception:  # whatever a service or its library does
            traceback.print_exc()  # to process.log

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Rows of metrics.jsonl, each as it is."""
        for row in rows:
            self._run.log({k: v for k, v in row.items() if v is not None})

    def close(self, state: str, summary: dict[str, float], steps: list[int]) -> None:
        """Figures, checkpoints, and the run's end. Raises TimeoutError."""
        for step in steps:
            what = {
                "uri": f"{self._about['checkpoints']}/{step}",
                "step": step,
                "format": "orbax",
            }
            made = _artifact(f"checkpoint-{self._about['run']}", "model", what)
            self._run.log_artifact(made, aliases=[f"step-{step}", "latest"])
        self._run.summary.update(summary)
        if state == "CANCELLED":
            self._run.mark_preempting()  # shown as such, not as a crash
        run, self._run = self._run, None
        run.finish(exit_code=_EXIT_CODES[state])

    def leave(self) -> None:
        """Nobody said how the run ended: the trainer was killed, or in a hurry."""
        if self._run is not None:
            self._run.finish(exit_code=1)


def _artifact(name: str, kind: str, what: dict[str, Any]) -> Any:
    import wandb

    made = wandb.Artifact(name, type=kind, metadata=what)
    with made.new_file("podium.json") as file:  # by its bytes W&B tells versions
        json.dump(what, file)
    return made


def main(argv: Sequence[str]) -> int:
    """Answers until its standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what wandb prints is no answer
    if argv == ["check"]:
        import wandb

        is_online = wandb.setup().settings.mode not in ("offline", "disabled")
        return int(is_online and not wandb.login(prompt=False, verify=False))
    run = Wandb()
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            getattr(run, asked.pop("do"))(**asked)
        except Exception as error:  # whatever a service or its library does
            what = " ".join(str(error).split())[:300]
            answer = {"error": f"{type(error).__name__}: {what}"}
        try:
            print(json.dumps(answer), file=answers, flush=True)
        except BrokenPipeError:
            break
    last = threading.Timer(_LAST_SECS, os._exit, [1])  # wandb may wait for ever
    last.daemon = True
    last.start()
    run.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
