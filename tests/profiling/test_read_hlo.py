# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from podium.errors import ConfigError
from profiling import read_hlo

STEP = str(Path(__file__).parent.parent / "aot" / "step.hlo")


def test_a_file_gives_its_times_and_both_bounds(capsys):
    args = [STEP, "--topology=v5e-8", "--params=1e6", "--tokens=128", "--json"]
    assert read_hlo.main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fusion_secs"] == pytest.approx((5 * 1000 + 500 + 30 + 70) / 1.5e9)
    assert 0 < found["mfu_bound_6nd"] <= found["mfu_bound_6nd_async_hidden"]
    assert found["step_secs"] >= found["step_secs_async_hidden"]


def test_cores_of_a_chip_share_its_place():
    network = read_hlo.row_by_row(read_hlo.parse_slice("tpu7x-8"))
    assert len(network.places) == 8
    assert network.places[0] == network.places[1] != network.places[2]


def test_a_file_that_is_no_program_is_one_line(tmp_path):
    (tmp_path / "x").write_text("hello")
    with pytest.raises(ConfigError, match="no ENTRY"):
        read_hlo.main([str(tmp_path / "x"), "--topology=v5e-8"])
