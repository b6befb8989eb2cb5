# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import argparse
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from podium.aot.chips import parse_slice
from podium.config_lora import DoraConfig, LoraConfig
from podium.errors import ConfigError
from podium.models import adapters, bind
from podium.models.adapted import Adapted
from podium.models.linear import linear
from podium.sharding_report import make_report
from podium.trainer.setup import setup
from podium.trainer.state import weights
from podium.trainer.step import batch_sharding, make_eval_step
from profiling import plan
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")

KINDS = [LoraConfig(rank=4), DoraConfig(rank=4)]
ALL = ("attention/*", "mlp/*", "head")


def config(lora, **changes):
    changes = {"init_from": "base", **changes}
    if "head" in lora.targets:
        changes["model"] = dataclasses.replace(tiny.MODEL, tie_embeddings=False)
    return tiny.config(lora=lora, **changes)


def eval_loss(cfg, parts, whole, batch):
    step = make_eval_step(cfg, parts.model, parts.rules, None)
    sums = step(whole, batch, np.zeros_like(batch.targets))
    return float(sums.cross_entropy_G[0] / sums.tokens_G[0])


@pytest.mark.parametrize(
    ("lora", "base_dtype"),
    [(KINDS[0], "float32"), (KINDS[0], "int8"), (KINDS[1], "bfloat16")],
    ids=lambda x: getattr(x, "kind", x),
)
def test_adapters_begin_as_the_base_learn_and_merge_into_it(lora, base_dtype):
    lora = dataclasses.replace(lora, base_dtype=base_dtype, targets=ALL)
    cfg = config(lora)
    parts, state = tiny.start(cfg)
    batch = jax.device_put(tiny.batch(0), batch_sharding(parts.rules))
    before = jax.tree.map(np.asarray, state.frozen)
    first = eval_loss(cfg, parts, weights(cfg, state), batch)
    assert first == pytest.approx(eval_loss(cfg, parts, state.frozen, batch), rel=1e-6)
    for _ in range(8):
        state, metrics = parts.train_step(state, batch)
    whole = weights(cfg, state)
    last = eval_loss(cfg, parts, whole, batch)
    assert last < first - 0.05
    assert metrics["loss"] < first
    jax.tree.map(np.testing.assert_array_equal, before, state.frozen)
    merged = adapters.merge(bind.abstract(cfg.model), whole)
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype("float32")}
    assert last == pytest.approx(eval_loss(cfg, parts, merged, batch), rel=1e-4)


@pytest.mark.parametrize("lora", KINDS, ids=lambda x: x.kind)
def test_the_mesh_does_not_change_the_result(lora):
    lora = dataclasses.replace(lora, base_dtype="int8")
    want, want_state = tiny.train(config(lora), 3)
    got, state = tiny.train(config(lora, mesh=tiny.EIGHT), 3)
    np.testing.assert_allclose(
        [row["loss"] for row in got], [row["loss"] for row in want], rtol=1e-5
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
        jax.device_get(want_state.params),
        jax.device_get(state.params),
    )


def test_adapters_lie_as_the_weights_that_they_change():
    parts = setup(config(KINDS[1], mesh=tiny.EIGHT))
    layout = parts.layout.shardings
    up = layout.params["stack"]["block_0"]["mlp"]["up"]
    assert tuple(up["a"].spec) == (None, "fsdp", None)
    assert tuple(up["b"].spec) == (None, None, "tensor")
    assert tuple(up["magnitude"].spec) == (None, "tensor")
    out = layout.params["stack"]["block_0"]["attention"]["out"]
    assert tuple(out["a"].spec) == (None, "tensor", None, None)
    assert tuple(out["b"].spec) == (None, None, "fsdp")


def test_no_gradient_and_no_moment_is_as_large_as_a_frozen_weight():
    """Of the three matmuls of a weight's step one is left out."""
    model = dataclasses.replace(tiny.MODEL, embed_dim=128, layer_loop="unroll")
    model = dataclasses.replace(model, mlp=dataclasses.replace(model.mlp, dim=512))

    def flops(lora):
        init_from = "base" if lora else None
        cfg = tiny.config(model=model, lora=lora, init_from=init_from)
        parts = setup(cfg, jax.devices()[:1])
        step = parts.train_step.lower(*parts.arguments()).compile()
        return step.cost_analysis()["flops"], parts

    lora = LoraConfig(rank=1, targets=("*",))
    full, _ = flops(None)
    ours, parts = flops(lora)
    assert ours < 0.75 * full
    largest = max(
        math.prod(x.shape) for x in jax.tree.leaves(parts.layout.shapes.params)
    )
    assert largest == 2 * 512
    moments = jax.tree.leaves(parts.layout.shapes.opt_state)
    assert max(math.prod(x.shape) for x in moments) == largest
    frozen = jax.tree.leaves(parts.layout.shapes.frozen)
    assert max(math.prod(x.shape) for x in frozen) == 2 * 128 * 512


