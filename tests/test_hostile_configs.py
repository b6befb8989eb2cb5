# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever a config says, it becomes a TrainConfig that means it, or a PodiumError."""

import copy
import dataclasses
import json
import math
import pathlib
import re
import typing

import hypothesis
import pytest
from beartype.door import is_bearable
from hypothesis import strategies as st

from podium import cli, resume
from podium.config import TrainConfig
from podium.config_dict import (
    describe,
    from_config_dict,
    from_json_dict,
    to_config_dict,
    to_json_dict,
)
from podium.config_override import override_all
from podium.errors import PodiumError
from podium.input.manifest import TokenizerInfo
from tests.hostile import cases

TREE = to_json_dict(TrainConfig())
KEYS = sorted(row[0] for row in describe(TrainConfig))
KINDS = sorted(
    {
        kind
        for row in describe(TrainConfig)
        for kind in row[1].split("|")
        if "|" in row[1]
    }
)

# Values that have broken parsers, beside whatever hypothesis thinks of.
NASTY_TEXT = [
    *(
        "",
        " ",
        "None",
        "true",
        "1e999",
        "-1e999",
        "nan",
        "1_0",
        "0x10",
        "1j",
        "()",
        "(,",
    ),
    *(
        "[]",
        "{}",
        "[1, 2",
        "a,b",
        "'",
        '"',
        "\\",
        "\0",
        "²:³",
        "١:٢",
        "1:2",
        "--",
        "=",
        ".",
    ),
    *("1" * 400, "9" * 5000, "(" * 300, "[" * 3000 + "]" * 3000, "lambda: 1"),
    *(
        "-" * 3000 + "1",
        "{[]: 1}",
        "0x" + "f" * 5000,
        "__import__('os')",
        "'a' 'b'",
        "1 if 2 else 3",
        "b'x'",
        "1is 2",
        "\udcff",
        "é\n",
    ),
]
NASTY_JSON = [
    0,
    -1,
    2**63,
    -(2**63),
    10**400,
    1e308,
    -0.0,
    math.inf,
    math.nan,
    True,
    "",
]
TEXT = st.sampled_from(NASTY_TEXT) | st.text(max_size=8) | st.sampled_from(KINDS)
NUMBER = st.integers() | st.integers(-3, 64) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT | st.sampled_from(NASTY_JSON),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "x"]) | TEXT, inner, max_size=3)
    ),
    max_leaves=5,
)


def outcome(make):
    """What `make` returns, or None where it refuses in one line."""
    try:
        return make()
    except PodiumError:
        return None


def assert_means_what_it_says(cfg):
    """Every value has its type and lies in its range; nothing is lost on the way out."""
    hints = typing.get_type_hints(type(cfg))
    for field in dataclasses.fields(cfg):
        value, ends = getattr(cfg, field.name), field.metadata
        if dataclasses.is_dataclass(value):
            assert_means_what_it_says(value)
            continue
        assert is_bearable(value, hints[field.name]), (field.name, value)
        assert isinstance(value, bool) <= (hints[field.name] is bool)
        if isinstance(value, int | float):
            assert math.isfinite(value)
            assert ends.get("low") is None or value >= ends["low"]
            assert ends.get("high") is None or value <= ends["high"]
            assert ends.get("above") is None or value > ends["above"]
            assert ends.get("below") is None or value < ends["below"]
    if isinstance(cfg, TrainConfig):
        assert from_config_dict(TrainConfig, to_config_dict(cfg)) == cfg
        assert (
            from_json_dict(TrainConfig, json.loads(json.dumps(to_json_dict(cfg))))
            == cfg
        )


def overridden(overrides):
    tree = copy.deepcopy(TREE)
    override_all(TrainConfig, tree, overrides)
    return from_config_dict(TrainConfig, tree)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("seed", "1" * 400),
        ("seed", "0x" + "f" * 5000),
        ("optim.peak_lr", "1" * 400),
        ("model.tie_embeddings", "0x" + "f" * 5000),
        ("num_steps", "{[]: 1}"),
        ("num_steps", "-" * 3000 + "1"),
        ("profile.steps", "²:³"),
        ("profile.steps", "1:" + "9" * 5000),
    ],
)
def test_what_once_was_a_traceback_is_one_short_line(key, text):
    with pytest.raises(PodiumError) as caught:
        overridden({key: text})
    assert str(caught.value).startswith(key)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", [[], {}, 5, ["adamw"]])
def test_a_kind_that_is_no_name_is_refused(kind):
    tree = copy.deepcopy(TREE)
    tree["optim"]["optimizer"]["kind"] = kind
    with pytest.raises(PodiumError, match=r"optim.optimizer.kind is .*expected one of"):
        from_json_dict(TrainConfig, tree)


