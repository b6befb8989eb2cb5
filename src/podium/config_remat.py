# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What the backward pass finds kept: `model.remat`, and the tensors that it can name.

A text, so that one setting says it all on the command line: "none" keeps everything;
else what is named is kept and the rest computed again. A name is a tensor's or a short
cut for several, and `:host` behind it keeps them in the host's memory:

    full                                    the block's input alone
    attention_out,gate,up                   these three beside it
    block_input:host,attention_out:host     nothing on the device
"""

import dataclasses
import difflib
import functools
from typing import TYPE_CHECKING

from podium.errors import ConfigError

if TYPE_CHECKING:
    from podium.config_model import ModelConfig

BLOCK_INPUT = "block_input"
LINEAR = "linear"  # the output of any matmul with a dense weight
HOST = ":host"

SHORT_CUTS = {
    "full": (),
    "dots": (LINEAR,),
    "qkv": ("query", "key", "value"),
}
_ALIASES = {"qkv_on_host": "qkv:host"}


@dataclasses.dataclass(frozen=True)
class Kept:
    """Tensors that are not computed again, by where they wait; the input of a block
    that is in neither is kept on the device."""

    device: frozenset[str]
    host: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.device | self.host


@functools.cache
def kept(remat: str) -> Kept | None:
    """What `model.remat` says; None: everything. Raises ConfigError where it names a
    tensor twice."""
    items = _ALIASES.get(remat, remat).split(",")
    if items == ["none"]:
        return None
    device, host = set(), set()
    for item in items:
        name = item.strip().removesuffix(HOST)
        mine = host if item.strip().endswith(HOST) else device
        for tensor in SHORT_CUTS.get(name, (name,)):
            if tensor in device | host:
                raise ConfigError(
                    f"model.remat is {remat!r}, which names {tensor!r} twice; "
                    "a tensor is kept on the device or, with ':host', on the host"
                )
            mine.add(tensor)
    return Kept(frozenset(device), frozenset(host))


def tensors(model: "ModelConfig") -> tuple[str, ...]:
    """The names that a model has, in the order in which a block computes them."""
    names = [BLOCK_INPUT]
    if model.attention.kind == "latent":
        names += ["query"] if model.attention.q_lora_rank else []
        names += ["key", "value", "query_heads", "key_heads", "value_heads"]
    else:
        names += ["query", "key", "value"]
    names += ["attention_out", "out_proj", "block_middle"]
    mlps = [model.mlp] + ([model.dense_prefix.mlp] if model.dense_prefix else [])
    dense = [mlp for mlp in mlps if mlp.kind != "moe" or mlp.num_shared_experts]
    names += ["gate"] if any(mlp.kind != "gelu" for mlp in dense) else []
    names += ["up"] if dense else []
    if any(mlp.kind == "moe" for mlp in mlps):
        names += ["expert_input", "expert_gate", "expert_up"]
    return (*names, "mlp_out")


def check_remat(model: "ModelConfig") -> None:
    """Raises ConfigError where `model.remat` names what the model does not have."""
    if kept(model.remat) is None:
        return
    known = tensors(model)
    for item in _ALIASES.get(model.remat, model.remat).split(","):
        name = item.strip().removesuffix(HOST)
        if name in known or name in SHORT_CUTS:
            continue
        if name == "none":
            raise ConfigError(
                f"model.remat is {model.remat!r}, but 'none' keeps everything on the "
                "device: it stands alone"
            )
        near = difflib.get_close_matches(name, (*known, *SHORT_CUTS), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"model.remat names {name!r}, which this model does not have.{hint} It has: "
            f"{', '.join(known)}; short cuts: none, {', '.join(SHORT_CUTS)}"
        )
