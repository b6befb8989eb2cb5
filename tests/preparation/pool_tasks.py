# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What test_pool.py has its workers do."""

import errno
import os
import random

from podium.errors import ConfigError


def double(task, report):
    report(task)
    return 2 * task


def refuse(task, report):
    raise ConfigError(f"no {task}")


def divide(task, report):
    return 1 / task


def full_disk(task, report):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "f")


def die(task, report):
    os.kill(os.getpid(), task)


def draw(task, report):
    return random.random()