KEY = (
    st.sampled_from(KEYS)
    | st.builds(
        ".".join, st.lists(st.sampled_from(["model", "kind", "", "a"]), max_size=4)
    )
    | st.builds(
        lambda a, b: a + b, st.sampled_from(KEYS), st.sampled_from([".kind", ".", "x"])
    )
    | st.text(max_size=6)
)


@hypothesis.given(st.dictionaries(KEY, TEXT | NUMBER.map(str), min_size=1, max_size=3))
@cases(1200)
def test_any_override_is_taken_at_its_word_or_refused(overrides):
    cfg = outcome(lambda: overridden(overrides))
    if cfg is None:
        return
    assert_means_what_it_says(cfg)
    rows = dict(resume_rows(to_json_dict(cfg)))
    for key, text in overrides.items():
        if key in rows and isinstance(rows[key], str):
            assert rows[key] == text


def resume_rows(tree, path=""):
    """(dotted key, value) of every setting."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from resume_rows(value, f"{path}{key}.")
        else:
            yield path + key, value


@hypothesis.given(st.data())
@cases(1500)
def test_any_value_anywhere_in_a_config_is_taken_at_its_word_or_refused(data):
    tree = copy.deepcopy(TREE)
    changed = []
    for _ in range(data.draw(st.integers(1, 2))):
        at, path = tree, ""
        while True:
            if not at:
                break
            key = data.draw(st.sampled_from(sorted(at)))
            is_inner = isinstance(at[key], dict) and data.draw(st.integers(0, 9)) > 0
            path = f"{path}.{key}" if path else key
            if is_inner:
                at = at[key]
                continue
            how = data.draw(st.sampled_from(["set", "set", "set", "delete", "add"]))
            if how == "set":
                at[key] = data.draw(JSON)
                changed.append((path, at[key]))
            elif how == "delete":  # then it has its default, and all inside it
                del at[key]
                changed.clear()
            else:
                at[data.draw(TEXT)] = data.draw(JSON)
            break
    cfg = outcome(lambda: from_json_dict(TrainConfig, tree))
    if cfg is not None:
        assert_means_what_it_says(cfg)
        rows = dict(resume_rows(to_json_dict(cfg)))
        for path, value in changed[-1:]:
            if not isinstance(value, dict):  # what a group lacks is its default
                assert rows[path] == value


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("config") / "config.json"


@hypothesis.given(st.data())
@cases(500)
def test_any_bytes_of_a_config_json_are_a_config_or_refused(file, data):
    raw = bytearray(json.dumps(TREE).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        removed = data.draw(st.integers(0, 9) | st.just(len(raw)))
        raw[at : at + removed] = data.draw(st.binary(max_size=6))
    file.write_bytes(bytes(raw))
    cfg = outcome(lambda: cli.load_config(str(file)))
    if cfg is not None:
        assert_means_what_it_says(cfg)
    outcome(lambda: resume.load_run(file.parent))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"model": ' * 100_000, '{"model": 5}', "{", '"model"', "5"]
)
def test_a_config_json_of_another_shape_is_refused_in_one_line(file, text):
    file.write_text(text)
    with pytest.raises(PodiumError):
        cli.load_config(str(file), {"model.num_layers": "2"})
    with pytest.raises(PodiumError):
        resume.load_run(file.parent)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    resume.write_config(folder, TrainConfig(), ["aa"])
    return folder


@hypothesis.given(st.data())
@cases(300)
def test_any_data_json_of_a_run_is_read_or_refused(workdir, data):
    tree = {
        "paths": ["gold"],
        "fingerprints": ["aa"],
        "tokenizer": {
            "kind": "bytes",
            "vocab_size": 257,
            "sha256": "bb",
            "file": None,
            "bos_id": None,
            "eos_id": 256,
        },
    }
    at = tree if data.draw(st.booleans()) else tree["tokenizer"]
    key = data.draw(st.sampled_from(sorted(at)) | TEXT)
    if data.draw(st.integers(0, 4)):
        at[key] = data.draw(JSON)
    else:
        at.pop(key, None)
    (workdir / "data.json").write_text(json.dumps(tree))
    info = TokenizerInfo(
        kind="bytes", vocab_size=9, sha256="cc", file=None, bos_id=None, eos_id=1
    )
    saved = outcome(lambda: resume.saved_data(workdir))
    assert saved is None or json.dumps(saved) == json.dumps(tree)
    outcome(lambda: resume.check_fingerprints(workdir, ["gold"], ["bb"]))
    outcome(lambda: resume.check_tokenizer(workdir, "gold", info))
    outcome(lambda: resume.load_run(workdir))


def test_ten_thousand_cases_are_made_up_in_all():
    tests = pathlib.Path(__file__).parent.rglob("test_*.py")
    found = re.findall(
        r"^@cases\((\d+)\)", "".join(map(pathlib.Path.read_text, tests)), re.M
    )
    assert sum(map(int, found)) >= 10_000
