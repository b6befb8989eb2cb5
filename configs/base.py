# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Every setting at its default; the other files here are diffs against it."""

from podium.config import TrainConfig
from podium.config_dict import to_config_dict


def get_config():
    return to_config_dict(TrainConfig())
