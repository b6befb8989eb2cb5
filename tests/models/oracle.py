# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Each family once more, in plain NumPy float64, from the papers: shares no code with src.

One function per family takes (params, tokens [T], positions [T], segments [T], shape
numbers) and returns logits [T, V]. Loops over heads and tokens; slow and obvious.
Parameters are the nested dict of `podium.models.bind`.
"""

import math

import numpy as np


def to_float64(tree):
    if isinstance(tree, dict):
        return {k: to_float64(v) for k, v in tree.items()}
    return np.asarray(tree, np.float64)


def layers_of(params, pattern_length, num_layers):
    """The parameters of each layer, in order."""

    def slice_(tree, i):
        if isinstance(tree, dict):
            return {k: slice_(v, i) for k, v in tree.items()}
        return tree[i]

    out = []
    if "prefix" in params:  # one layer in the tiny models
        out.append(slice_(params["prefix"]["block_0"], 0))
    whole = (num_layers - len(out)) // pattern_length
    for repeat in range(whole):
        for i in range(pattern_length):
            out.append(slice_(params["stack"][f"block_{i}"], repeat))
    for i in range(num_layers - len(out)):
        out.append(slice_(params["tail"][f"block_{i}"], 0))
    return out


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def layer_norm(x, p, eps):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * p["scale"] + p["bias"]


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def rope_one_head(x, positions, inv_freq):
    """x [T, H]: complex multiplication of (x_i, x_{i + H/2}) by exp(i * angle)."""
    half = x.shape[1] // 2
    z = x[:, :half] + 1j * x[:, half:]
    z = z * np.exp(1j * np.outer(positions, inv_freq))
    return np.concatenate([z.real, z.imag], axis=1)


def plain_frequencies(theta, head_dim):
    return np.array([1 / theta ** (2 * i / head_dim) for i in range(head_dim // 2)])


def llama3_frequencies(theta, head_dim, factor, low, high, old_context):
    out = []
    for freq in plain_frequencies(theta, head_dim):
        wavelength = 2 * math.pi / freq
        if wavelength < old_context / high:
            out.append(freq)
        elif wavelength > old_context / low:
            out.append(freq / factor)
        else:
            smooth = (old_context / wavelength - low) / (high - low)
            out.append((1 - smooth) * freq / factor + smooth * freq)
    return np.array(out)


def yarn_frequencies(theta, head_dim, factor, fast, slow, old_context):
    """Pair i is left alone below `first`, divided by `factor` from `last` on."""

    def index(turns):  # of the pair that turns so often in the old context
        wavelength = old_context / turns
        return head_dim / 2 * math.log(wavelength / (2 * math.pi), theta)

    first, last = max(0, math.floor(index(fast))), math.ceil(index(slow))
    out = []
    for i, freq in enumerate(plain_frequencies(theta, head_dim)):
        slowed = min(1.0, max(0.0, (i - first) / (last - first)))
        out.append((1 - slowed) * freq + slowed * freq / factor)
    return np.array(out)


def attend(q, k, v, segments, *, scale, window=None, cap=None):
    """q [T, N, H], k [T, K, H], v [T, K, U] -> [T, N, U]; one query and head at a time."""
    T, N, _ = q.shape
    group = N // k.shape[1]
    out = np.zeros((T, N, v.shape[-1]))
    for t in range(T):
        first = 0 if window is None else max(0, t - window + 1)
        seen = [s for s in range(first, t + 1) if segments[s] == segments[t]]
        for n in range(N):
            kv = n // group
            scores = np.array([scale * np.dot(q[t, n], k[s, kv]) for s in seen])
            if cap is not None:
                scores = cap * np.tanh(scores / cap)
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            out[t, n] = sum(w * v[s, kv] for w, s in zip(weights, seen, strict=True))
    return out


def project(x, kernel):
    """x [T, D] by kernel [D, heads, H]."""
    D, heads, H = kernel.shape
    return (x @ kernel.reshape(D, heads * H)).reshape(len(x), heads, H)


def merge(out, kernel):
    """Heads [T, N, H] by kernel [N, H, D]."""
    N, H, D = kernel.shape
    return out.reshape(len(out), N * H) @ kernel.reshape(N * H, D)


def gpt2(params, tokens, positions, segments, *, num_layers):
    params = to_float64(params)
    x = params["embed"]["table"][tokens] + params["embed"]["positions"][positions]
    for p in layers_of(params, 1, num_layers):
        a, h = p["attention"], layer_norm(x, p["attention_norm"], 1e-5)
        q = project(h, a["query"]) + a["query_bias"]
        k = project(h, a["key"]) + a["key_bias"]
        v = project(h, a["value"]) + a["value_bias"]
        out = attend(q, k, v, segments, scale=1 / math.sqrt(q.shape[-1]))
        x = x + merge(out, a["out"]) + a["out_bias"]
        h = layer_norm(x, p["mlp_norm"], 1e-5)
        h = gelu_tanh(h @ p["mlp"]["up"] + p["mlp"]["up_bias"])
        x = x + h @ p["mlp"]["down"] + p["mlp"]["down_bias"]
    x = layer_norm(x, params["final_norm"], 1e-5)
    return x @ params["embed"]["table"].T


def llama(
    params, tokens, positions, segments, *, num_layers, inv_freq, eps, window=None
):
    """Llama 2, 3, 3.1 by `inv_freq`; Mistral with a window; Qwen 2 if biases are there;
    Qwen 3 if QK norms are there."""
    params = to_float64(params)
    x = params["embed"]["table"][tokens]
    for p in layers_of(params, 1, num_layers):
        a = p["attention"]
        h = rms_norm(x, p["attention_norm"]["scale"], eps)
        q, k, v = (project(h, a[name]) for name in ("query", "key", "value"))
        if "query_bias" in a:
            q, k, v = q + a["query_bias"], k + a["key_bias"], v + a["value_bias"]
        if "query_norm" in a:
            q = rms_norm(q, a["query_norm"]["scale"], eps)
            k = rms_norm(k, a["key_norm"]["scale"], eps)
        for heads in (q, k):
            for n in range(heads.shape[1]):
                heads[:, n] = rope_one_head(heads[:, n], positions, inv_freq)
        scale = 1 / math.sqrt(q.shape[-1])
        x = x + merge(attend(q, k, v, segments, scale=scale, window=window), a["out"])
        h = rms_norm(x, p["mlp_norm"]["scale"], eps)
        m = p["mlp"]
        if "router" in m:
            x = x + np.stack([two_experts(token, m) for token in h])
        else:
            x = x + gated(h, m["gate"], m["up"], m["down"])
    x = rms_norm(x, params["final_norm"]["scale"], eps)
    return x @ (params["head"] if "head" in params else params["embed"]["table"].T)


def two_experts(h, m):
    """The best two experts of one token, weighted by the softmax of their logits."""
    logits = h @ m["router"]["kernel"]
    best = np.argsort(-logits)[:2]
    weights = np.exp(logits[best] - logits[best].max())
    weights /= weights.sum()
    return sum(
        w * gated(h, m["gate"][e], m["up"][e], m["down"][e])
        for e, w in zip(best, weights, strict=True)
    )


def deepseek(
    params, tokens, positions, segments, *, num_layers, inv_freq, mscale, choose
):
    """DeepSeek-V2 and V3; `choose(scores' logits, router) -> [(expert, weight)]`."""
    params, eps = to_float64(params), 1e-6
    x = params["embed"]["table"][tokens]
    for p in layers_of(params, 1, num_layers):
        a = p["attention"]
        h = rms_norm(x, p["attention_norm"]["scale"], eps)
        x = x + merge(
            latent_attention(h, a, positions, segments, inv_freq, mscale), a["out"]
        )
        h = rms_norm(x, p["mlp_norm"]["scale"], eps)
        m = p["mlp"]
        if "router" not in m:
            x = x + gated(h, m["gate"], m["up"], m["down"])
            continue
        out = gated(h, *(m["shared"][name] for name in ("gate", "up", "down")))
        for t, token in enumerate(h):
            for e, w in choose(token @ m["router"]["kernel"], m["router"]):
                out[t] += w * gated(token, m["gate"][e], m["up"][e], m["down"][e])
        x = x + out
    x = rms_norm(x, params["final_norm"]["scale"], eps)
    return x @ params["head"]


def gated(x, gate, up, down):
    return (silu(x @ gate) * (x @ up)) @ down


def latent_attention(h, a, positions, segments, inv_freq, mscale):
    """Keys and values of every head written out, [T, N, U]. The scores of latent
    attention grow by (0.1 mscale ln 40 + 1) ** 2."""
    rope_dim, rank = 2 * len(inv_freq), a["kv_norm"]["scale"].shape[0]
    q_in = h
    if "query_down" in a:
        q_in = rms_norm(h @ a["query_down"], a["query_norm"]["scale"], 1e-6)
    q = project(q_in, a["query"])
    compressed = h @ a["kv_down"]
    c = rms_norm(compressed[:, :rank], a["kv_norm"]["scale"], 1e-6)
    k_rope = rope_one_head(compressed[:, rank:], positions, inv_freq)
    k_nope, v = project(c, a["key"]), project(c, a["value"])
    T, N, nope = k_nope.shape
    k = np.zeros((T, N, nope + rope_dim))
    for n in range(N):
        q[:, n, nope:] = rope_one_head(q[:, n, nope:], positions, inv_freq)
        k[:, n] = np.concatenate([k_nope[:, n], k_rope], axis=1)
    scale = (0.1 * mscale * math.log(40) + 1) ** 2 / math.sqrt(nope + rope_dim)
    return attend(q, k, v, segments, scale=scale)


def choose_v2(logits, router):
    """The best two, weighted by their share of the softmax over all."""
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    return [(e, scores[e]) for e in np.argsort(-scores)[:2]]


def choose_v3(logits, router):
    """The best three in the two of four groups whose best two are best, by biased
    sigmoids; their weights sum to 2.5."""
    scores = 1 / (1 + np.exp(-logits))
    ranked = scores + router["choice_bias"]
    worth = [sum(sorted(ranked[3 * g : 3 * g + 3])[1:]) for g in range(4)]
    groups = np.argsort(worth)[2:]
    allowed = [e for e in range(12) if e // 3 in groups]
    best = sorted(allowed, key=lambda e: -ranked[e])[:3]
    return [(e, 2.5 * scores[e] / sum(scores[best])) for e in best]


def gemma(
    params,
    tokens,
    positions,
    segments,
    *,
    num_layers,
    is_local,
    window,
    global_freq,
    local_freq,
    scale,
    cap=None,
    final_cap=None,
):
    """Gemma 2 (caps) and Gemma 3 (QK norm, two RoPE bases); weights are stored minus 1."""
    params = to_float64(params)
    eps = 1e-6
    x = params["embed"]["table"][tokens]
    x = x * math.sqrt(x.shape[-1])
    for i, p in enumerate(layers_of(params, len(is_local), num_layers)):
        local = is_local[i % len(is_local)]
        a = p["attention"]
        h = rms_norm(x, 1 + p["attention_norm"]["scale"], eps)
        q, k, v = (project(h, a[name]) for name in ("query", "key", "value"))
        if "query_norm" in a:
            q = rms_norm(q, 1 + a["query_norm"]["scale"], eps)
            k = rms_norm(k, 1 + a["key_norm"]["scale"], eps)
        freq = local_freq if local else global_freq
        for heads in (q, k):
            for n in range(heads.shape[1]):
                heads[:, n] = rope_one_head(heads[:, n], positions, freq)
        w = window if local else None
        out = attend(q, k, v, segments, scale=scale, window=w, cap=cap)
        h = rms_norm(merge(out, a["out"]), 1 + p["attention_post_norm"]["scale"], eps)
        x = x + h
        h = rms_norm(x, 1 + p["mlp_norm"]["scale"], eps)
        m = p["mlp"]
        h = (gelu_tanh(h @ m["gate"]) * (h @ m["up"])) @ m["down"]
        x = x + rms_norm(h, 1 + p["mlp_post_norm"]["scale"], eps)
    x = rms_norm(x, 1 + params["final_norm"]["scale"], eps)
    logits = x @ params["embed"]["table"].T
    return logits if final_cap is None else final_cap * np.tanh(logits / final_cap)
