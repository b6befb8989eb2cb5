# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Candidates and closed forms; that the best really compile is in test_plan.py."""

import dataclasses
import json
import math

import pytest

from configs.families import llama_3_1_8b, mixtral_8x7b
from podium.aot import hbm
from podium.aot.chips import parse_slice
from podium.config import AdamWConfig, DataConfig, MeshConfig, OptimConfig, TrainConfig
from podium.config_model import (
    AttentionConfig,
    CapacityConfig,
    DroplessConfig,
    MlpConfig,
    ModelConfig,
)
from podium.config_quantization import Fp8Config, Int8Config
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from podium.sharding_tables import size_text
from podium.trainer.setup import setup
from profiling import search_plot, search_report
from profiling.estimate_memory import host_bytes, memory
from profiling.estimate_time import EFFICIENCY, times
from profiling.plan import quantization_line, used_rows
from profiling.search import (
    Candidate,
    candidates,
    estimate,
    meshes,
    own,
    ranked,
    reasons,
)
from profiling.search_report import config_lines
from profiling.shares import shares

V5E_8 = parse_slice("v5e-8")


def config(**kwargs) -> TrainConfig:
    model = ModelConfig(
        vocab_size=512,
        num_layers=4,
        embed_dim=256,
        attention=AttentionConfig(num_heads=8, num_kv_heads=4, head_dim=32),
        mlp=MlpConfig(dim=512),
        tie_embeddings=False,
    )
    return TrainConfig(
        **{
            "model": model,
            "num_steps": 1000,
            "global_batch_seqs": 32,
            "data": DataConfig(seq_len=256),
        }
        | kwargs
    )


def candidate(remat="full", steps=1, **sizes) -> Candidate:
    mesh = MeshConfig(**{"fsdp": 1, **sizes})
    return Candidate(mesh=mesh, remat=remat, grad_accum_steps=steps)


def test_every_factorisation_of_the_devices_is_a_candidate_once():
    found = [tuple(m.sizes().values()) for m in meshes(config(), V5E_8)]
    assert all(math.prod(sizes) == 8 for sizes in found)
    # Factors of two over data, fsdp, context, tensor, three of them, or less what the
    # stages take of four layers; a dense model has no experts.
    want = sum(math.comb(left + 3, 3) for left in (3, 2, 1))
    assert len(found) == len(set(found)) == want


def test_experts_and_slices_take_part():
    moe = config(model=mixtral_8x7b())
    assert {m.expert for m in meshes(moe, V5E_8)} == {1, 2, 4, 8}
    across = {
        (m.slices.stage, m.slices.fsdp)
        for m in meshes(config(), parse_slice("v5e-8x2"))
    }
    assert across == {(1, 1), (2, 1), (1, 2)}


