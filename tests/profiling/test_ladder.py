# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from podium import cli, train
from podium.config_dict import to_json_dict
from podium.config_model import AttentionConfig, MlpConfig, ModelConfig
from podium.errors import ConfigError
from podium.models.flops import param_count
from podium.models.width import based_on_itself
from podium.prepare import PrepareSpec, prepare
from profiling import ladder
from profiling.scaling_law import Law, fit
from tests.trainer import tiny

KNOWN = Law(E=1.5, A=40.0, B=60.0, alpha=0.4, beta=0.35)
MODEL = ModelConfig(
    vocab_size=384,
    num_layers=1,
    embed_dim=16,
    dtype="float32",
    attention=AttentionConfig(num_heads=2, num_kv_heads=2, head_dim=8),
    mlp=MlpConfig(dim=32),
)


@pytest.fixture(scope="module")
def gold(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("ladder")
    for i in range(8):
        (folder / f"{i}.txt").write_text(f"{i} is a number, and so is {i + 1}. " * 20)
    spec = PrepareSpec(
        inputs=(str(folder / "*.txt"),),
        tokenizer="bytes",
        output=str(folder / "gold"),
        eval_fraction=0.3,
    )
    prepare(spec)
    return str(folder / "gold")


@pytest.fixture
def config(tmp_path, gold) -> Path:
    mesh = tiny.MeshConfig()  # all eight devices
    cfg = tiny.config(mesh, model=based_on_itself(MODEL), global_batch_seqs=8)
    cfg = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, paths=(gold,)))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json_dict(cfg)))
    return path


def argv(config: Path, tmp_path: Path, widths="16,32,64", tokens="640,1280,2560"):
    return [
        f"--config={config}",
        f"--workdir={tmp_path / 'ladder'}",
        f"--widths={widths}",
        f"--tokens={tokens}",
    ]


def follow(law: Law, seen: list[str]):
    """In place of training: the loss that a law gives."""

    def main(argv: list[str]) -> int:
        config, workdir = (arg.partition("=")[2] for arg in argv)
        cfg = cli.load_config(config)
        tokens = cfg.num_steps * cfg.global_batch_seqs * cfg.data.seq_len
        loss = law.loss(param_count(cfg.model), tokens)
        Path(workdir).mkdir(parents=True)
        row = {"step": cfg.num_steps, "eval_loss": loss}
        (Path(workdir) / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        seen.append(Path(workdir).name)
        return 0

    return main


def test_two_widths_are_trained_once_and_read_back(config, tmp_path, monkeypatch):
    def main(argv: list[str]) -> int:  # apart: optax mixes types, in threads too
        return subprocess.run([sys.executable, "-m", "podium.train", *argv]).returncode

    monkeypatch.setattr(train, "main", main)
    cfg = cli.load_config(str(config))
    rungs = [ladder.rung(cfg, width, tokens=512) for width in (16, 32)]
    first, again = {}, {}
    assert ladder._climb(rungs, tmp_path, cfg.data.paths, first) == 0
    monkeypatch.setattr(train, "main", lambda argv: pytest.fail("trained again"))
    assert ladder._climb(rungs, tmp_path, cfg.data.paths, again) == 0
    assert first == again
    assert all(3.0 < loss < 6.0 for loss in first.values())
    assert rungs[1].params > rungs[0].params


def test_a_ladder_finds_its_law_and_predicts_the_largest_before_it_is_trained(
    config, tmp_path, monkeypatch, capsys
):
    seen = []

    def main(argv: list[str]) -> int:
        is_told = (tmp_path / "ladder" / "prediction.json").exists()
        assert is_told == (len(seen) == 8)
        return follow(KNOWN, seen)(argv)

    monkeypatch.setattr(train, "main", main)
    assert ladder.main([*argv(config, tmp_path), "--budget=1e10", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert seen[-1] == "width64-tokens2560"
    assert abs(result["held_out"]["off"]) < 1e-3
    assert result["law"]["E"]["value"] == pytest.approx(KNOWN.E, rel=0.05)
    after = result["next"]
    assert after["width"] == 128
    want = KNOWN.loss(after["params"], after["tokens"])
    assert after["predicted"]["value"] == pytest.approx(want, rel=5e-3)
    best = result["optimum"]
    assert 6 * best["params"]["value"] * best["tokens"]["value"] == pytest.approx(1e10)
    assert (tmp_path / "ladder" / "ladder.png").read_bytes()[:4] == b"\x89PNG"
    # The same command: nothing is trained again, and it says the same, without a fit
    # for what was predicted.
    told = json.loads((tmp_path / "ladder" / "prediction.json").read_text())
    assert len(told["runs"]) == 8
    fitted = []
    monkeypatch.setattr(
        ladder, "fit", lambda points, **how: fitted.append(points) or fit(points, **how)
    )
    assert ladder.main([*argv(config, tmp_path), "--budget=1e10"]) == 0
    assert len(seen) == 9
    assert [len(points) for points in fitted] == [9]
    assert "held out, width 64 on 2,560 tokens" in capsys.readouterr().out


def test_an_interrupted_rung_ends_the_ladder_with_its_code(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "main", lambda argv: cli.EXIT_RUN_AGAIN)
    assert ladder.main(argv(config, tmp_path)) == cli.EXIT_RUN_AGAIN


def test_mistakes_are_a_line_before_anything_is_trained(config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "main", lambda argv: pytest.fail("trained"))
    with pytest.raises(ConfigError, match="do not tell the law's five constants"):
        ladder.main(argv(config, tmp_path, widths="16,32"))
    with pytest.raises(ConfigError, match="use multiples of 8"):
        ladder.main(argv(config, tmp_path, widths="16,32,68"))
    with pytest.raises(ConfigError, match="--tokens is 'many'"):
        ladder.main(argv(config, tmp_path, tokens="many"))
    (tmp_path / "ladder").mkdir()
    (tmp_path / "ladder" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a ladder with another config"):
        ladder.main(argv(config, tmp_path))
