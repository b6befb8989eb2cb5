# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import ast
import dataclasses
import json
import pathlib
import re
import signal
import sys
import typing

import pytest

from podium import cli, config, resume
from podium.config import TrainConfig
from podium.config_dict import (
    describe,
    from_config_dict,
    from_json_dict,
    parts_of,
    to_config_dict,
    to_json_dict,
)
from podium.errors import CheckpointError, ConfigError, at_work

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
        ("peak_lr", "1", "key 'peak_lr'. Did you mean 'optim.peak_lr'?"),
        ("lr", "1", "key 'lr'. Did you mean 'optim.peak_lr'?"),
        ("learning_rate", "1", "Did you mean 'optim.peak_lr'?"),
        ("batch_size", "1", "Did you mean 'global_batch_seqs'?"),
        ("mesh.pipeline", "4", "'model.pipeline'? Beside it are mesh.stage, mesh.data"),
        ("model.heads", "1", "Did you mean 'model.attention.num_heads'?"),
        ("optim.optimizer.beta", "1", "it goes with optim.optimizer.kind=muon"),
        ("model.xyzzy", "1", "Known here: model.vocab_size, model.vocab_multiple"),
        ("data.paths", "None", "data.paths is None; expected (str, ...), or () for"),
        ("model.tie_embeddings", "yes", "'yes' (str); expected true or false"),
        ("num_steps", "20", "add --config.optim.schedule.warmup_steps=2"),
        ("modle.norm.eps", "1", "unknown config key 'modle'. Did you mean 'model'?"),
        ("num_steps", "many", "num_steps is 'many' (str); expected a whole number"),
        ("num_steps", "1.5", "num_steps is 1.5 (float); expected a whole number"),
        ("num_steps", "True", "num_steps is True (bool); expected a whole number"),
        ("num_steps", "None", "num_steps is None; expected a whole number"),
        ("num_steps", "0", "num_steps is 0; expected a number from 1"),
        ("optim.peak_lr", "-1", "optim.peak_lr is -1.0; expected a number from 0.0"),
        ("optim.peak_lr", "1e999", "optim.peak_lr is inf; expected a number from 0.0"),
        ("model.tie_embeddings", "1", "tie_embeddings is 1 (int); expected true or false"),
        ("model.mlp.kind", "swigl", "Did you mean 'swiglu'?"),
        ("model.norm.kind", "batchnorm", "expected one of 'rmsnorm', 'layernorm'"),
        ("model.norm", "rmsnorm", "model.norm is a group of settings"),
        ("watchdog", "off", "watchdog.min_secs=, or None to leave it out"),
        ("faults.verify_every_steps", "0", "expected a number from 1, or None (off)"),
        ("eval.every_steps", "None", "to leave eval out, set --config.eval=None"),
        ("num_steps.more", "1", "num_steps is a single value"),
        ("model.attention.num_kv_heads", "4", "must divide num_heads (6)"),
        ("model.attention.pattern", "local", "local layers need a window"),
        ("model.attention.head_dim", "63", "must be even under RoPE"),
        ("mesh.fsdp", "0", "mesh.fsdp is 0; use 1, or -1"),
        ("mesh.data", "-1", "are both -1, what is left"),
        ("grad_accum_steps", "3", "must be a multiple of grad_accum_steps (3)"),
        ("data.weights", "1,2", "give one weight per path"),
        ("profile.steps", "5", "expected e.g. '10:15'"),
        ("profile.steps", "1001:1005", "the run has steps 1 to 1000"),
        ("profile.steps", "0:1", "nothing would be traced"),
        ("optim.clip_norm", "0", "expected a number above 0.0"),
        ("optim.ema_decay", "1", "ema_decay is 1.0; expected a number from 0, below 1"),
        ("optim.optimizer.b1", "1.0", "expected a number from 0.0, below 1.0"),
        ("optim.optimizer.b2", "1", "expected a number from 0.0, below 1.0"),
        ("sample.top_p", "0", "expected a number above 0.0, at most 1.0"),
        ("optim.peak_lr", "high", "'high' (str); expected a number"),
        ("optim.schedule.warmup_steps", "1000", "must be below num_steps (1000)"),
        ("sharding.embed", "fsdq", "'context', 'tensor'. Did you mean 'fsdp'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_key(key, text, message):
    with pytest.raises(ConfigError) as error:
        cli.load_config(BASE, {key: text})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ({"optim.optimizer.kind": "muon"}, "optim.optimizer.beta"),
        ({"optim.optimizer.kind": "adafactor"}, "optim.optimizer.decay_rate"),
        ({"optim.optimizer.kind": "lion"}, "optim.optimizer.b2"),
    ],
)
def test_an_average_that_takes_nothing_new_is_refused(kind, key):
    with pytest.raises(ConfigError, match=rf"{key} is 1.0; expected .* below 1\.0"):
        cli.load_config(BASE, {**kind, key: "1.0"})


