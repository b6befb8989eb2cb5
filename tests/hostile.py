# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""How often a property is tried on made-up input: 10,000 cases in all."""

import datetime

import hypothesis


def cases(count: int) -> hypothesis.settings:
    """So many. Each may take a while on a busy machine, none may hang."""
    return hypothesis.settings(
        max_examples=count,
        deadline=datetime.timedelta(seconds=30),
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.function_scoped_fixture,
        ],
    )
