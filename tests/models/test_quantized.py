# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Eight-bit matmuls: how far they are from float ones, and the same on every mesh."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.config import MeshConfig, ShardingConfig
from podium.config_model import MlpConfig, ModelConfig, MoeConfig
from podium.config_quantization import Fp8Config, Int8Config
from podium.errors import ConfigError
from podium.models.bind import abstract, bind, init_params
from podium.models.linear import linear
from podium.models.quantized import dots, quantize, quantized_dot, scaled
from podium.models.ring_scatter import scattered_gradient
from podium.sharding.constrain import use_rules
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")

INT8, FP8 = Int8Config(), Fp8Config()
ALL = {
    "int8": Int8Config(backward="all"),
    "fp8": Fp8Config(backward="all"),
    "fp8_e5m2": Fp8Config(backward="all", gradient="e5m2"),
}


def random(seed: int, *shape: int, dtype=jnp.float32):
    """Rows and columns of very different sizes, as activations have them."""
    a, b, c = (jax.random.normal(k, s) for k, s in _sizes(seed, shape))
    return (a * jnp.exp(b) * jnp.exp(c)).astype(dtype)


def _sizes(seed, shape):
    keys = jax.random.split(jax.random.key(seed), 3)
    ones = (1,) * (len(shape) - 1)
    return zip(keys, (shape, (*shape[:-1], 1), (*ones, shape[-1])), strict=True)


def with_gradients(x, w, quantization, n: int = 1):
    def run(x, w):
        return linear(x, w, n, dots=dots(quantization, "mlp"))

    out, back = jax.vjp(run, x, w)
    return (out, *back(random(9, *out.shape, dtype=out.dtype)))


@pytest.mark.parametrize("quantization", [INT8, FP8], ids=["int8", "fp8"])
def test_the_forward_error_stays_within_what_the_scales_allow(quantization):
    x, w = random(0, 4, 8, 64), random(1, 64, 48)
    got = linear(x, w, dots=dots(quantization, "mlp"))

    def rounding(v, axis):
        largest = np.max(np.abs(v), axis, keepdims=True)
        if quantization.kind == "int8":
            return np.broadcast_to(largest / 127 / 2, v.shape)
        return np.maximum(np.abs(v) * 2**-4, largest / 448 * 2**-10)

    X, W = np.float64(x), np.float64(w)
    ex, ew = rounding(X, -1), rounding(W, 0)
    bound = ex @ np.abs(W) + np.abs(X) @ ew + ex @ ew
    error = np.abs(got - X @ W)
    assert np.all(error <= bound * (1 + 1e-5))
    assert np.max(error / bound) > 0.05  # it is rounded, and the bound says something


@pytest.mark.parametrize(
    ("quantization", "largest", "integers"), [(INT8, 127.0, 127), (FP8, 448.0, 16)]
)
def test_what_eight_bits_can_say_is_exact(quantization, largest, integers):
    rng = np.random.default_rng(0)
    x = rng.integers(-integers, integers + 1, (3, 5, 18)).astype(np.float32)
    w = rng.integers(-integers, integers + 1, (18, 7)).astype(np.float32)
    x[..., 0], w[0] = largest, 0.0  # makes every scale 1
    x[..., 1], w[1] = 0.0, -largest
    got = linear(jnp.asarray(x), jnp.asarray(w), dots=dots(quantization, "mlp"))
    np.testing.assert_array_equal(got, x @ w)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_outputs_and_gradients_point_where_the_float_ones_do(name, dtype):
    x, w = random(0, 2, 16, 4, 8, dtype=dtype), random(1, 4, 8, 24)
    got, want = (with_gradients(x, w, q, 2) for q in (ALL[name], None))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        a, b = np.float64(a).ravel(), np.float64(b).ravel()
        assert not np.array_equal(a, b)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


@pytest.mark.parametrize(
    ("backward", "same"), [("none", (1, 2)), ("inputs", (2,)), ("all", ())]
)
def test_what_the_backward_pass_does_not_quantise_is_the_float_gradient(backward, same):
    x, w = random(0, 4, 8, 32), random(1, 32, 48)
    got = with_gradients(x, w, Int8Config(backward=backward))
    want = with_gradients(x, w, None)
    are_equal = [np.array_equal(a, b) for a, b in zip(got, want, strict=True)]
    assert are_equal == [i in same for i in range(3)]


def test_rows_of_zeros_and_numbers_that_are_none():
    x = jnp.zeros((2, 3, 8)).at[1, 0, 0].set(jnp.nan).at[1, 1, 0].set(jnp.inf)
    out = linear(x, random(1, 8, 4), dots=dots(INT8, "mlp"))
    np.testing.assert_array_equal(out[0], 0.0)
    assert np.all(np.isnan(out[1, :2]))  # a step that went wrong is not hidden
    np.testing.assert_array_equal(out[1, 2], 0.0)