def test_micro_batches_divide_the_batch_and_leave_a_row_a_device():
    for c in candidates(config(), V5E_8):
        batch = c.mesh.data * c.mesh.fsdp * c.mesh.expert
        assert 32 % c.grad_accum_steps == 0
        assert c.grad_accum_steps == 1 or c.grad_accum_steps * batch <= 32


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"tensor": 8}, "model.attention.num_kv_heads (4) by tensor"),
        ({"data": 8}, None),
        ({"data": 64}, "global_batch_seqs (32) by data"),
        ({"stage": 8}, "4 repeats of 1 layers by stage * repeats (8)"),
    ],
)
def test_what_does_not_divide_is_named_with_its_axis(sizes, expected):
    where = dataclasses.replace(V5E_8, num_slices=math.prod(sizes.values()) // 8)
    found = estimate(candidate(**sizes), config(), where)
    assert found.reason == (expected and f"indivisible: {expected}")


def test_what_needs_too_much_memory_says_how_much():
    large = config(model=dataclasses.replace(config().model, embed_dim=16_384))
    large = dataclasses.replace(large, data=DataConfig(seq_len=8192))
    found = [estimate(c, large, V5E_8) for c in candidates(large, V5E_8)]
    room = V5E_8.chip.hbm_bytes
    least = min(e.hbm_bytes_per_chip for e in found if e.reason == "out of memory")
    words = dict((r.split(",")[0], r) for _, r in reasons(found, room))
    assert f"by {size_text(least - room)} a chip" in words["out of memory"]
    assert all(e.hbm_bytes_per_chip <= room for e in ranked(found))


@pytest.mark.parametrize(
    "sizes",
    [
        {"fsdp": 8},
        {"data": 2, "fsdp": 2, "tensor": 2},
        {"fsdp": 4, "context": 2},
        {"stage": 4, "fsdp": 2},
    ],
)
@pytest.mark.parametrize("opt_embed", [None, ("data", "fsdp", "expert", "context")])
def test_the_state_takes_what_the_layout_says(sizes, opt_embed):
    """Norms aside, which the closed form leaves out."""
    cfg = candidate(**sizes).apply(config(optim=OptimConfig(optimizer=AdamWConfig())))
    rules = dataclasses.replace(cfg.sharding, opt_embed=opt_embed)
    cfg = dataclasses.replace(cfg, sharding=rules)
    parts = setup(cfg)
    shapes, shardings = parts.layout.shapes, parts.layout.shardings
    found = memory(shares(cfg, 8))
    for ours, tree in (("parameters", "params"), ("optimizer", "opt_state")):
        real = hbm.tree_bytes(getattr(shapes, tree), getattr(shardings, tree))
        assert found[ours] == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_what_waits_on_the_host_is_counted_there_and_not_on_the_device(sizes):
    optim = OptimConfig(optimizer=AdamWConfig(), state_memory="host")
    cfg = candidate("block_input:host", **sizes).apply(config(optim=optim))
    layout = setup(cfg).layout
    moments = hbm.tree_bytes(
        layout.shapes.opt_state, layout.shardings.opt_state, "host"
    )
    found = memory(shares(cfg, 8))
    assert found["optimizer"] == found["activations"] == 0
    tokens = cfg.global_batch_seqs * cfg.data.seq_len / 8  # between parts of a block
    inputs = cfg.model.num_layers * cfg.model.embed_dim * tokens * 2
    assert host_bytes(shares(cfg, 8)) == pytest.approx(moments + inputs, rel=0.02)


def test_moments_that_cross_to_the_host_and_back_take_their_time():
    def update_secs(memory):
        optim = OptimConfig(optimizer=AdamWConfig(), state_memory=memory)
        cfg = candidate(fsdp=8).apply(config(optim=optim))
        return times(shares(cfg, 8), V5E_8).optimizer_secs, shares(cfg, 8).params()

    (device, _), (host, params) = update_secs("device"), update_secs("host")
    assert host > device
    assert host == pytest.approx(8 * params / V5E_8.chip.host_bytes_per_sec)


def test_more_is_kept_the_less_is_recomputed():
    full, qkv, dots, none = (
        estimate(candidate(remat, data=8), config(), V5E_8)
        for remat in ("full", "qkv", "dots", "none")
    )
    activations = [e.hbm_bytes["activations"] for e in (full, qkv, dots, none)]
    assert activations == sorted(activations)
    assert full.step_secs > qkv.step_secs > dots.step_secs > none.step_secs


def test_a_pipeline_takes_longer_by_the_share_that_its_stages_wait():
    """Where layers are nearly all: S - 1 of M + S - 1 iterations, M = 4 S."""
    model = dataclasses.replace(LARGE, num_layers=64, vocab_size=512)
    cfg = config(model=model, data=DataConfig(seq_len=4096), global_batch_seqs=64)
    none, four = (
        times(shares(candidate(**sizes).apply(cfg), 8), V5E_8).compute_secs
        for sizes in ({"fsdp": 8}, {"stage": 4, "fsdp": 2})
    )
    assert four / none == pytest.approx((16 + 3) / 16, rel=0.01)


def test_the_config_s_own_layout_is_shown_beside_the_best(capsys):
    cfg = config(mesh=MeshConfig(fsdp=2, tensor=4))
    found = search_report.search(cfg, V5E_8, num_compiled=0)
    assert found["own"]["settings"]["mesh.tensor"] == 4
    assert found["own"]["estimate_fits"]
    assert found["larger"] is None
    search_report.print_search(found)
    assert "this config: fsdp 2 tensor 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "mesh", "said"),
    [
        ("v5e-8", {"fsdp": 256}, "mesh fsdp=256 takes 256 devices, but there are 8"),
        ("v5e-8x2", {}, r"mesh.data (1) does not divide by mesh.slices.data (2)"),
        ("v5e-8", {"fsdp": 1, "tensor": 8}, "num_kv_heads (4) by tensor"),
    ],
)
def test_a_config_laid_out_for_another_slice_is_searched_all_the_same(
    name, mesh, said, capsys, tmp_path
):
    cfg = config(mesh=MeshConfig(**mesh))
    found = search_report.search(cfg, parse_slice(name), num_compiled=0)
    assert found["fits"]
    search_report.print_search(found)
    out = capsys.readouterr().out
    assert "This config's own layout cannot run here: " in out
    assert said in " ".join(out.split())
    assert "this config:" not in out
    search_plot.plot(found, str(tmp_path / "found.png"))


