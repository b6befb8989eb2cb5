# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A trial tells Vertex AI how good it is: lines in the file that the service reads.

The form is that of Google's cloudml-hypertune (hypertune.py, Apache-2.0), which has had
no release since 2019: a JSON object a line, of metric, step and trial.
"""

import json
import os
import threading
import time
from pathlib import Path

from launch.sweep_local import metric_rows

_FILE = "CLOUD_ML_HP_METRIC_FILE"
TRIAL = "CLOUD_ML_TRIAL_ID"
_LOOK_SECS = 2.0


class TrialMetric:
    """While it is entered, what metrics.jsonl has of a metric is passed on, once."""

    def __init__(self, workdir: Path, metric: str | None):
        """Nothing is passed on without a metric, or outside of a trial."""
        self._workdir, self._metric = workdir, metric
        self._path = os.environ.get(_FILE)
        self._told = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="trial", daemon=True)

    def __enter__(self) -> "TrialMetric":
        if self._metric and self._path:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while not self._closed.wait(_LOOK_SECS):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        assert self._metric
        assert self._path
        rows = metric_rows(self._workdir, self._metric)
        with Path(self._path).open("a") as file:
            for step, value in rows[self._told :]:
                line = {
                    "timestamp": time.time(),
                    "trial": os.environ.get(TRIAL, "0"),
                    self._metric: str(value),
                    "global_step": str(step),
                    "checkpoint_path": "",
                }
                file.write(json.dumps(line, sort_keys=True) + "\n")
        self._told = len(rows)
