# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of a config.json that say a setting in another way than ours, both ways.

A `Part` reads some of their fields into a tree of settings (`to_json_dict` of a
ModelConfig) and writes such a tree as these fields.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from podium.errors import ConfigError
from podium.pretrained.fields import Fields, Tree

GLOBAL, LOCAL = "full_attention", "sliding_attention"


class Part(NamedTuple):
    """Both directions; `names`: of all fields that it may take or write."""

    names: tuple[str, ...]
    read: Callable[[Fields, Tree], None]
    write: Callable[[Tree], Tree]


# --- heads ---------------------------------------------------------------------------


def _read_head_dim(f: Fields, tree: Tree) -> None:
    dim = f.take("head_dim", None)
    tree["attention"]["head_dim"] = dim or _even_share(f, tree)


def _even_share(f: Fields, tree: Tree) -> int:
    width, heads = tree["embed_dim"], tree["attention"]["num_heads"]
    if width % heads:
        raise ConfigError(
            f"{f.where}: the width ({width}) does not divide over the heads ({heads}), "
            "and there is no head_dim"
        )
    return width // heads


HEAD_DIM = Part(
    ("head_dim",),
    _read_head_dim,
    lambda tree: {"head_dim": tree["attention"]["head_dim"]},
)


def _read_kv_heads(f: Fields, tree: Tree) -> None:
    heads = f.take("num_key_value_heads", None) or tree["attention"]["num_heads"]
    tree["attention"]["num_kv_heads"] = heads


KV_HEADS = Part(
    ("num_key_value_heads",),
    _read_kv_heads,
    lambda tree: {"num_key_value_heads": tree["attention"]["num_kv_heads"]},
)


def _read_gpt2_heads(f: Fields, tree: Tree) -> None:
    a = tree["attention"]
    a["num_kv_heads"], a["head_dim"] = a["num_heads"], _even_share(f, tree)
    tree["mlp"]["dim"] = f.take("n_inner", None) or 4 * tree["embed_dim"]


GPT2_SIZES = Part(
    ("n_inner",), _read_gpt2_heads, lambda tree: {"n_inner": tree["mlp"]["dim"]}
)


def _read_query_scale(f: Fields, tree: Tree) -> None:
    scalar = f.number("query_pre_attn_scalar")
    tree["attention"]["query_scale"] = scalar**-0.5


def _write_query_scale(tree: Tree) -> Tree:
    a = tree["attention"]
    scale = a["query_scale"] or a["head_dim"] ** -0.5
    scalar = scale**-2
    whole = round(scalar)
    is_whole = whole > 0 and whole**-0.5 == scale
    return {"query_pre_attn_scalar": whole if is_whole else scalar}


QUERY_SCALE = Part(("query_pre_attn_scalar",), _read_query_scale, _write_query_scale)


# --- windows -------------------------------------------------------------------------


def _read_one_window(f: Fields, tree: Tree) -> None:
    window = f.take("sliding_window", None)
    tree["attention"]["pattern"] = ["local" if window else "global"]
    tree["attention"]["window_tokens"] = window or None


ONE_WINDOW = Part(
    ("sliding_window",),
    _read_one_window,
    lambda tree: {"sliding_window": tree["attention"]["window_tokens"]},
)


def _window_part(
    usual: Callable[[Fields, int], list[str]], also: tuple[str, ...]
) -> Part:
    """`layer_types`, or, where a config has none, what the family did before it."""

    def read(f: Fields, tree: Tree) -> None:
        num = tree["num_layers"]
        before = usual(f, num)
        types, window = f.take("layer_types", None), f.take("sliding_window", None)
        types = before if types is None else types
        for name in types:
            if name not in (GLOBAL, LOCAL):
                raise ConfigError(
                    f"{f.where}: 'layer_types' has {name!r}, which is not supported; "
                    f"supported: {GLOBAL!r}, {LOCAL!r}"
                )
        if len(types) != num:
            raise ConfigError(
                f"{f.where}: 'layer_types' has {len(types)} entries for {num} layers"
            )
        kinds = ["local" if name == LOCAL else "global" for name in types]
        tree["attention"]["pattern"] = _period(kinds)
        tree["attention"]["window_tokens"] = window if "local" in kinds else None

    def write(tree: Tree) -> Tree:
        a = tree["attention"]
        kinds = layer_kinds(tree)
        types = [LOCAL if kind == "local" else GLOBAL for kind in kinds]
        out: Tree = {"layer_types": types, "sliding_window": a["window_tokens"]}
        if "use_sliding_window" in also:
            out["use_sliding_window"] = LOCAL in types
            out["max_window_layers"] = 0 if LOCAL in types else tree["num_layers"]
        return out

    return Part(("layer_types", "sliding_window", *also), read, write)


