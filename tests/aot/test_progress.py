# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import signal
import subprocess
import sys

import pytest

from podium.aot.progress import watched

# A call that looks at no signal before it is done, as a compile.
DEAF = """
import hashlib, signal
from podium import cli
from podium.aot.progress import watched

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, under some parents

def deaf():
    print("at work", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 500_000_000)

cli.run(lambda argv: watched("compiling", deaf), [])
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_signal_ends_what_answers_none(number, code):
    with subprocess.Popen(
        [sys.executable, "-c", DEAF],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stderr
        assert child.stdout.readline() == "at work\n"
        child.send_signal(number)
        assert child.wait(timeout=60) == code  # the call itself takes two minutes
        said = child.stderr.read()
    assert "Traceback" not in said
    assert ("interrupted" in said) == (number == signal.SIGINT)


def test_what_comes_back_and_what_is_raised_pass_through(capsys):
    assert watched("one", lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        watched("two", lambda: 1 // 0)
    assert "one: 0 s" in capsys.readouterr().err
