# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

from podium.trainer.progress import Progress


def test_a_line_has_the_mean_speed_since_the_line_before(capsys):
    progress = Progress(4, log_every_steps=2)
    for step, secs in enumerate((1.0, 3.0, 0.5, 1.5), 1):
        progress.step(step, 2.0, tokens=1000, secs=secs, eta_secs=0.0)
    first, second = capsys.readouterr().err.splitlines()[1:]
    assert "step 2/4  loss 2.0000  500 tokens/s" in first
    assert "step 4/4  loss 2.0000  1,000 tokens/s" in second


def test_a_reader_that_leaves_does_not_end_the_run():
    code = """
import sys
from podium.trainer.progress import Progress
progress = Progress(1000, log_every_steps=1)
for step in range(1, 1001):
    progress.step(step, 2.0, tokens=1, secs=1.0, eta_secs=0.0)
print("and a last word", file=sys.stderr)
print("trained to the end")
"""
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "compiling" in run.stderr.readline()
    run.stderr.close()
    assert run.stdout.read() == "trained to the end\n"
    assert run.wait(timeout=60) == 0
    run.stdout.close()
