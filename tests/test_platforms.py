# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import glob
import importlib.util
import os

import pytest

from podium import cli

VARIABLES = ("JAX_PLATFORMS", "JAX_FORCE_TPU_INIT", "TPU_NAME", "TPU_WORKER_HOSTNAMES")


@pytest.mark.parametrize(
    ("installed", "devices", "chosen", "want"),
    [
        (["libtpu"], [], None, "cpu"),
        ([], [], None, None),
        (["libtpu"], ["/dev/accel0"], None, None),
        (["libtpu"], ["/dev/vfio/0"], None, None),
        (["libtpu", "jax_plugins"], [], None, None),
        (["libtpu"], [], "tpu", "tpu"),
    ],
)
def test_libtpu_is_asked_for_chips_only_where_there_may_be_some(
    monkeypatch, installed, devices, chosen, want
):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv("JAX_PLATFORMS", chosen)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name in installed else None
    )
    monkeypatch.setattr(
        glob, "glob", lambda pattern: [d for d in devices if d[:8] == pattern[:8]]
    )
    seen = []
    with pytest.raises(SystemExit):
        cli.run(lambda argv: seen.append(os.environ.get("JAX_PLATFORMS")), [])
    assert seen == [want]
