# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A ring's blocks by the kernel, interpreted, against the ones in plain JAX."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

from podium.models import attention_ring, attention_ring_splash, attention_ring_xla
from podium.models.attention_ring import Seen
from podium.models.attention_splash import make_kernel
from podium.sharding.constrain import use_rules
from tests.models.test_attention_ring import rules

PIECE = 128
NOTHING = -1e29  # a normaliser below this: the query sees no key of the block
# Queries and keys of each block, and where in a row of 8 pieces they stand: device 2 of
# 4 holds pieces 2 and 5, device 1 pieces 1 and 6, device 3 pieces 3 and 4.
BLOCKS = {"own": ((2, 5), (2, 5)), "earlier": ((2, 5), (1,)), "later": ((5,), (3, 4))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of call; a name for every field that is not the usual."""

    B: int = 2
    K: int = 2
    G: int = 2
    H: int = 16
    U: int = 16
    cap: float | None = None
    packed: bool = True


CASES = {
    "packed": Case(),
    "whole": Case(G=1, packed=False),
    "cap, narrow values": Case(H=24, U=16, cap=2.0),
}


def positions(pieces):
    return jnp.concatenate([p * PIECE + jnp.arange(PIECE) for p in pieces])


def inputs(case: Case, where: str):
    rng = np.random.default_rng(0)
    q_at, k_at = map(positions, BLOCKS[where])
    shapes = (
        (case.B, case.K, case.G, len(q_at), case.H),
        (case.B, case.K, len(k_at), case.H),
        (case.B, case.K, len(k_at), case.U),
    )
    q, k, v = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)
    q_ids = k_ids = None
    if case.packed:  # some queries see nothing of another device's keys
        starts = np.sort(rng.integers(0, 8 * PIECE, (case.B, 5, 1)), axis=1)
        ids = jnp.asarray((np.arange(8 * PIECE) >= starts).sum(axis=1), jnp.int32)
        q_ids, k_ids = ids[:, q_at], ids[:, k_at]
    return q, k, v, Seen(q_at, k_at, q_ids, k_ids, is_own=where == "own")


@pytest.mark.parametrize("where", BLOCKS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_block_by_the_kernel_equals_the_one_in_plain_jax(case, where):
    plain = attention_ring_xla.Blocks(window=None, cap=case.cap)
    kernel = attention_ring_splash.Blocks(window=None, cap=case.cap, interpret=True)
    q, k, v, seen = inputs(case, where)
    out, lse = map(np.asarray, plain.forward(q, k, v, seen))
    got_out, got_lse = map(
        np.asarray, jax.jit(lambda *x: kernel.forward(*x, seen))(q, k, v)
    )
    sees = lse > NOTHING
    if case.packed and where != "own":
        assert not sees.all()
    assert np.isfinite(got_out).all()
    assert np.isfinite(got_lse).all()
    assert (got_lse[~sees] < NOTHING).all()
    close = {"rtol": 2e-5, "atol": 2e-5}
    np.testing.assert_allclose(got_lse[sees], lse[sees], **close)
    np.testing.assert_allclose(
        np.where(sees, got_out, 0), np.where(sees, out, 0), **close
    )

    # Of the whole row: other keys made the normalisers larger and the means others.
    rng = np.random.default_rng(1)
    lse = np.where(sees, lse + 0.5, 3.0).astype(np.float32)
    out, dout = (rng.standard_normal(out.shape, np.float32) for _ in "ab")
    want, got = (
        jax.jit(lambda *x, f=f: f(*x[:3], seen, *x[3:]))(q, k, v, out, lse, dout)
        for f in (plain.backward, kernel.backward)
    )
    for w, g in zip(want, got, strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-5, atol=5e-5)


def test_jax_has_the_private_gradient_as_it_is_called():
    kernel = make_kernel(masks.FullMask((128, 128)), num_heads=1, cap=None)
    found = inspect.signature(splash._splash_attention_bwd).parameters
    assert set(found) == {*kernel.kwargs, "res", "do"}, (
        "JAX changed the private gradient of its splash kernel: "
        "podium/models/attention_ring_splash.py has to follow"
    )
    residuals = [str(part) for part in splash.SplashResidualsType.__args__]
    for part, name in zip(residuals[3:5], ("SegmentIds", "Array"), strict=True):
        assert name in part, residuals  # the order in `_gradients`
    assert [("MaskInfo" in part) for part in residuals] == [False] * 7 + [True] * 2


def lowered(context, policy=None):
    T, heads = 256 * context, (4, 64)
    blocks = attention_ring_splash.Blocks(window=None, cap=None)
    x = jnp.zeros((1, T, *heads), jnp.bfloat16)

    def loss(q, k, v):
        out = attention_ring.attention(q, k, v, None, blocks=blocks)
        return jnp.sum(out.astype(jnp.float32))

    with use_rules(rules(context)):
        grad = jax.value_and_grad(jax.checkpoint(loss, policy=policy), (0, 1, 2))
        text = jax.jit(grad).trace(x, x, x).lower(lowering_platforms=("tpu",)).as_text()
    forward = len(re.findall(r"call @_splash_attention\w*\(", text))
    return forward, set(re.findall(r'kernel_name = "splash_mha_([a-z]+)_', text))


def test_a_ring_lowers_for_tpus_and_keeps_what_remat_names():
    again, kernels = lowered(4, jax.checkpoint_policies.nothing_saveable)
    assert kernels == {"fwd", "dq", "dkv"}
    names = jax.checkpoint_policies.save_only_these_names("attention_out")
    kept, _ = lowered(4, names)
    # Of the device's own keys; of others in a loop; and of the last: both branches.
    assert (kept, again) == (1 + 2 + 2, 2 * (1 + 2 + 2))