MESHES = [
    MeshConfig(data=8, fsdp=1),
    MeshConfig(data=1, fsdp=8),
    MeshConfig(data=1, fsdp=1, tensor=8),
    MeshConfig(data=2, fsdp=2, tensor=2),
]


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_every_dot_of_int8_is_equal_bit_by_bit_on_every_mesh(mesh):
    """Maxima and int32 sums know no order, so the contraction may be split at will."""
    x, w, g = random(0, 8, 16, 64), random(1, 64, 32), random(2, 8, 16, 32)

    def run(x, w, g):
        types = dots(ALL["int8"], "mlp")
        rows, last = range(2), range(2, 3)
        layout = (None, "mlp")
        return (
            quantized_dot(x, w, last, range(1), types.forward, layout),
            quantized_dot(g, w, last, range(1, 2), types.inputs, layout),
            quantized_dot(x, g, rows, rows, types.weights),
        )

    want = jax.jit(run)(x, w, g)
    rules = ShardingRules(ShardingConfig(), make_mesh(mesh))
    at = [
        rules.sharding(axes, v.shape, "test")
        for axes, v in (
            (("batch", None, "mlp"), x),  # what `down` contracts
            (("mlp", "embed"), w),
            (("batch", None, "act_embed"), g),
        )
    ]
    with use_rules(rules):
        got = jax.jit(run)(*jax.device_put((x, w, g), tuple(at)))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_ring_sums_quantised_rows():
    rules = ShardingRules(ShardingConfig(), make_mesh(MeshConfig(data=1, fsdp=8)))
    x, g = random(0, 16, 4, 32), random(1, 16, 4, 6, 2)
    types, rows = dots(ALL["int8"], "mlp").weights, range(2)
    assert types is not None

    def on_ring(x, g):
        lhs, rhs = quantize(x, rows, types.lhs), quantize(g, rows, types.rhs)
        sums = scattered_gradient(lhs.qvalue, rhs.qvalue, 2, rules, 8, x.dtype)
        return scaled(sums, lhs, rhs, 2)

    want = quantized_dot(x, g, rows, rows, types)
    np.testing.assert_allclose(jax.jit(on_ring)(x, g), want, rtol=1e-6)


def int8_dots(cfg: ModelConfig) -> int:
    graphdef, shapes, _ = abstract(cfg)
    ints = jax.ShapeDtypeStruct((8, 16), jnp.int32)

    def loss(params, tokens, positions):
        model = bind(graphdef, params)
        return jnp.sum(model.logits(model(tokens, positions, None)))

    text = str(jax.make_jaxpr(jax.grad(loss))(shapes, ints, ints))
    return len(re.findall(r"preferred_element_type=int32", text))


@pytest.mark.parametrize(
    ("mlp", "quantization", "count"),
    [
        (tiny.MODEL.mlp, None, 0),
        (tiny.MODEL.mlp, INT8, 2 * 7),
        (tiny.MODEL.mlp, Int8Config(parts=("mlp",)), 2 * 3),
        (tiny.MODEL.mlp, Int8Config(backward="none", parts=("attention",)), 4),
        (MlpConfig(kind="gelu", dim=64), Int8Config(backward="all"), 3 * 6),
        (MoeConfig(num_experts=4, dim=32), INT8, 2 * 4),  # experts stay in dtype
        (MoeConfig(num_experts=4, dim=32, num_shared_experts=1), INT8, 2 * 7),
    ],
)
def test_it_is_the_projections_of_the_parts_that_multiply_int8(
    mlp, quantization, count
):
    cfg = dataclasses.replace(tiny.MODEL, mlp=mlp, quantization=quantization)
    assert int8_dots(cfg) == count


def test_decoding_reads_the_weights_as_training_does():
    cfg = dataclasses.replace(tiny.MODEL, quantization=INT8)
    model = bind(abstract(cfg)[0], init_params(cfg, jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (2, 12), 0, cfg.vocab_size)
    positions = jnp.tile(jnp.arange(12), (2, 1))
    want = model(tokens, positions, None)
    got, _ = model.decode(tokens, positions, model.init_cache(2, 12))
    # As far apart as a number that two float sums round to different sides.
    np.testing.assert_allclose(got, want, atol=0.05)
    unquantised = dataclasses.replace(cfg, quantization=None)
    other = bind(abstract(unquantised)[0], init_params(cfg, jax.random.key(0)))
    far = jnp.linalg.norm(other(tokens, positions, None) - want)
    assert jnp.linalg.norm(got - want) < far / 4


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match=r"parts is \(\); name 'attention'"):
        Int8Config(parts=())
    with pytest.raises(ConfigError, match="name 'attention', 'mlp' or both, once"):
        Fp8Config(parts=("mlp", "mlp"))
    with pytest.raises(ConfigError, match="every MLP is experts, which are not"):
        ModelConfig(mlp=MoeConfig(), quantization=Int8Config(parts=("mlp",)))
    ModelConfig(mlp=MoeConfig(), quantization=INT8)
