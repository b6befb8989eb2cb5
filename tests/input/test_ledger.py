# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import subprocess
import sys

import pytest

from podium import cli, data_ledger, resume
from podium.config import DataConfig, TrainConfig
from podium.config_dict import to_json_dict
from podium.errors import ConfigError
from podium.input.ledger import documents_of_step
from podium.input.loader import Loader
from podium.input.spec import StreamSpec


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_every_entry_names_the_tokens_that_stand_in_the_batch(gold, documents, packing):
    train = [documents(k, 40, 30) for k in range(2)]
    folders = [gold(t) for t in train]
    data = DataConfig(paths=tuple(map(str, folders)), seq_len=16, packing=packing)
    entries = documents_of_step(data, seed=4, global_batch_seqs=6, step=123)
    spec = StreamSpec(
        data=data, split="train", seed=4, global_batch_seqs=6, rows=range(6)
    )
    tokens, _, segments, _ = Loader(spec).read(123)
    assert {e.dataset for e in entries} == set(data.paths)
    assert sum(e.length for e in entries) == (segments > 0).sum()
    for e in entries:
        k = data.paths.index(e.dataset)
        shard = int(e.shard.split("-")[1])
        document = train[k][shard * 20 + e.record]  # 40 documents in 2 shards
        seen = tokens[e.row, e.column : e.column + e.length].tolist()
        assert seen == document[e.start : e.start + e.length]
        # conftest: the first half of a shard comes from a.txt, the rest from b.txt
        half = e.record >= 10
        assert e.source.endswith("b.txt" if half else "a.txt")
        assert e.item == (e.record if not half else e.record - 10 + 10)


@pytest.fixture
def workdir(gold, documents, tmp_path):
    data = DataConfig(paths=(str(gold(documents(0, 40, 30))),), seq_len=16)
    cfg = dataclasses.replace(TrainConfig(), seed=2, data=data)
    (tmp_path / "config.json").write_text(json.dumps(to_json_dict(cfg)))
    return tmp_path


def test_the_command_prints_json(workdir, capsys):
    data_ledger.main([f"--workdir={workdir}", "--step=7", "--json"])
    rows = json.loads(capsys.readouterr().out)
    cfg = resume.load_run(workdir)
    # --step counts from 1, as metrics.jsonl does; the order from 0.
    entries = documents_of_step(cfg.data, seed=2, global_batch_seqs=8, step=6)
    assert rows == [dataclasses.asdict(e) for e in entries]


def test_the_command_prints_a_table_without_a_terminal(workdir, capsys):
    data_ledger.main([f"--workdir={workdir}", "--step=7"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 8
    assert any("train-00000-of-00002.tfrecord" in line for line in lines)


def test_at_120_columns_the_source_is_shown_whole(workdir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    data_ledger.main([f"--workdir={workdir}", "--step=2000"])
    shown = capsys.readouterr()
    assert "…" not in shown.out
    assert "step 2000 is not trained yet: the run is at step 0, and ends at 1000" in (
        shown.err
    )


def test_a_step_that_was_trained_has_no_note(workdir, capsys):
    (workdir / "checkpoints" / "5").mkdir(parents=True)
    (workdir / "metrics.jsonl").write_text('{"step": 6}\n{"step": 7}\n{"st')
    data_ledger.main([f"--workdir={workdir}", "--step=7"])
    assert not capsys.readouterr().err
    data_ledger.main([f"--workdir={workdir}", "--step=8"])
    err = capsys.readouterr().err
    assert "step 8 is not trained yet: the run is at step 7; this is what" in err


def test_a_path_is_shown_in_one_piece_on_a_narrow_terminal(
    workdir, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "40")
    data_ledger.main([f"--workdir={workdir}", "--step=7"])
    (path,) = resume.load_run(workdir).data.paths
    assert path in capsys.readouterr().out


def test_data_that_was_replaced_is_refused(workdir, gold, documents, capsys):
    cfg = resume.load_run(workdir)
    resume.write_config(workdir, cfg, ["another"])
    with pytest.raises(ConfigError, match=r"was trained on .* Put the first back"):
        data_ledger.main([f"--workdir={workdir}", "--step=7"])


def test_data_that_the_run_prepared_lies_in_the_run_folder(tmp_path):
    cfg = dataclasses.replace(TrainConfig(), data=DataConfig(text="x"))
    (tmp_path / "config.json").write_text(json.dumps(to_json_dict(cfg)))
    paths = resume.load_run(tmp_path).data.paths
    assert paths == (str(tmp_path / "data"),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=/nowhere", "--step=1"], "/nowhere does not exist"),
        (["--workdir=.", "--step=0"], "expected 1 or more, as in metrics.jsonl"),
        (["--workdir=.", "--step=x"], "--step is 'x'; expected a whole number"),
        (["--step=1"], "--workdir"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as e:
        cli.run(data_ledger.main, arguments)
    assert e.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_help_shows_an_example_and_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "podium.data_ledger", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--workdir=runs/quickstart --step=120" in done.stdout
    assert "jax" not in done.stderr
    assert "numpy" not in done.stderr
