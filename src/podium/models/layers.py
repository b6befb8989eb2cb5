# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Embeddings, norms and MLPs: the parts of a block that look at one token at a time.

Weights are float32 and cast to the activation's type where they are used; the
statistics of a norm are float32 whatever comes in.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from podium.config_model import LayerNormConfig, MlpConfig, ModelConfig, RMSNormConfig
from podium.config_positions import LearnedPositionConfig
from podium.models.linear import dot, linear
from podium.models.quantized import dots
from podium.models.width import Summed, kernel_std, ratios
from podium.sharding.constrain import current_platform, param, shard


def match_rank(weight: Array, x: Array) -> Array:
    """`weight` in x's type with leading axes of size 1 up to x's rank."""
    leading = tuple(range(x.ndim - weight.ndim))
    return jnp.expand_dims(weight.astype(x.dtype), leading)


def make_bias(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], *, use: bool
) -> nnx.Param | None:
    """A bias that starts at zero, or None."""
    zeros = nnx.initializers.zeros_init()
    return param(rngs, shape, axes=axes, init=zeros) if use else None


def add_bias(x: Array, bias: nnx.Param | None) -> Array:
    """X plus a bias over its last axes; None adds nothing."""
    return x if bias is None else _add_bias(x, bias[...].astype(x.dtype))


@jax.custom_vjp
def _add_bias(x: Array, bias: Array) -> Array:
    return x + match_rank(bias, x)


def _add_bias_backward(shape: tuple[int, ...], g: Array) -> tuple[Array, Array]:
    # The sum over rows as a dot with ones: summed in float32, and on a CPU several
    # times faster than XLA's reduction of bfloat16.
    rows = range(g.ndim - len(shape))
    ones = jnp.ones(g.shape[: len(rows)], g.dtype)
    return g, dot(ones, g, rows, rows)


_add_bias.defvjp(lambda x, bias: (_add_bias(x, bias), bias.shape), _add_bias_backward)


