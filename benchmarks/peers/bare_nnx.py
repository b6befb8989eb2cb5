# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The step in plain Flax NNX, layers unrolled, as Flax's own examples write it.

Environment: Podium's own.  python benchmarks/peers/bare_nnx.py --steps=10
"""

import functools
import time

_start = time.perf_counter()
import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx

_import_secs = time.perf_counter() - _start
import serve
from serve import CLIP_NORM, INIT_STD, LEARNING_RATE, B, D, F, H, L, N, T, V


class Block(nnx.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, dtype, rngs):
        make = functools.partial(
            nnx.Linear,
            dtype=dtype,
            kernel_init=nnx.initializers.normal(INIT_STD),
            rngs=rngs,
        )
        self.norm1 = nnx.LayerNorm(D, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.qkv, self.out = make(D, 3 * D), make(D, D)
        self.norm2 = nnx.LayerNorm(D, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.up, self.down = make(D, F), make(F, D)

    def __call__(self, x):
        q, k, v = jnp.split(self.qkv(self.norm1(x)), 3, axis=-1)
        q, k, v = (y.reshape(B, T, N, H) for y in (q, k, v))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.reshape(B, T, D))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class Gpt(nnx.Module):
    """Tokens to logits; the head is the embedding transposed."""

    def __init__(self, dtype, rngs):
        init = nnx.initializers.normal(INIT_STD)
        self.embed = nnx.Embed(V, D, dtype=dtype, embedding_init=init, rngs=rngs)
        self.positions = nnx.Param(init(rngs.params(), (T, D)))
        self.blocks = nnx.List([Block(dtype, rngs) for _ in range(L)])
        self.norm = nnx.LayerNorm(D, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x + self.positions[...].astype(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.embed.attend(self.norm(x)).astype(jnp.float32)


def main():
    args = serve.arguments(["unroll"], __doc__)
    model = Gpt(jnp.dtype(args.dtype), nnx.Rngs(0))
    optimizer = nnx.Optimizer(
        model,
        optax.chain(optax.clip_by_global_norm(CLIP_NORM), optax.adamw(LEARNING_RATE)),
        wrt=nnx.Param,
    )

    @nnx.jit(donate_argnums=(0, 1))
    def train_step(model, optimizer, tokens, targets):
        def loss_fn(model):
            return optax.softmax_cross_entropy_with_integer_labels(
                model(tokens), targets
            ).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    serve.serve(
        args,
        lambda tokens, targets: float(train_step(model, optimizer, tokens, targets)),
        {"jax": jax.__version__, "flax": flax.__version__},
        import_secs=_import_secs,
        num_params=sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))),
    )


if __name__ == "__main__":
    main()