def test_an_expert_has_some_room():
    moe = {"model.mlp.kind": "moe", "model.mlp.dispatch.kind": "capacity"}
    with pytest.raises(ConfigError, match=r"factor is 0\.0; expected a number above 0"):
        cli.load_config(BASE, {**moe, "model.mlp.dispatch.factor": "0"})


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


def test_a_kind_is_set_before_its_settings_whatever_their_order():
    either = load(optim__optimizer__beta="0.9", optim__optimizer__kind="muon")
    assert either.optim.optimizer == config.MuonConfig(beta=0.9)
    with pytest.raises(ConfigError, match=r"goes with optim\.optimizer\.kind=muon"):
        load(optim__optimizer__beta="0.9", optim__optimizer__kind="lion")


def test_none_where_it_has_no_meaning_is_refused():
    tree = to_config_dict(TrainConfig()).to_dict()
    tree["model"]["vocab_size"] = None
    with pytest.raises(
        ConfigError, match=r"model\.vocab_size is None; expected a whole number"
    ):
        from_config_dict(TrainConfig, tree)


def test_a_missing_key_is_named():
    tree = to_config_dict(TrainConfig()).to_dict()
    del tree["optim"]["peak_lr"]
    with pytest.raises(ConfigError, match=r"missing config keys optim\.peak_lr"):
        from_config_dict(TrainConfig, tree)


def test_a_run_saved_before_a_setting_existed_has_its_default_and_goes_on(tmp_path):
    path = "tests/golden/config_before_tracking.json"
    saved = json.loads(pathlib.Path(path).read_text())
    cfg = cli.load_config(path)
    news = resume.differences(saved, to_json_dict(cfg))
    assert "eval.max_groups" in [key for key, _, _ in news]
    assert all(old is None for _, old, _ in news)
    assert cfg.eval.max_groups == TrainConfig().eval.max_groups

    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    del saved["model"]["init_std"]  # as if it were new; no run goes on with another
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(CheckpointError, match="every checkpoint"):  # it is looked at
        resume.step_to_resume(tmp_path, cfg)
    other = dataclasses.replace(cfg, eval=dataclasses.replace(cfg.eval, max_groups=3))
    other = dataclasses.replace(other, seed=cfg.seed + 1)
    with pytest.raises(ConfigError, match="seed: saved"):
        resume.step_to_resume(tmp_path, other)


def test_a_misspelt_line_in_a_config_file_raises_there():
    cfg = to_config_dict(TrainConfig())
    with pytest.raises(AttributeError, match="peek_lr"):
        cfg.optim.peek_lr = 1.0


def test_a_broken_config_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match=r"bad.py:2: ZeroDivisionError"):
        cli.load_config(str(path))


