# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""One plain reference for attention, and the cases every implementation must match.

On a GPU or TPU, run the whole matrix on the device itself:

    python -m tests.models.attention_matrix
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes and features of one call."""

    name: str
    T: int = 128
    N: int = 2
    K: int = 2
    H: int = 16
    U: int | None = None  # channels of a value, where not H
    window: int | None = None
    cap: float | None = None
    packed: bool = True


CASES = (
    Case("one_document", packed=False),
    Case("packed"),
    Case("grouped_heads", N=4, K=2),
    Case("one_kv_head", N=4, K=1),
    Case("window", window=20),
    Case("window_of_one", window=1),
    Case("soft_cap", cap=1.5),
    Case("odd_length", T=75),
    Case("narrow_values", H=24, U=16, N=4, K=2),
    Case("wide_values", H=16, U=40, window=20),
    Case("two_blocks", T=256, window=100, N=4, K=2, cap=2.0),
)


def inputs(case, dtype="float32", batch=2):
    rng = np.random.default_rng(0)
    B, T, N, K, H = batch, case.T, case.N, case.K, case.H
    q = rng.standard_normal((B, T, N, H)) * H**-0.5 * 2
    k = rng.standard_normal((B, T, K, H))
    v = rng.standard_normal((B, T, K, case.U or H))
    ids = None
    if case.packed:
        ids = np.zeros((B, T), np.int32)  # the end is padding
        for row in range(B):
            borders = np.sort(rng.choice(np.arange(1, T - 5), 3, replace=False))
            ids[row, : T - 5] = 1 + np.searchsorted(borders, np.arange(T - 5), "right")
    q, k, v = (jnp.asarray(x, dtype) for x in (q, k, v))
    return q, k, v, None if ids is None else jnp.asarray(ids)


def reference(q_BTNH, k_BTKH, v_BTKH, ids_BT, *, window, cap):
    """NumPy float64, one query at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q_BTNH, k_BTKH, v_BTKH))
    B, T, N, _ = q.shape
    out = np.zeros((B, T, N, v.shape[-1]))
    group = N // k.shape[2]
    for b in range(B):
        for t in range(T):
            keys = np.arange(T)
            seen = keys <= t
            if window is not None:
                seen &= keys > t - window
            if ids_BT is not None:
                seen &= ids_BT[b] == ids_BT[b, t]
            for n in range(N):
                s = k[b, seen, n // group] @ q[b, t, n]
                s = s if cap is None else cap * np.tanh(s / cap)
                w = np.exp(s - s.max())
                out[b, t, n] = (w / w.sum()) @ v[b, seen, n // group]
    return out


def reference_gradients(q, k, v, ids, cotangent, *, window, cap):
    """Gradients of sum(out * cotangent), by JAX, of one dense float32 formula."""

    def objective(q, k, v):
        T, group = q.shape[1], q.shape[2] // k.shape[2]
        k, v = (jnp.repeat(x, group, axis=2) for x in (k, v))
        s = jnp.einsum("btnh,bsnh->bnts", q, k)
        s = s if cap is None else cap * jnp.tanh(s / cap)
        seen = np.tril(np.ones((T, T), bool))
        if window is not None:
            seen &= ~np.tril(np.ones((T, T), bool), -window)
        seen = seen[None, None]
        if ids is not None:
            seen = seen & (ids[:, None, :, None] == ids[:, None, None, :])
        w = jax.nn.softmax(jnp.where(seen, s, -jnp.inf), axis=-1)
        return jnp.sum(jnp.einsum("bnts,bsnh->btnh", w, v) * cotangent)

    full = (x.astype(jnp.float32) for x in (q, k, v))
    return jax.grad(objective, argnums=(0, 1, 2))(*full)


def check(attention, case, *, dtype="float32", tolerance=2e-5, **kwargs):
    """Output and gradients of `attention` against the references."""
    q, k, v, ids = inputs(case, dtype)
    shape = (*q.shape[:3], v.shape[-1])
    cotangent = jnp.asarray(np.random.default_rng(1).standard_normal(shape), q.dtype)
    features = {"window": case.window, "cap": case.cap}

    @jax.jit
    def run(q, k, v):
        out, vjp = jax.vjp(
            lambda q, k, v: attention(q, k, v, ids, **features, **kwargs), q, k, v
        )
        return out, vjp(cotangent)

    out, grads = run(q, k, v)
    assert out.dtype == q.dtype
    want = reference(q, k, v, ids, **features)
    np.testing.assert_allclose(
        np.asarray(out, np.float64), want, rtol=tolerance, atol=tolerance
    )
    want_grads = reference_gradients(
        q, k, v, ids, cotangent.astype(jnp.float32), **features
    )
    for got, want in zip(grads, want_grads, strict=True):
        scale = max(1.0, float(jnp.abs(want).max()))
        np.testing.assert_allclose(
            np.asarray(got, np.float64), want, rtol=0, atol=tolerance * 10 * scale
        )


def main():
    from podium.models.attention_dispatch import (
        IMPLEMENTATIONS,
        Call,
        current_platform,
    )

    for implementation in IMPLEMENTATIONS:
        for case in CASES:
            for dtype, tolerance in (("float32", 2e-5), ("bfloat16", 2e-2)):
                call = Call(
                    platform=current_platform(),
                    dtype=dtype,
                    head_dim=case.H,
                    value_dim=case.U or case.H,
                    num_tokens=case.T,
                    has_segments=case.packed,
                    has_window=case.window is not None,
                    has_soft_cap=case.cap is not None,
                )
                result = implementation.missing(call)
                if result is None:
                    try:
                        with jax.default_matmul_precision("highest"):
                            check(
                                implementation.load(call),
                                case,
                                dtype=dtype,
                                tolerance=tolerance,
                            )
                        result = "ok"
                    except AssertionError as error:
                        result = f"WRONG {' '.join(str(error).split())[:200]}"
                print(f"{implementation.name:8} {case.name:16} {dtype:9} {result}")


if __name__ == "__main__":
    main()