def soft_cap(x: Array, cap: float | None) -> Array:
    """Squashes x smoothly into (-cap, cap). Gemma 2, arXiv:2408.00118, section 2."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def from_inputs(fn: Callable[..., Array]) -> Callable[..., Array]:
    """`fn`, cheap and in float32, whose gradient on GPUs starts from its arguments.

    Else what a norm or an activation computed on the way waits in memory, in float32
    and a copy a layer: in a step of GPT-2 124M these were 12 of 31 GiB. Other platforms
    are left to their compilers; under `model.remat` nothing waits anyhow.
    """

    @functools.wraps(fn)
    def run(*args: Array) -> Array:
        if current_platform() != "gpu":
            return fn(*args)
        return jax.checkpoint(fn)(*args)

    return run


def gelu(x: Array) -> Array:
    """The tanh form of GELU, arXiv:1606.08415, computed in float32, rounded once."""
    return nnx.gelu(x.astype(jnp.float32)).astype(x.dtype)


def silu(x: Array) -> Array:
    """x * sigmoid(x), computed in float32, rounded once."""
    return nnx.silu(x.astype(jnp.float32)).astype(x.dtype)


def normal(cfg: ModelConfig) -> Callable[..., Array]:
    """Initializer of embeddings and of the output head."""
    return nnx.initializers.normal(cfg.init_std)


def kernel_normal(cfg: ModelConfig) -> Callable[..., Array]:
    """Initializer of kernels that read the residual stream."""
    return nnx.initializers.normal(kernel_std(cfg, "embed"))


def residual_normal(cfg: ModelConfig, sums: Summed) -> Callable[..., Array]:
    """Initializer of the two kernels per block that write to the residual stream.

    Smaller by sqrt(2 * num_layers), so that the sum over all branches starts at the
    same variance at any depth (GPT-2 report, section 2.3).
    """
    return nnx.initializers.normal(kernel_std(cfg, sums) / (2 * cfg.num_layers) ** 0.5)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x**2) + eps) * (scale + scale_offset). arXiv:1910.07467.

    The scale is applied in float32, before the cast back: Gemma's order. Llama casts
    first; in float32 both are the same.
    """

    def __init__(
        self, cfg: RMSNormConfig, dim: int, *, axis: str = "embed", rngs: nnx.Rngs
    ):
        init = nnx.initializers.constant(1.0 - cfg.scale_offset)
        self.scale = param(rngs, (dim,), axes=(axis,), init=init)
        self.eps, self.scale_offset = cfg.eps, cfg.scale_offset

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        """Normalises the last axis of x, of any rank."""

        @from_inputs
        def norm(x: Array, scale: Array) -> Array:
            y = x.astype(jnp.float32)
            y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
            return (y * match_rank(scale, y)).astype(x.dtype)

        return norm(x, self.scale[...] + self.scale_offset)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps) * scale + bias. arXiv:1607.06450."""

    def __init__(self, cfg: LayerNormConfig, dim: int, *, rngs: nnx.Rngs):
        ones = nnx.initializers.ones_init()
        self.scale = param(rngs, (dim,), axes=("embed",), init=ones)
        self.bias = make_bias(rngs, (dim,), ("embed",), use=cfg.use_bias)
        self.eps = cfg.eps

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        """Normalises the last axis of x, of any rank."""
        if current_platform() == "gpu":
            bias = None if self.bias is None else self.bias[...]
            return _layer_norm(self.eps, x, self.scale[...], bias)
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return add_bias(y * match_rank(self.scale[...], y), self.bias).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(eps: float, x: Array, scale: Array, bias: Array | None) -> Array:
    """LayerNorm with its gradient written out, for GPUs.

    It keeps x and two numbers a row, and reads x and the gradient twice: for the sums of
    rows, then for the result together with the sums of columns. From automatic
    differentiation XLA:GPU makes three kernels with a float32 copy of x between them.
    """
    return _layer_norm_forward(eps, x, scale, bias)[0]


def _layer_norm_forward(eps: float, x: Array, scale: Array, bias: Array | None):
    y = x.astype(jnp.float32)
    mean = jnp.mean(y, axis=-1, keepdims=True)
    y = y - mean
    inverse = jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    y = y * inverse * match_rank(scale, x.astype(jnp.float32))
    y = y if bias is None else y + match_rank(bias, y)
    return y.astype(x.dtype), (x, mean, inverse, scale, bias)


def _layer_norm_backward(eps: float, saved: tuple, g: Array):
    x, mean, inverse, scale, bias = saved
    x, mean, inverse, g = jax.lax.optimization_barrier((x, mean, inverse, g))
    g32, rows = g.astype(jnp.float32), tuple(range(g.ndim - 1))
    normed = (x.astype(jnp.float32) - mean) * inverse
    dy = g32 * match_rank(scale, g32)
    shift = jnp.mean(dy, axis=-1, keepdims=True)
    along = jnp.mean(dy * normed, axis=-1, keepdims=True)
    # Apart, so that the sums of columns below come from the same reading as dx.
    shift, along = jax.lax.optimization_barrier((shift, along))
    dx = inverse * (dy - shift - normed * along)
    dbias = None if bias is None else jnp.sum(g32, rows)
    return dx.astype(g.dtype), jnp.sum(g32 * normed, rows), dbias


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def make_norm(cfg: ModelConfig, *, rngs: nnx.Rngs) -> RMSNorm | LayerNorm:
    """The model's norm over the residual stream."""
    if isinstance(cfg.norm, LayerNormConfig):
        return LayerNorm(cfg.norm, cfg.embed_dim, rngs=rngs)
    return RMSNorm(cfg.norm, cfg.embed_dim, rngs=rngs)


def gated(act: Callable[[Array], Array], gate: Array, up: Array) -> Array:
    """act(gate) * up."""
    if current_platform() == "tpu":
        return _gated_apart(act, gate, up)
    return from_inputs(lambda gate, up: act(gate) * up)(gate, up)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gated_apart(act: Callable[[Array], Array], gate: Array, up: Array) -> Array:
    """`gated` and its gradient, each computed once and written to memory.

    Left alone, XLA:TPU computes them anew in every block of the matmuls that read
    them: those ran at 59% of peak instead of 95%, and a 7B step on v5e took 5% longer.
    """
    return jax.lax.optimization_barrier(act(gate) * up)


def _gated_forward(act: Callable[[Array], Array], gate: Array, up: Array):
    return _gated_apart(act, gate, up), (gate, up)


