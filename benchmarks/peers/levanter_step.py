# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Levanter's own trainer step: its GPT-2, its optimizer settings, one batch at a time.

Of the 256 positions of a row Levanter scores 255, since it shifts inside the model.

Environment (Python 3.12):
  uv venv --python 3.12 $ENVS/levanter
  uv pip install -p $ENVS/levanter/bin/python --prerelease=allow marin-levanter
  $ENVS/levanter/bin/python benchmarks/peers/levanter_step.py --steps=10
"""

import dataclasses
import os
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_start = time.perf_counter()
import haliax as hax
import jax
import jax.numpy as jnp
import jmp
import optax
from levanter.models.gpt2 import Gpt2Config
from levanter.models.lm_model import LmExample
from levanter.tracker import NoopConfig
from levanter.trainer import Trainer, TrainerConfig

_import_secs = time.perf_counter() - _start
import serve
from serve import CLIP_NORM, LEARNING_RATE, B, D, L, N, T, V


def main():
    # Checkpointing of activations is Levanter's default, and faster on a CPU.
    args = serve.arguments(["checkpointing", "no_checkpointing"], __doc__)
    model_config = Gpt2Config(
        max_seq_len=T,
        hidden_dim=D,
        num_layers=L,
        num_heads=N,
        gradient_checkpointing=args.variant == "checkpointing",
    )
    bf16 = "p=f32,c=bfloat16"
    folder = tempfile.mkdtemp(prefix="levanter-")
    defaults = TrainerConfig()
    config = TrainerConfig(
        id="benchmark",
        mp=jmp.get_policy("f32" if args.dtype == "float32" else bf16),
        tracker=NoopConfig(),
        train_batch_size=B,
        num_train_steps=1_000_000,
        require_accelerator=False,
        load_checkpoint=False,
        log_jaxprs=False,
        log_xla_hlo=False,
        checkpointer=dataclasses.replace(defaults.checkpointer, base_path=folder),
    )
    config.initialize()
    optimizer = optax.chain(
        optax.clip_by_global_norm(CLIP_NORM), optax.adamw(LEARNING_RATE)
    )
    Vocab, Pos = hax.Axis("vocab", V), hax.Axis("position", T)

    def loss_fn(model, example, *, key=None):
        return model.compute_next_token_loss(example, key=key), {}

    trainer = Trainer(config, optimizer, loss_fn, add_default_hooks=False)
    with trainer:
        key = jax.random.PRNGKey(0)
        state = trainer.initial_state(
            key, model_init=lambda: model_config.build(Vocab, key=key)
        )
        causal = hax.vmap(LmExample.causal, trainer.TrainBatch)

        def step(tokens, targets):
            nonlocal state
            del targets
            named = hax.named(jnp.asarray(tokens), (trainer.TrainBatch, Pos))
            info = trainer.train_step(state, causal(named))
            state = info.state
            return float(info.loss)

        serve.serve(
            args,
            step,
            {"jax": jax.__version__, "levanter": _version("marin-levanter")},
            import_secs=_import_secs,
            num_params=sum(jnp.size(x) for x in jax.tree.leaves(state.model)),
        )


def _version(name: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(name)


if __name__ == "__main__":
    main()
