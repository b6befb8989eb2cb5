# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import numpy as np
import pytest

from podium.config_dict import to_json_dict
from podium.errors import ConfigError
from podium.models import transformer
from podium.models.width import Ratios
from podium.trainer import optimizer
from profiling import coordinates
from profiling.coordinates import BOUND, KINDS, Row, fit, measure, parse_widths
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")

CONFIG = dataclasses.replace(tiny.config(), data=tiny.DataConfig(seq_len=32))
NARROW, WIDE = 32, 128  # the base is the narrow one: there the schemes are the same


def rows_of(scheme: str, width: int) -> list[Row]:
    return measure(CONFIG, [width], steps=3, seeds=2, schemes=[scheme])


@pytest.fixture(scope="module")
def narrow(standard_promotion):
    return rows_of("mup", NARROW)


def powers(narrow: list[Row], scheme: str = "mup") -> dict[str, coordinates.Power]:
    first = [dataclasses.replace(row, scheme=scheme) for row in narrow]
    return {p.kind: p for p in fit([*first, *rows_of(scheme, WIDE)])}


def test_activations_keep_their_size_under_mup(narrow):
    found = powers(narrow)
    assert not [p for p in found.values() if p.is_beyond(BOUND)], found


def test_they_grow_under_the_standard_parametrisation(narrow):
    found = powers(narrow, "standard")
    assert found["logits"].change > 2 * BOUND
    assert found["residual"].change > BOUND


def test_without_the_factor_of_the_logits_it_fails(narrow, monkeypatch):
    monkeypatch.setattr(transformer, "ratios", lambda cfg: Ratios())
    assert powers(narrow)["logits"].change > 2 * BOUND


def test_without_the_factor_of_the_steps_it_fails(narrow, monkeypatch):
    monkeypatch.setattr(optimizer, "step_factor", lambda *args: 1.0)
    assert powers(narrow)["mlp"].is_beyond(BOUND)


def test_powers_are_those_of_the_values():
    rows = [
        Row("mup", width, step, kind, size=width**0.5, change=step * width**-0.3)
        for width in (64, 128, 512)
        for step in (0, 1)
        for kind in KINDS
    ]
    for power in fit(rows):
        np.testing.assert_allclose((power.size, power.change), (0.5, -0.3), rtol=1e-6)
        assert power.is_beyond(0.25)
        assert not power.is_beyond(0.6)
    broken = [dataclasses.replace(row, size=np.nan) for row in rows]
    assert fit(broken)[0].is_beyond(9.0)


def test_the_command_writes_picture_and_numbers_and_its_code_tells(
    tmp_path, monkeypatch, capsys
):
    def rows(growth: float) -> list[Row]:
        return [
            Row(scheme, width, step, kind, float(width**growth), float(step))
            for scheme in coordinates.SCHEMES
            for width in (64, 128)
            for step in (0, 1)
            for kind in KINDS
        ]

    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_json_dict(CONFIG)))
    argv = [f"--config={config}", f"--output={tmp_path}", "--json"]
    for growth, code in ((0.0, 0), (0.5, 1)):
        monkeypatch.setattr(coordinates, "measure", lambda *_, g=growth, **k: rows(g))
        assert coordinates.main(argv) == code
        shown = json.loads(capsys.readouterr().out)
        assert shown["holds"] is (code == 0)
        assert len(shown["powers"]) == 2 * len(KINDS)
    assert (tmp_path / "coordinates.png").read_bytes()[:4] == b"\x89PNG"


def test_mistakes_are_a_line_before_anything_runs():
    with pytest.raises(ConfigError, match="two or more"):
        parse_widths("64")
    with pytest.raises(ConfigError, match="use multiples of 16"):
        measure(CONFIG, [32, 100], steps=1, seeds=1)
