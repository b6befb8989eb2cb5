# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import ast
import dataclasses
import json
import pathlib
import typing

import pytest

from podium import cli, config
from podium.config import TrainConfig
from podium.config_dict import (
    describe,
    from_config_dict,
    from_json_dict,
    parts_of,
    to_config_dict,
    to_json_dict,
)
from podium.errors import ConfigError

BASE = "configs/base.py"


def load(**overrides: str) -> TrainConfig:
    return cli.load_config(
        BASE, {k.replace("__", "."): v for k, v in overrides.items()}
    )


def test_config_survives_the_round_trip_through_config_dict_and_json():
    cfg = load(model__norm__kind="layernorm", sample__prompt="x", data__paths="a,b")
    assert from_config_dict(TrainConfig, to_config_dict(cfg)) == cfg
    assert from_json_dict(TrainConfig, json.loads(json.dumps(to_json_dict(cfg)))) == cfg


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("optim.peek_lr", "1", "key 'optim.peek_lr'. Did you mean 'optim.peak_lr'?"),
        ("modle.norm.eps", "1", "unknown config key 'modle'. Did you mean 'model'?"),
        ("num_steps", "many", "num_steps is 'many' (str); expected int"),
        ("num_steps", "1.5", "num_steps is 1.5 (float); expected int"),
        ("num_steps", "True", "num_steps is True (bool); expected int"),
        ("num_steps", "None", "num_steps is None; expected int"),
        ("num_steps", "0", "num_steps is 0; expected a number from 1"),
        ("optim.peak_lr", "-1", "optim.peak_lr is -1.0; expected a number from 0.0"),
        ("optim.peak_lr", "1e999", "optim.peak_lr is inf; expected a number from 0.0"),
        ("model.tie_embeddings", "1", "model.tie_embeddings is 1 (int); expected bool"),
        ("model.mlp.kind", "swigl", "Did you mean 'swiglu'?"),
        ("model.norm.kind", "batchnorm", "expected one of 'rmsnorm', 'layernorm'"),
        ("model.norm", "rmsnorm", "model.norm is a group of settings"),
        ("num_steps.more", "1", "num_steps is a single value"),
        ("model.attention.num_kv_heads", "4", "must divide num_heads (6)"),
        ("model.attention.pattern", "local", "local layers need a window"),
        ("model.attention.head_dim", "63", "must be even under RoPE"),
        ("mesh.fsdp", "0", "mesh.fsdp is 0; use 1, or -1"),
        ("mesh.data", "-1", "more than one axis is -1"),
        ("grad_accum_steps", "3", "must be a multiple of grad_accum_steps (3)"),
        ("data.weights", "1,2", "give one weight per path"),
        ("profile.steps", "5", "expected e.g. '10:15'"),
        ("optim.schedule.warmup_steps", "1000", "must be below num_steps (1000)"),
        ("sharding.embed", "fsdq", "'context', 'tensor'. Did you mean 'fsdp'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_key(key, text, message):
    with pytest.raises(ConfigError) as error:
        cli.load_config(BASE, {key: text})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides_reach_every_type():
    cfg = load(
        num_steps="2e3",
        model__attention__soft_cap="50",
        model__tie_embeddings="false",
        data__paths="('a', 'b')",
        data__weights="0.25,0.75",
        eval="None",
        optim__clip_norm="None",
        optim__optimizer__kind="muon",
        optim__optimizer__beta="0.9",
        profile__steps="2:4",
    )
    assert cfg.num_steps == 2000
    assert cfg.model.attention.soft_cap == 50.0
    assert cfg.model.tie_embeddings is False
    assert cfg.data.paths == ("a", "b")
    assert cfg.data.weights == (0.25, 0.75)
    assert cfg.eval is None
    assert cfg.optim.clip_norm is None
    assert cfg.optim.optimizer == config.MuonConfig(beta=0.9)
    assert cfg.profile.window() == range(2, 4)


def test_none_where_it_has_no_meaning_is_refused():
    tree = to_config_dict(TrainConfig()).to_dict()
    tree["model"]["vocab_size"] = None
    with pytest.raises(ConfigError, match=r"model\.vocab_size is None; expected int"):
        from_config_dict(TrainConfig, tree)


def test_a_missing_key_is_named():
    tree = to_config_dict(TrainConfig()).to_dict()
    del tree["optim"]["peak_lr"]
    with pytest.raises(ConfigError, match=r"missing config keys optim\.peak_lr"):
        from_config_dict(TrainConfig, tree)


def test_a_misspelt_line_in_a_config_file_raises_there():
    cfg = to_config_dict(TrainConfig())
    with pytest.raises(AttributeError, match="peek_lr"):
        cfg.optim.peek_lr = 1.0


def test_a_broken_config_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match=r"bad.py:2: ZeroDivisionError"):
        cli.load_config(str(path))


def test_describe_lists_every_setting_with_help():
    rows = describe(TrainConfig)
    names = [row[0] for row in rows]
    assert "model.attention.window_tokens" in names
    assert "optim.optimizer.ns_steps" in names
    undocumented = [r[0] for r in rows if not r[4] and not r[0].endswith(".kind")]
    assert not undocumented


def all_fields(cls) -> set[str]:
    found = set()
    for f in dataclasses.fields(cls):
        found.add(f.name)
        for part in parts_of(typing.get_type_hints(cls)[f.name]):
            found |= all_fields(part)
    return found


def test_every_setting_is_read_by_some_line_of_the_library():
    read = set()
    for path in pathlib.Path("src/podium").rglob("*.py"):
        if path.name == "config.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    # The fields of these two are read by name, as a table.
    tables = all_fields(config.MeshConfig) | all_fields(config.ShardingConfig)
    # A part's kind chooses its class; ProfileConfig reads its own `steps`, as
    # ModelConfig does `vocab_multiple`.
    own = {"kind", "steps", "vocab_multiple"}
    assert not all_fields(TrainConfig) - read - tables - own


def test_every_config_file_loads():
    for path in sorted(pathlib.Path("configs").glob("*.py")):
        if "def get_config" in path.read_text():
            assert isinstance(cli.load_config(str(path)), TrainConfig)
