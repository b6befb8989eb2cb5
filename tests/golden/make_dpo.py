# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes dpo.json: loss and gradients of preferences by PyTorch.

python -m tests.golden.make_dpo     (an environment of its own: torch==2.13.0)

The formula is that of TRL's DPOTrainer, loss_type "sigmoid", on logits whose
log-probabilities are summed over the scored tokens of each side.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

CASES = ((0.1, 0.0), (0.5, 0.1), (2.0, 0.3))  # beta, label smoothing
PAIRS, TOKENS, VOCAB = 3, 4, 5  # two sequences a pair, each of TOKENS tokens


def main() -> None:
    """Writes the file."""
    torch.manual_seed(0)
    shape = (PAIRS, 2, TOKENS, VOCAB)
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(shape, dtype=torch.float64)
    targets = torch.randint(VOCAB, shape[:-1])
    scored = torch.rand(shape[:-1]) < 0.7
    scored[..., -1] = True

    def logps(x: torch.Tensor) -> torch.Tensor:
        found = x.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        return (found * scored).sum(-1)  # [pairs, 2]

    rows = []
    for beta, smoothing in CASES:
        ratios = logps(logits) - logps(reference)
        delta = ratios[:, 0] - ratios[:, 1]
        losses = (
            -F.logsigmoid(beta * delta) * (1 - smoothing)
            - F.logsigmoid(-beta * delta) * smoothing
        )
        rewards = beta * ratios.detach()
        (gradient,) = torch.autograd.grad(losses.mean(), logits)
        rows.append(
            {
                "beta": beta,
                "label_smoothing": smoothing,
                "loss": losses.mean().item(),
                "chosen": rewards[:, 0].mean().item(),
                "rejected": rewards[:, 1].mean().item(),
                "accuracy": (rewards[:, 0] > rewards[:, 1]).double().mean().item(),
                "gradient": gradient.tolist(),
            }
        )
    out = {"torch": torch.__version__, "logits": logits.tolist(), "rows": rows}
    out |= {"reference": reference.tolist(), "targets": targets.tolist()}
    out["scored"] = scored.tolist()
    path = pathlib.Path(__file__).with_name("dpo.json")
    path.write_text(json.dumps(out) + "\n")
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