def _period(kinds: list[str]) -> list[str]:
    """The shortest list that, repeated, begins with `kinds`."""
    for n in range(1, len(kinds)):
        if all(kind == kinds[i % n] for i, kind in enumerate(kinds)):
            return kinds[:n]
    return kinds


def layer_kinds(tree: Tree) -> list[str]:
    """ "local" or "global" of every layer."""
    pattern = tree["attention"].get("pattern", ["global"])
    return [pattern[i % len(pattern)] for i in range(tree["num_layers"])]


def _usual_qwen(f: Fields, num: int) -> list[str]:
    first = f.take("max_window_layers", num)
    is_used = f.take("use_sliding_window", False)
    return [LOCAL if is_used and i >= first else GLOBAL for i in range(num)]


def _usual_gemma_2(f: Fields, num: int) -> list[str]:
    return [GLOBAL if i % 2 else LOCAL for i in range(num)]


def _usual_gemma_3(f: Fields, num: int) -> list[str]:
    every = f.take("_sliding_window_pattern", None)
    every = f.take("sliding_window_pattern", every) or 6
    return [LOCAL if (i + 1) % every else GLOBAL for i in range(num)]


QWEN_WINDOWS = _window_part(_usual_qwen, ("use_sliding_window", "max_window_layers"))
GEMMA_2_WINDOWS = _window_part(_usual_gemma_2, ())
GEMMA_3_WINDOWS = _window_part(
    _usual_gemma_3, ("sliding_window_pattern", "_sliding_window_pattern")
)


# --- positions -----------------------------------------------------------------------


def _rope_part(*, local_theta: float | None = None) -> Part:
    """RoPE as written by transformers before 5 (`rope_theta`, `rope_scaling`), which
    all tools read, and since (`rope_parameters`). `local_theta`: of Gemma 3."""
    names = ("rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq")

    def read(f: Fields, tree: Tree) -> None:
        usual = 10_000.0 if local_theta is None else 1_000_000.0
        theta = f.number("rope_theta", usual)
        scaling, name = f.take("rope_scaling", None), "rope_scaling"
        theirs = f.take("rope_parameters", None)
        local = f.number("rope_local_base_freq", local_theta) if local_theta else None
        if theirs is not None:
            _check_one_scaling(f, scaling, theirs)
            name = "rope_parameters"
            if GLOBAL in theirs or LOCAL in theirs:
                both = f.inside(name, theirs)
                scaling = both.take(GLOBAL)
                name = f"{name}.{GLOBAL}"
                locals_ = f.inside(f"rope_parameters.{LOCAL}", both.take(LOCAL))
                locals_.only("rope_type", "default", default=None)
                local = locals_.number("rope_theta", local)
                locals_.done()
                both.done()
            else:
                scaling = theirs
        position: Tree = {"kind": "rope", "theta": theta, "local_theta": local}
        tree["position"] = position
        if local_theta is None and local is not None:
            raise ConfigError(f"{f.where}: {f.family} has one base of RoPE")
        if scaling is None:
            position["scaling"] = None
            return
        inner = f.inside(name, scaling)
        position["theta"] = inner.number("rope_theta", theta)
        position["scaling"] = _read_scaling(inner, f)
        inner.done()

    def write(tree: Tree) -> Tree:
        position = tree["position"]
        out: Tree = {
            "rope_theta": position["theta"],
            "rope_scaling": _write_scaling(position["scaling"]),
        }
        if local_theta is not None:
            local = position["local_theta"]
            out["rope_local_base_freq"] = position["theta"] if local is None else local
        return out

    return Part(names, read, write)


def _check_one_scaling(f: Fields, old: Tree | None, new: Tree) -> None:
    """transformers 5 reads `rope_scaling` in place of all that `rope_parameters` says, its
    base too, where both are there: none of the two is what its author meant."""

    def said(tree: Tree) -> Tree:
        out = {k: v for k, v in tree.items() if k not in ("type", "rope_theta")}
        return out | {"rope_type": tree.get("rope_type", tree.get("type", "default"))}

    if old and said(old) != said(new.get(GLOBAL, new)):
        raise ConfigError(
            f"{f.where}: 'rope_scaling' is {old} and 'rope_parameters' is {new}; put what "
            "is meant into 'rope_parameters', 'rope_theta' too, and take the other out"
        )


def _read_scaling(f: Fields, outer: Fields) -> Tree | None:
    kind = f.take("rope_type", f.take("type", "default"))
    f.only("partial_rotary_factor", 1.0, default=None)
    match kind:
        case "default":
            return None
        case "linear":
            return {"kind": "linear", "factor": f.number("factor")}
        case "llama3":
            return {
                "kind": "llama3",
                "factor": f.number("factor"),
                "low_freq_factor": f.number("low_freq_factor"),
                "high_freq_factor": f.number("high_freq_factor"),
                "original_max_tokens": f.number("original_max_position_embeddings"),
            }
        case "yarn":
            return _read_yarn(f, outer)
    raise ConfigError(
        f"{f.where}: 'rope_type' is {kind!r}, which is not supported; supported: "
        "'default', 'linear', 'llama3', 'yarn'"
    )


