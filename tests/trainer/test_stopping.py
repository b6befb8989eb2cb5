# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import signal
import subprocess
import sys

from podium.trainer.stopping import Stopping


def test_a_signal_counts_from_the_next_step_on():
    """One that came during an evaluation ended the run before the step was saved: what
    is due after a step was decided before the signal, the end of the run after it."""
    said = []
    with Stopping(said.append) as stopping:
        assert not stopping.reached(1)
        signal.raise_signal(signal.SIGTERM)
        assert stopping.signal is None  # what is due after step 1 stands
        assert stopping.reached(2)
        assert stopping.signal == signal.SIGTERM
    assert "SIGTERM: saving after this step" in said[0]


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Stopping(print):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


TWICE = """
import signal, time
from podium.trainer.stopping import Stopping
with Stopping(print):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)  # the same one, by way of uv
    print("saving", flush=True)
    time.sleep(0.5)
    signal.raise_signal(signal.SIGTERM)
    print("still here")
"""


def test_a_second_signal_leaves_at_once():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert "saving" in done.stdout
    assert "still here" not in done.stdout