IN_FILE = """from podium.config import *; from podium.config_model import *
from podium.config_dict import to_config_dict
def get_config():
    cfg = to_config_dict(TrainConfig())
    {}
    return cfg
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cfg.optim.peek_lr = 6e-4", "key 'optim.peek_lr'. Did you mean 'optim.peak_lr'?"),
        ("cfg.optm.peak_lr = 6e-4", "unknown config key 'optm'. Did you mean 'optim'?"),
        ("m = cfg.model; m.num_layrs = 3", "Did you mean 'model.num_layers'?"),
        ("cfg['num_stepz'] = 3", "Did you mean 'num_steps'?"),
        ("cfg.num_steps = 'ten'", "num_steps is 'ten' (str); expected a whole number"),
        ("cfg.data.paths = 'gold'", "data.paths is 'gold' (str); expected (str, ...)"),
        ("cfg.model = ModelConfig(num_layrs=3)", "Did you mean 'model.num_layers'?"),
        ("cfg.model = ModelConfig(norm=RMSNormConfig(epz=1))", "'model.norm.eps'?"),
        ("return TrainConfig(peak_lr=1)", "'peak_lr'. Did you mean 'optim.peak_lr'?"),
        ("cfg.model = = 3", "SyntaxError: invalid syntax"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_config_file_is_said_as_on_the_command_line(
    tmp_path, line, message
):
    path = tmp_path / "mine.py"
    path.write_text(IN_FILE.format(line))
    with pytest.raises(ConfigError) as error:
        cli.load_config(str(path))
    assert message in str(error.value)
    assert len(str(error.value)) < 300
    assert str(error.value).startswith(f"{path}:5: ")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "def get_config(): pass", "get_config() returned NoneType"),
        ("a.py", "x = 1", "a.py: has no get_config()"),
        ("README.md", "# Hello", "README.md is no config file"),
        ("a.json", "{", "a.json: not valid JSON"),
        ("data.json", "{}", "data.json holds no settings"),
        ("folder/b.py", "", "is a folder; expected a Python file"),
    ],
)
def test_what_is_no_config_file_is_one_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        cli.load_config(str(path if "/" not in name else path.parent))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_get_config_may_return_a_train_config_and_a_run_may_be_repeated(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text(
        "from podium.config import TrainConfig\n"
        "def get_config(): return TrainConfig(seed=3)\n"
    )
    assert cli.load_config(str(path)) == TrainConfig(seed=3)
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps(to_json_dict(TrainConfig(seed=3))))
    assert cli.load_config(str(saved), {"seed": "4"}) == TrainConfig(seed=4)


def test_a_config_path_that_is_not_there_lists_few_names_the_nearest_first(tmp_path):
    for i in range(20):
        (tmp_path / f"config_{i:02}.py").touch()
    with pytest.raises(ConfigError, match=r"There: \S+config_17.py") as error:
        cli.load_config(str(tmp_path / "konfig_17.py"))
    assert str(error.value).count(".py") == 1 + 5
    assert str(error.value).endswith("…")


def outcome(main, *argv, **kwargs):
    with pytest.raises(SystemExit) as stop:
        cli.run(main, argv, **kwargs)
    return stop.value.code


def fails_with(error):
    def main(argv):
        raise error

    return main


@pytest.fixture
def sigint():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_and_a_full_machine_are_one_line(capsys, sigint):
    assert outcome(fails_with(KeyboardInterrupt())) == 130
    assert outcome(fails_with(KeyboardInterrupt()), can_continue=True) == 75
    assert "the same command continues" in capsys.readouterr().err
    full = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")
    assert outcome(fails_with(full)) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("OutOfMemory: Out of memory allocating 9 bytes. Lower")
    # As a write says it: without the file's name.
    assert outcome(fails_with(OSError(28, "No space left on device"))) == 1
    shown = capsys.readouterr().err
    assert shown == (
        "DiskFull: No space left on device; make room and run the same again\n"
    )
    assert shown.count("\n") == 1
    assert outcome(fails_with(PermissionError(13, "Permission denied", "/x"))) == 1
    assert capsys.readouterr().err == "PermissionError: /x: Permission denied\n"
    assert outcome(fails_with(ZeroDivisionError())) == 1  # ours: with its traceback
    assert "Traceback" in capsys.readouterr().err


def test_an_error_exits_with_1_once_work_has_begun():
    def main(argv):
        with at_work():
            raise ConfigError("late")

    assert outcome(fails_with(ConfigError("early"))) == 2
    assert outcome(main) == 1


def test_a_flag_is_answered_by_its_own_mistake(capsys):
    parser = cli.Parser(prog="x")
    parser.add_argument("--prompt", required=True)
    cli.add_config(parser)
    for argv, message in (
        (["--promt=x"], "unknown argument '--promt=x'; did you mean --prompt?"),
        (["--config.num_steps", "100"], "write --config.num_steps=100"),
        (["--config.num_steps"], "write --config.num_steps=VALUE"),
        (["--num_steps=5"], "did you mean --config.num_steps=5?"),
        (["--peak_lr=1"], "did you mean --config.optim.peak_lr=1?"),
        (
            ["--every_steps=5"],
            "checkpoint.every_steps=5 or --config.eval.every_steps=5?",
        ),
        (["--model.num_layers=1"], "did you mean --config.model.num_layers=1?"),
    ):
        with pytest.raises(SystemExit) as stop:
            parser.parse_known_args(argv)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_the_settings_fit_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    cli.print_settings()
    shown = capsys.readouterr().out
    assert "…" not in shown
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in shown.splitlines()]
    assert max(map(len, lines)) <= 120
    assert "optim.schedule.end_lr_ratio" in shown
    assert "0.0 to 1.0" in shown


def test_on_80_columns_a_setting_has_its_meaning_below_it(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    cli.print_settings()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 2.5 * len(describe(TrainConfig))
    at = lines.index("optim.ema_decay: float or None = None  (from 0, below 1)")
    assert lines[at + 1].startswith("    keep an average of the weights")
    assert max(len(line) for line in lines if line.startswith(" ")) <= 80


def test_describe_lists_every_setting_with_help():
    rows = describe(TrainConfig)
    names = [row[0] for row in rows]
    assert "model.attention.window_tokens" in names
    assert "optim.optimizer.ns_steps" in names
    undocumented = [r[0] for r in rows if not r[-1] and not r[0].endswith(".kind")]
    assert not undocumented


def all_fields(cls) -> set[str]:
    found = set()
    for f in dataclasses.fields(cls):
        found.add(f.name)
        for part in parts_of(typing.get_type_hints(cls)[f.name]):
            found |= all_fields(part)
    return found


CONFIGS = ("config.py", "config_launch.py", "config_model.py", "config_tracking.py")


def test_every_setting_is_read_by_some_line_of_the_library():
    read = set()
    paths = [
        *pathlib.Path("src/podium").rglob("*.py"),
        *pathlib.Path("launch").glob("*.py"),
    ]
    for path in paths:
        if path.name in CONFIGS:
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