def _gated_backward(
    act: Callable[[Array], Array], saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    _, backward = jax.vjp(lambda gate, up: act(gate) * up, *saved)
    return jax.lax.optimization_barrier(backward(g))


_gated_apart.defvjp(_gated_forward, _gated_backward)


class GatedMlp(nnx.Module):
    """down(act(gate(x)) * up(x)): SwiGLU and GeGLU. Shazeer 2020, arXiv:2002.05202."""

    def __init__(self, cfg: ModelConfig, mlp: MlpConfig, *, rngs: nnx.Rngs):
        D, F = cfg.embed_dim, mlp.dim
        self.dots = dots(cfg.quantization, "mlp")
        self.act = silu if mlp.kind == "swiglu" else gelu
        self.gate = param(rngs, (D, F), axes=("embed", "mlp"), init=kernel_normal(cfg))
        self.up = param(rngs, (D, F), axes=("embed", "mlp"), init=kernel_normal(cfg))
        self.down = param(
            rngs, (F, D), axes=("mlp", "embed"), init=residual_normal(cfg, "mlp")
        )
        self.gate_bias = make_bias(rngs, (F,), ("mlp",), use=mlp.use_bias)
        self.up_bias = make_bias(rngs, (F,), ("mlp",), use=mlp.use_bias)
        self.down_bias = make_bias(rngs, (D,), ("embed",), use=mlp.use_bias)

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """[B, T, D] -> [B, T, D]."""
        gate_BTF = add_bias(linear(x_BTD, self.gate, dots=self.dots), self.gate_bias)
        gate_BTF = checkpoint_name(gate_BTF, "gate")
        up_BTF = add_bias(linear(x_BTD, self.up, dots=self.dots), self.up_bias)
        up_BTF = checkpoint_name(up_BTF, "up")
        h_BTF = shard(gated(self.act, gate_BTF, up_BTF), "batch", "length", "mlp")
        return add_bias(linear(h_BTF, self.down, dots=self.dots), self.down_bias)


class GeluMlp(nnx.Module):
    """down(gelu(up(x))), the tanh form of GELU (GPT-2). arXiv:1606.08415."""

    def __init__(self, cfg: ModelConfig, mlp: MlpConfig, *, rngs: nnx.Rngs):
        D, F = cfg.embed_dim, mlp.dim
        self.dots = dots(cfg.quantization, "mlp")
        self.up = param(rngs, (D, F), axes=("embed", "mlp"), init=kernel_normal(cfg))
        self.down = param(
            rngs, (F, D), axes=("mlp", "embed"), init=residual_normal(cfg, "mlp")
        )
        self.up_bias = make_bias(rngs, (F,), ("mlp",), use=mlp.use_bias)
        self.down_bias = make_bias(rngs, (D,), ("embed",), use=mlp.use_bias)

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """[B, T, D] -> [B, T, D]."""
        up_BTF = checkpoint_name(linear(x_BTD, self.up, dots=self.dots), "up")
        activate = from_inputs(lambda up_BTF: gelu(add_bias(up_BTF, self.up_bias)))
        h_BTF = shard(activate(up_BTF), "batch", "length", "mlp")
        return add_bias(linear(h_BTF, self.down, dots=self.dots), self.down_bias)


class Embed(nnx.Module):
    """Tokens -> vectors, with learned positions where the model has them."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
        V, D = cfg.vocab_rows, cfg.embed_dim
        self.table = param(rngs, (V, D), axes=("vocab", "embed"), init=normal(cfg))
        self.positions = (
            param(
                rngs,
                (cfg.position.max_tokens, D),
                axes=(None, "embed"),
                init=normal(cfg),
            )
            if isinstance(cfg.position, LearnedPositionConfig)
            else None
        )
        self.dtype = jnp.dtype(cfg.dtype)
        base_D = D / ratios(cfg).embed
        self.multiplier = base_D**0.5 if cfg.embed_scale == "sqrt_dim" else None

    def __call__(
        self, tokens_BT: Int[Array, "B T"], positions_BT: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """[B, T, D] in the compute type. Ids outside the tables are clamped."""
        # The table is gathered along its width before the lookup, as every weight
        # is under FSDP; left to itself the partitioner replicates the result too.
        table_VD = shard(self.table[...].astype(self.dtype), "vocab", None)
        x_BTD = jnp.take(table_VD, tokens_BT, axis=0, mode="clip")
        if self.multiplier is not None:
            # Rounded to the compute type, as the released Gemma weights expect.
            x_BTD = x_BTD * jnp.asarray(self.multiplier, self.dtype)
        if self.positions is not None:
            at_BTD = jnp.take(self.positions[...], positions_BT, axis=0, mode="clip")
            x_BTD = x_BTD + at_BTD.astype(self.dtype)
        return x_BTD