@pytest.mark.parametrize(
    ("name", "layers", "first"),
    [
        ("v5e-16", 8, "in 75% of the memory"),
        ("v5e-8", 16, "without the host's memory"),  # the fastest uses it
    ],
)
def test_the_table_names_what_takes_less_than_the_fastest(
    name, layers, first, capsys, tmp_path
):
    big = dataclasses.replace(llama_3_1_8b(), num_layers=layers)
    cfg = config(model=big, data=DataConfig(seq_len=2048), global_batch_seqs=64)
    found = search_report.search(cfg, parse_slice(name), num_compiled=0)
    room, rows = found["hbm_capacity_bytes"], found["alternatives"]
    fit = [row for row in found["candidates"] if row["fits"]]
    assert rows[0]["what"] == first
    for row in rows:
        used = row["estimated"]["hbm_bytes_per_chip"]
        if row["what"] == "without the host's memory":
            others = [c for c in fit if ":host" not in c["settings"]["model.remat"]]
        else:
            most = float(row["what"].split()[1].rstrip("%")) / 100 * room
            assert used <= most
            others = [c for c in fit if c["hbm_bytes_per_chip"] <= most]
        best = min(c["step_secs"] for c in others)
        assert row["estimated"]["step_secs"] == pytest.approx(best, rel=1e-3)
    search_report.print_search(found)
    assert rows[-1]["what"] in capsys.readouterr().out
    search_plot.plot(found, str(tmp_path / "found.png"))
    assert (tmp_path / "found.png").stat().st_size > 10_000


def test_a_long_search_without_a_terminal_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(search_report, "_SAY_SECS", 0.0)
    found = search_report.search(config(), V5E_8, num_compiled=0)
    every = found["num_candidates"]
    assert f"{every - 1:,} of {every:,} layouts so far" in capsys.readouterr().err


def test_what_needs_the_host_is_compiled_beside_what_does_not(monkeypatch, capsys):
    big = dataclasses.replace(llama_3_1_8b(), num_layers=16)
    cfg = config(model=big, data=DataConfig(seq_len=2048), global_batch_seqs=64)
    plain, mesh = search_report.search(cfg, V5E_8, num_compiled=0), {}

    def compiled(e, cfg, where, tokens):
        """Twice the time of the estimate where tensors lie on the host."""
        row = search_report._guess(e, cfg, where)
        mesh[str(row["settings"])] = e.candidate.mesh
        secs = e.step_secs * (2.0 if ":host" in e.candidate.remat else 1.001)
        plan = {"fits": True, "mfu_bound": 0.5, "usd_per_billion_tokens": 1.0}
        return row | plan | {"hbm_bytes_per_chip": 2**30, "step_secs": secs}

    monkeypatch.setattr(search_report, "_compile", compiled)
    found = search_report.search(cfg, V5E_8, num_compiled=3)
    asked = list(mesh)[:3]
    rival = plain["alternatives"][0]
    assert rival["what"] == "without the host's memory"
    assert asked[:2] == [str(plain["next_best"][0]["settings"]), str(rival["settings"])]
    assert mesh[asked[2]] != mesh[asked[0]]
    assert found["compiled"][0]["settings"] == rival["settings"]
    assert rival["what"] not in {row["what"] for row in found["alternatives"]}
    search_report.print_search(found)
    said = capsys.readouterr().out
    assert f"cfg.model.remat = {rival['settings']['model.remat']!r}" in said
    assert "may be faster" not in said

    found = search_report.search(cfg, V5E_8, num_compiled=1)
    search_report.print_search(found)
    said = capsys.readouterr().out
    assert "may be faster" in said
    assert "--compile=2 compiles more" in said
    assert "…" not in said  # names of what is kept are not cut off


def test_a_search_says_where_the_config_s_own_layout_was_the_fastest(capsys):
    found = search_report.search(config(), V5E_8, num_compiled=0)
    plan = {"fits": True, "mfu_bound": 0.5, "usd_per_billion_tokens": 1.0}
    plan |= {"hbm_bytes_per_chip": 2**30}
    found["compiled"] = [found["next_best"].pop(0) | plan | {"step_secs": 2.0}]
    for secs, is_best in ((1.0, True), (3.0, False)):
        found["own"] |= plan | {"step_secs": secs}
        search_report.print_search(found)
        said = capsys.readouterr().out
        assert ("None that was compiled is faster" in said) == is_best
        assert ("for the config file" in said) != is_best


