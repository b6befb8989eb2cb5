# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What is proposed when a run does not fit. The compiler is played by the estimate:
a real one takes two minutes over a step that fills a chip."""

import dataclasses
import importlib.metadata

import pytest

from podium import cli
from podium.aot import compile as aot
from podium.aot.chips import parse_slice
from podium.aot.compile import CompilerError
from podium.config import DataConfig, TrainConfig
from podium.config_model import AttentionConfig, MlpConfig, ModelConfig
from profiling import plan, search
from profiling.proposal import nearest, propose

WHERE = parse_slice("v5e-8")


def config(**kwargs) -> TrainConfig:
    model = ModelConfig(
        vocab_size=32_000,
        num_layers=32,
        embed_dim=4096,
        attention=AttentionConfig(num_heads=32, num_kv_heads=32, head_dim=128),
        mlp=MlpConfig(dim=11_008),
        remat="none",
    )
    return TrainConfig(
        model=dataclasses.replace(model, **kwargs),
        num_steps=1000,
        global_batch_seqs=64,
        data=DataConfig(seq_len=2048),
    )


def changes(cfg: TrainConfig, error: float = 1.0) -> list[tuple[str, dict]]:
    return [
        (there.name, e.candidate.settings(cfg))
        for there, e in nearest(cfg, WHERE, error)
    ]


@pytest.fixture
def compiled(monkeypatch) -> list[TrainConfig]:
    """The configs that were compiled; a chip holds 15.75 GiB."""
    found = []

    def make_plan(cfg, where):
        found.append(cfg)
        e = search.own(cfg, where)
        return {
            "fits": e.hbm_bytes_per_chip <= where.chip.hbm_bytes and len(found) > 1,
            "hbm_bytes_per_chip": e.hbm_bytes_per_chip,
            "step_secs": e.step_secs,
        }

    monkeypatch.setattr(plan, "make_plan", make_plan)
    return found


def test_the_first_that_the_compiler_takes_is_proposed_with_its_flags(compiled):
    cfg = dataclasses.replace(config(num_layers=4), global_batch_seqs=1024)
    found = propose(cfg, WHERE)
    assert len(compiled) == 2  # what the estimate liked best did not compile
    assert found["hbm_bytes_per_chip"] <= WHERE.chip.hbm_bytes
    assert found["topology"] == "v5e-8"
    flags = dict(
        f.removeprefix("--config.").split("=") for f in found["change"].split()
    )
    assert flags.get("model.remat", cfg.model.remat) == compiled[1].model.remat
    assert int(flags["grad_accum_steps"]) == compiled[1].grad_accum_steps > 1
    assert not any(name.startswith("mesh") for name in flags)


def test_nothing_is_proposed_for_what_no_slice_holds(compiled):
    large = dataclasses.replace(config(embed_dim=1 << 18), global_batch_seqs=256)
    assert propose(large, parse_slice("v5e-128")) is None
    assert not compiled


def test_recomputing_more_comes_first():
    slice_, settings = changes(config(num_layers=8))[0]
    assert slice_ == "v5e-8"
    assert settings["mesh.fsdp"] == 8
    assert settings["grad_accum_steps"] == 1
    assert settings["model.remat"] != "none"


def test_a_model_too_large_for_the_slice_gets_the_next_one_that_holds_it():
    found = changes(config())  # 6.7B parameters: 16 bytes each are 12.5 GiB of v5e-8
    assert {name for name, _ in found} >= {"v5e-16", "v5e-32"}
    assert all(settings["model.remat"] != "none" for _, settings in found[:1])


def test_what_the_estimate_got_wrong_of_the_run_itself_is_held_against_the_others():
    assert changes(config(num_layers=8), error=1.0) != changes(
        config(num_layers=8), error=2.0
    )


def test_a_change_at_which_the_compiler_fails_is_passed_over(
    compiled, monkeypatch, capsys
):
    def fails_first(cfg, where, made=plan.make_plan):
        found = made(cfg, where)
        if len(compiled) == 1:
            raise CompilerError("libtpu fails to compile this step")
        return found

    monkeypatch.setattr(plan, "make_plan", fails_first)
    proposal = propose(config(), WHERE)
    assert proposal is not None
    assert len(compiled) == 2
    assert "fails to compile this step" in capsys.readouterr().err


def test_where_the_compiler_fails_it_is_said_in_one_line(monkeypatch, capsys):
    import jax

    class Lowered:
        def as_text(self):
            return "a program that no cache has"

        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("INTERNAL: operand 0 is odd\nand more")

    monkeypatch.setattr(aot, "lower", lambda parts: Lowered())
    # libtpu need not be here to fail.
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "1.2.3")
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda _: aot.compile_step(None, WHERE, {}), [])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    error = said.strip().splitlines()[-1]
    assert error.startswith("CompilerError: libtpu 1.2.3 fails to compile this step")
    assert error.endswith("INTERNAL: operand 0 is odd; try another model.remat or mesh")
