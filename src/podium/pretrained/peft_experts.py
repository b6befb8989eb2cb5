# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters of experts as `peft` takes them.

transformers 5 keeps the experts of a layer in two parameters, `gate_up_proj`
[E, 2 F, D] and `down_proj` [E, D, F]. peft changes such parameters by `target_parameters`
(its `ParamWrapper`), with one matrix A and one B for all experts: A is [E r, in], expert
after expert, B [out, r E], the experts of a rank side by side. A matmul of ours that is
half of a parameter has its own ranks, as blocks on a diagonal.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from podium.pretrained.adapted_params import AdaptedParams
from podium.pretrained.rows import Leaf, Tensor

# Which of ours lie in each parameter, in this order.
_PARTS = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}


class Experts(NamedTuple):
    """One parameter of the experts of a layer, and the adapters on it."""

    module: str  # "model.layers.0.mlp.experts"
    parameter: str  # of it: "gate_up_proj"
    leaves: tuple[Leaf, ...]  # gate and up, or down: [E, in, out]
    targets: tuple[bool, ...]  # which have an adapter

    @property
    def name(self) -> str:
        """As peft asks for it."""
        return f"{self.module}.{self.parameter}"

    @property
    def count(self) -> int:
        """How many of our adapters lie in it."""
        return sum(self.targets)

    def matrices(self, params: AdaptedParams) -> dict[str, np.ndarray]:
        """A [E r, in] and B [out, r E], r the rank of all adapters in it."""
        rank = params.lora.rank
        outs = [leaf.shape[-1] for leaf in self.leaves]
        E = self.leaves[0].shape[0]
        b_EOr = np.zeros((E, sum(outs), rank * self.count), np.float32)
        all_a: list[np.ndarray] = []
        first = 0
        for leaf, out, is_target in zip(self.leaves, outs, self.targets, strict=True):
            if is_target:
                a, b = (params.own[f"{leaf.path}/{name}"] for name in "ab")
                ranks = slice(rank * len(all_a), rank * (len(all_a) + 1))
                b_EOr[:, first : first + out, ranks] = b[leaf.index].swapaxes(1, 2)
                all_a.append(a[leaf.index].swapaxes(1, 2))
            first += out
        a_ErI = np.concatenate(all_a, axis=1)
        return {
            "lora_A.weight": a_ErI.reshape(-1, a_ErI.shape[-1]),
            "lora_B.weight": b_EOr.transpose(1, 2, 0).reshape(b_EOr.shape[1], -1),
        }


def experts_of(tensors: Iterable[Tensor], targets: set[str]) -> list[Experts]:
    """The parameters of a model's experts; `targets` are our paths that have adapters."""
    shares: dict[str, dict[str, list[Leaf]]] = {}
    for tensor in tensors:
        if "{expert}" in tensor.row.theirs:
            module = tensor.name.partition(".experts.")[0] + ".experts"
            # The files of Mixtral have a name of before.
            module = module.replace(".block_sparse_moe.", ".mlp.")
            (leaf,) = tensor.leaves
            part = leaf.path.rpartition("/")[2]
            shares.setdefault(module, {}).setdefault(part, []).append(leaf)
    found = []
    for module, parts in shares.items():
        for parameter, names in _PARTS.items():
            leaves = tuple(_all_experts(parts[name]) for name in names)
            chosen = tuple(leaf.path in targets for leaf in leaves)
            found.append(Experts(module, parameter, leaves, chosen))
    return found


def inner_modules(experts: list[Experts]) -> dict[str, str]:
    """Parameter -> where peft keeps its adapter. Of two in a module the first is wrapped
    first, and the second around it."""
    has_two = {each.module for each in experts if each.parameter == "down_proj"}
    return {
        each.name: f"{each.module}.base_layer"
        if each.parameter == "gate_up_proj" and each.module in has_two
        else each.module
        for each in experts
    }


def _all_experts(leaves: list[Leaf]) -> Leaf:
    path, index, shape = leaves[0]
    return Leaf(path, index[:-1], (len(leaves), *shape))