def test_reports_count_what_is_frozen_apart():
    def bytes_of(cfg):
        return make_report(cfg, jax.devices()[:1], trace=False)["bytes_per_device"]

    full = bytes_of(tiny.config())
    kept = {}
    for dtype in ("float32", "bfloat16", "int8"):
        found = bytes_of(config(LoraConfig(rank=1, base_dtype=dtype)))
        assert found["optimizer"] < full["optimizer"] / 8
        kept[dtype] = found["frozen_weights"] / full["parameters"]
    assert kept["float32"] == 1
    assert 0.5 < kept["bfloat16"] < 0.52
    assert 0.25 < kept["int8"] < 0.4  # scales, and the embedding in bfloat16
    with pytest.raises(ConfigError, match="without --search"):
        plan._search(argparse.Namespace(), config(LoraConfig()), parse_slice("v5e-8"))


@pytest.mark.parametrize("num_in", [1, 2])
def test_a_changed_matmul_is_that_of_the_papers(num_in):
    """LoRA's equation 3; DoRA's equation 5, and of section 4.3 the gradient."""
    rng = np.random.default_rng(0)
    ins, outs, r = ((6,), (4, 2), 3) if num_in == 1 else ((3, 2), (8,), 3)
    x, w = rng.normal(size=(5, *ins)), rng.normal(size=(*ins, *outs))
    a, b = rng.normal(size=(*ins, r)), rng.normal(size=(r, *outs))
    m = rng.normal(size=outs)
    flat = [np.reshape(t, s) for t, s in ((x, (5, 6)), (w, (6, 8)), (a, (6, r)))]
    changed = flat[1] + 0.5 * flat[2] @ b.reshape(r, 8)
    norm = np.sqrt((changed**2).sum(0))
    w, a, b, m, x = (jnp.asarray(t, jnp.float32) for t in (w, a, b, m, x))

    def run(a, b, m):
        weight = nnx.Param(Adapted(w, a, b, m, 0.5))
        return linear(x, weight, num_in).reshape(5, 8)

    np.testing.assert_allclose(run(a, b, None), flat[0] @ changed, rtol=1e-4)
    want = (flat[0] @ changed) * np.asarray(m).reshape(8) / norm
    np.testing.assert_allclose(run(a, b, m), want, rtol=1e-4)
    merged = np.reshape(Adapted(w, a, b, m, 0.5).merged(), (6, 8))
    np.testing.assert_allclose(flat[0] @ merged, want, rtol=1e-4)
    got = jax.grad(lambda b: run(a, b, m).sum())(b).reshape(r, 8)
    factor = np.asarray(m).reshape(8) / norm  # the norm does not move
    wanted = 0.5 * (flat[0] @ flat[2]).sum(0)[:, None] * factor[None]
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("pattern", "names", "message"),
    [
        ("attention/query", ["stack/block_0/attention/query"], None),
        ("stack/*/mlp/g*", ["stack/block_0/mlp/gate"], None),
        ("attn/*", [], "'attn/*' matches nothing; this model's are attention/key"),
        ("embed/*", [], "'embed/*' matches embed/table, no matmul; this model's are"),
        ("*_norm/*", [], "'*_norm/*' matches final_norm/scale, no matmul"),
        ("head", [], "'head' matches nothing"),
    ],
)
def test_targets_are_matmuls(pattern, names, message):
    model, lora = bind.abstract(tiny.MODEL), LoraConfig(targets=(pattern,))
    if message is None:
        assert [k.name for k in adapters.targets(model, lora)] == names
        return
    with pytest.raises(ConfigError) as error:
        adapters.targets(model, lora)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_does_not_go_with_adapters_is_refused():
    with pytest.raises(ConfigError, match=r"--config\.init_from=D"):
        tiny.config(lora=LoraConfig())
    with pytest.raises(ConfigError, match=r"lora\.targets is empty"):
        LoraConfig(targets=())
    optim = dataclasses.replace(tiny.config().optim, state_memory="host")
    with pytest.raises(ConfigError, match="use 'device'"):
        config(LoraConfig(), optim=optim)
