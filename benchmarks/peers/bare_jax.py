# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The step as one writes it by hand in JAX: pure functions, optax, nothing else.

Environment: Podium's own.  python benchmarks/peers/bare_jax.py --steps=10
"""

import functools
import time

_start = time.perf_counter()
import jax
import jax.numpy as jnp
import optax

_import_secs = time.perf_counter() - _start
import serve
from serve import CLIP_NORM, INIT_STD, LEARNING_RATE, D, F, H, L, N, T, V


def init(key):
    keys = iter(jax.random.split(key, 8))

    def normal(*shape):
        return INIT_STD * jax.random.normal(next(keys), shape)

    layers = {
        "norm1": {"scale": jnp.ones((L, D)), "bias": jnp.zeros((L, D))},
        "qkv": {"kernel": normal(L, D, 3, N, H), "bias": jnp.zeros((L, 3, N, H))},
        "out": {"kernel": normal(L, N, H, D), "bias": jnp.zeros((L, D))},
        "norm2": {"scale": jnp.ones((L, D)), "bias": jnp.zeros((L, D))},
        "up": {"kernel": normal(L, D, F), "bias": jnp.zeros((L, F))},
        "down": {"kernel": normal(L, F, D), "bias": jnp.zeros((L, D))},
    }
    return {
        "embed": normal(V, D),
        "positions": normal(T, D),
        "layers": layers,
        "norm": {"scale": jnp.ones(D), "bias": jnp.zeros(D)},
    }


def norm(x, p):
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + 1e-5)
    return (y * p["scale"] + p["bias"]).astype(x.dtype)


def linear(spec, x, p):
    return jnp.einsum(spec, x, p["kernel"].astype(x.dtype)) + p["bias"].astype(x.dtype)


def block(x, p):
    qkv = linear("btd,dcnh->btcnh", norm(x, p["norm1"]), p["qkv"])
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    scores = jnp.einsum("btnh,bsnh->bnts", q, k).astype(jnp.float32) * H**-0.5
    scores = jnp.where(jnp.tril(jnp.ones((T, T), bool)), scores, -1e30)
    weights = jax.nn.softmax(scores, -1).astype(x.dtype)
    attended = jnp.einsum("bnts,bsnh->btnh", weights, v)
    x = x + linear("btnh,nhd->btd", attended, p["out"])
    h = jax.nn.gelu(linear("btd,df->btf", norm(x, p["norm2"]), p["up"]))
    return x + linear("btf,fd->btd", h, p["down"])


def loss_fn(params, tokens, targets, *, variant, dtype):
    x = (params["embed"][tokens] + params["positions"]).astype(dtype)
    body = jax.checkpoint(block) if variant == "scan_remat" else block
    if variant == "unroll":
        for i in range(L):
            x = body(x, jax.tree.map(lambda a, i=i: a[i], params["layers"]))
    else:
        x, _ = jax.lax.scan(lambda x, p: (body(x, p), None), x, params["layers"])
    x = norm(x, params["norm"])
    logits = jnp.einsum("btd,vd->btv", x, params["embed"].astype(dtype))
    return optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), targets
    ).mean()


def main():
    args = serve.arguments(["scan", "scan_remat", "unroll"], __doc__)
    optimizer = optax.chain(
        optax.clip_by_global_norm(CLIP_NORM), optax.adamw(LEARNING_RATE)
    )
    loss = functools.partial(loss_fn, variant=args.variant, dtype=args.dtype)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params, state, tokens, targets):
        value, grads = jax.value_and_grad(loss)(params, tokens, targets)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params = jax.jit(init)(jax.random.key(0))
    state = jax.jit(optimizer.init)(params)
    num_params = sum(x.size for x in jax.tree.leaves(params))

    def step(tokens, targets):
        nonlocal params, state
        params, state, value = train_step(params, state, tokens, targets)
        return float(value)

    serve.serve(
        args,
        step,
        {"jax": jax.__version__, "optax": optax.__version__},
        import_secs=_import_secs,
        num_params=num_params,
    )


if __name__ == "__main__":
    main()