@pytest.mark.parametrize(
    ("dispatch", "share"), [(DroplessConfig(), 1 / 4), (CapacityConfig(), 1.0)]
)
def test_a_plan_counts_the_rows_that_a_devices_experts_multiply(dispatch, share):
    mlp = dataclasses.replace(mixtral_8x7b().mlp, dispatch=dispatch)
    cfg = config(mesh=MeshConfig(fsdp=2, expert=4))
    rules = ShardingRules(cfg.sharding, make_mesh(cfg.mesh))
    assert used_rows(cfg, rules) == 1.0
    model = dataclasses.replace(cfg.model, mlp=mlp)
    assert used_rows(dataclasses.replace(cfg, model=model), rules) == share


@pytest.mark.parametrize(
    ("what", "off"),
    [
        ("ring of", 0.12),  # every round of it takes time
        ("a device", 0.05),  # rows of other devices' experts are masked
    ],
)
def test_the_estimate_is_near_the_compiled_steps(what, off):
    """Those of the TPU compiler in benchmarks/results/estimate.json."""
    from benchmarks import estimate as measured

    kept = json.loads(measured.KEPT.read_text())
    steps = {name: step for name, step in measured.steps().items() if what in name}
    assert len(steps) > 1
    for name, (topology, cfg) in steps.items():
        guess = own(cfg, parse_slice(topology))
        assert guess.step_secs == pytest.approx(kept[name]["step_secs"], rel=off)
        if what == "a device":
            used = kept[name]["hbm_bytes_per_chip"]
            assert guess.hbm_bytes_per_chip == pytest.approx(used, rel=off)


def test_where_nothing_fits_a_larger_slice_is_named(capsys):
    big = dataclasses.replace(llama_3_1_8b(), num_layers=8, remat="full")
    cfg = config(model=big, data=DataConfig(seq_len=2048))
    cfg = dataclasses.replace(cfg, global_batch_seqs=64)
    one = parse_slice("v5e-1")
    found = search_report.search(cfg, one, num_compiled=0)
    assert not found["fits"]
    there = found["larger"]
    assert parse_slice(there["topology"]).num_chips > 1
    room = one.chip.hbm_bytes
    assert 0 < there["estimated"]["hbm_bytes_per_chip"] <= room
    search_report.print_search(found)
    said = capsys.readouterr().out
    assert f"--topology={there['topology']} --config.mesh." in said
    assert "this config" not in said  # there is no table of what cannot run


def test_the_lines_to_paste_undo_what_the_config_said():
    cfg = config(mesh=MeshConfig(fsdp=2, tensor=4))
    lines = config_lines(candidate("dots", 2, fsdp=8).settings(cfg))
    assert lines == [
        "cfg.mesh.fsdp = 8",
        "cfg.mesh.tensor = 1",
        "cfg.model.remat = 'dots'",
        "cfg.grad_accum_steps = 2",
    ]


def secs(where, quantization=None) -> float:
    model = dataclasses.replace(LARGE, quantization=quantization)
    cfg = config(model=model, data=DataConfig(seq_len=4096))
    cfg = candidate("dots", fsdp=where.num_devices).apply(cfg)
    return times(shares(cfg, where.num_devices), where).step_secs


LARGE = dataclasses.replace(llama_3_1_8b(), num_layers=4, vocab_size=16_032)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("v5e-8", Int8Config), ("v6e-8", Int8Config), ("tpu7x-8", Fp8Config)],
)
@pytest.mark.parametrize(
    ("backward", "passes"), [("none", 1), ("inputs", 2), ("all", 3)]
)
def test_eight_bit_matmuls_take_half_where_the_chip_is_twice_as_fast(
    name, kind, backward, passes
):
    where, quantization = parse_slice(name), kind(backward=backward)
    slow = dataclasses.replace(where.chip, twice_as_fast=())
    slow_secs = secs(dataclasses.replace(where, chip=slow), quantization)
    flops = 2 * 32 / 8 * 4096 * 4 * 218_103_808  # a forward pass: rows, tokens, layers
    half = (
        passes * flops / 2 / EFFICIENCY[where.chip.name] / where.chip.device_peak_flops
    )
    assert slow_secs - secs(where, quantization) == pytest.approx(half)


def test_rounding_takes_a_part_of_what_they_gain():
    """As in the compiled steps of benchmarks/quantization.py."""
    where = parse_slice("v5e-8")
    plain, forward, inputs = (
        secs(where, q) for q in (None, Int8Config(backward="none"), Int8Config())
    )
    assert inputs < forward < plain


@pytest.mark.parametrize(
    ("name", "kind"), [("v4-16", Int8Config), ("v5e-8", Fp8Config)]
)
def test_where_the_chip_is_no_faster_eight_bits_gain_nothing_and_the_plan_says_so(
    name, kind
):
    where = parse_slice(name)
    assert secs(where, kind()) > secs(where)
    assert "gain no speed" in quantization_line(kind().kind, where)
