# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a trace says of activations, against a tiny model counted by hand."""

import dataclasses

import pytest

from podium.config import MeshConfig
from podium.sharding.activations import activations, part_of
from podium.trainer.setup import setup
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")
LAYERS, B, T, D, N, K, H, F = 2, 16, 16, 32, 4, 2, 8, 64


def found(cfg):
    import jax

    size = 1 if cfg.mesh == tiny.ONE_DEVICE else 8
    parts = setup(cfg, jax.devices()[:size])
    arguments = parts.arguments()
    return activations(lambda: parts.train_step.trace(*arguments).jaxpr.jaxpr)


def blocks(places):
    return [p for p in places if p.part in ("Block", "Attention", "GatedMlp")]


@pytest.fixture(scope="module")
def eight():
    return found(tiny.config(tiny.EIGHT))  # data 2 x fsdp 2 x tensor 2


def test_the_bytes_of_a_block_are_those_counted_by_hand(eight):
    rows = B // 4
    by_hand = {
        "inside_BTD": 2 * rows * T * D,  # before attention and before the MLP
        "q_BTNH": rows * T * (N // 2) * H,
        "k_BTKH": rows * T * (K // 2) * H,
        "v_BTKH": rows * T * (K // 2) * H,
        "out_BTNH": rows * T * (N // 2) * H,
        "branch_BTD": 2 * rows * (T // 2) * D,
        "x_BTD + branch_BTD": 2 * rows * (T // 2) * D,
        "h_BTF": rows * T * F // 2,
    }
    in_blocks = blocks(eight)
    for name, size in by_hand.items():
        assert sum(p.bytes for p in in_blocks if p.name == name) == 4 * size, name
    assert sum(p.bytes for p in in_blocks) == 4 * sum(by_hand.values())
    assert {p.forward for p in in_blocks} == {LAYERS}


def test_a_place_says_its_axes_and_where_it_is(eight):
    (h,) = (p for p in eight if p.part == "GatedMlp")
    assert h.logical_axes == ("batch", "length", "mlp")
    assert h.spec == (("data", "fsdp"), None, "tensor")
    assert (h.shape, h.local_shape) == ((B, T, F), (B // 4, T, F // 2))
    assert h.source.startswith("models/layers.py:")


@pytest.mark.parametrize(
    ("function", "part"),
    [
        ("Attention._project", "Attention"),
        ("GatedMlp.__call__", "GatedMlp"),
        ("Transformer.logits", "Transformer.logits"),
        ("_chunk_sums", "loss._chunk_sums"),
        ("make.<locals>.train_step", "loss.train_step"),
        ("_forward.<locals>.<genexpr>", "loss._forward"),
    ],
)
def test_parts_are_named_so_that_a_reader_finds_them(function, part):
    assert part_of(function, "trainer/loss.py") == part


def test_micro_batches_run_every_place_as_often_again(eight):
    again = found(tiny.config(tiny.EIGHT, grad_accum_steps=2))
    assert {p.forward for p in blocks(again)} == {2 * LAYERS}
    assert sum(p.bytes for p in blocks(again)) * 2 == sum(
        p.bytes for p in blocks(eight)
    )


@pytest.mark.parametrize(("remat", "again"), [("none", 0), ("full", LAYERS)])
def test_what_is_computed_again_for_the_backward_pass_is_counted(remat, again):
    model = dataclasses.replace(tiny.MODEL, remat=remat)
    places = found(tiny.config(tiny.EIGHT, model=model))
    (h,) = (p for p in places if p.part == "GatedMlp")
    assert (h.forward, h.recompute, h.gradient) == (LAYERS, again, LAYERS)


def test_one_device_has_the_same_places_whole(eight):
    one = found(tiny.config())
    assert [p.source for p in one] == [p.source for p in eight]
    assert all(p.shape == p.local_shape for p in one)


def test_stages_come_in_front():
    mesh = MeshConfig(stage=2, data=2, fsdp=2, tensor=1)
    (h,) = (p for p in found(tiny.config(mesh)) if p.part == "GatedMlp")
    assert h.logical_axes == ("stages", "batch", "length", "mlp")
    assert h.spec[0] == "stage"
    assert h.local_shape[0] == 1


def test_the_names_stay_out_of_the_step_that_is_compiled(eight):
    parts = setup(tiny.config(tiny.EIGHT))
    text = parts.train_step.lower(*parts.arguments()).as_text(debug_info=True)
    assert "GatedMlp" in text
    assert "shard[" not in text