def _read_yarn(f: Fields, outer: Fields) -> Tree:
    factor = f.number("factor")
    original = f.take("original_max_position_embeddings", None)
    if original is None:
        original = outer.number("max_position_embeddings")
    mscale, all_dim = f.take("mscale", None), f.take("mscale_all_dim", None)
    if not (mscale and all_dim):  # one alone is not used by transformers
        mscale, all_dim = 1.0, 0.0
    f.only("truncate", True, default=None)
    given = f.take("attention_factor", None)
    usual = 0.1 * math.log(factor) + 1.0
    if given is not None and (all_dim or not math.isclose(given, usual)):
        raise ConfigError(
            f"{f.where}: 'attention_factor' is {given}; supported is the paper's, "
            f"0.1 ln(factor) + 1 = {usual:.6f}, which none stands for"
        )
    return {
        "kind": "yarn",
        "factor": factor,
        "beta_fast": f.take("beta_fast", None) or 32.0,
        "beta_slow": f.take("beta_slow", None) or 1.0,
        "original_max_tokens": original,
        "mscale": mscale,
        "mscale_all_dim": all_dim,
    }


def _write_scaling(scaling: Tree | None) -> Tree | None:
    if scaling is None:
        return None
    out = {k: v for k, v in scaling.items() if k not in ("kind", "original_max_tokens")}
    if "original_max_tokens" in scaling:
        out["original_max_position_embeddings"] = scaling["original_max_tokens"]
    if not out.get("mscale_all_dim", 1.0):
        del out["mscale"], out["mscale_all_dim"]
    return {"rope_type": scaling["kind"], **out}


ROPE = _rope_part()
ROPE_AND_LOCAL = _rope_part(local_theta=10_000.0)


# --- experts -------------------------------------------------------------------------


def _read_deepseek(f: Fields, tree: Tree) -> None:
    num, dim = f.number("first_k_dense_replace", 0), f.number("intermediate_size")
    mlp = {"kind": "swiglu", "dim": dim, "use_bias": False}
    tree["dense_prefix"] = {"num_layers": num, "mlp": mlp} if num else None
    shared = f.take("n_shared_experts", None)
    tree["mlp"]["num_shared_experts"] = shared or 0
    for name in ("num_key_value_heads", "head_dim", "qk_head_dim"):
        f.take(name, None)  # of no meaning where keys come from a latent vector
    f.take("num_nextn_predict_layers", None)  # further tokens, beside the model


def _write_deepseek(tree: Tree) -> Tree:
    prefix = tree["dense_prefix"]
    return {
        "first_k_dense_replace": prefix["num_layers"] if prefix else 0,
        "intermediate_size": (prefix["mlp"] if prefix else tree["mlp"])["dim"],
        "n_shared_experts": tree["mlp"]["num_shared_experts"] or None,
        "num_key_value_heads": tree["attention"]["num_heads"],
        "num_nextn_predict_layers": 0,
    }


DEEPSEEK = Part(
    (
        *("first_k_dense_replace", "intermediate_size", "n_shared_experts"),
        *("num_key_value_heads", "head_dim", "qk_head_dim", "num_nextn_predict_layers"),
    ),
    _read_deepseek,
    _write_deepseek,
)


def _read_greedy(f: Fields, tree: Tree) -> None:
    for name in ("n_group", "topk_group"):
        f.take(name, None)  # not used by this way to choose experts


GREEDY = Part(
    ("n_group", "topk_group"),
    _read_greedy,
    lambda tree: {"n_group": 1, "topk_group": 1},
)


def _read_qwen_moe(f: Fields, tree: Tree) -> None:
    # None of the layers is dense, and none has a window.
    for name in ("intermediate_size", "sliding_window", "max_window_layers"):
        f.take(name, None)


QWEN_MOE = Part(
    ("intermediate_size", "sliding_window", "max_window_layers"),
    _read_qwen_moe,
    lambda tree: {"intermediate_size": tree["mlp"]["dim"], "sliding_window": None},
)


def _alias(ours: str, *theirs: str) -> Part:
    """A number that configs call by one of several names; the first is written."""
    part, _, key = ours.partition(".")

    def read(f: Fields, tree: Tree) -> None:
        found: Any = next((n for n in theirs if f.take(n, None) is not None), theirs[0])
        tree[part][key] = f.number(found)
        for name in theirs:
            f.take(name, None)

    return Part(theirs, read, lambda tree: {theirs[0]: tree[part][key]})


QWEN_EXPERTS = _alias("mlp.num_experts", "num_experts", "num_local_experts")
MIXTRAL_EXPERTS = _alias("mlp.num_experts", "num_local_experts", "num_experts")
