# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""MaxText's own train step: its gpt3 block, its AdamW, the calls of its train_loop.

Its head is not tied here and its initial values are its own.

Environment (Python 3.12):
  uv venv --python 3.12 $ENVS/maxtext
  uv pip install -p $ENVS/maxtext/bin/python 'maxtext[tpu]==0.2.5'
  $ENVS/maxtext/bin/python benchmarks/peers/maxtext_step.py --steps=10
"""

import os
import sys
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_start = time.perf_counter()
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core.spmd import logical_axis_rules
from maxtext.trainers.pre_train import train
from maxtext.utils import maxtext_utils, sharding, train_utils

_import_secs = time.perf_counter() - _start
import numpy as np
import serve
from serve import CLIP_NORM, LEARNING_RATE, B, D, F, H, L, N, T, V


def settings(variant: str, dtype: str) -> list[str]:
    values = {
        "run_name": "benchmark",
        "base_output_directory": tempfile.mkdtemp(prefix="maxtext-"),
        "hardware": "cpu",
        "skip_jax_distributed_system": True,
        "enable_checkpointing": False,
        "enable_tensorboard": False,
        "dataset_type": "synthetic",
        "decoder_block": "gpt3",
        "base_emb_dim": D,
        "base_num_query_heads": N,
        "base_num_kv_heads": N,
        "base_mlp_dim": F,
        "base_num_decoder_layers": L,
        "head_dim": H,
        "mlp_activations": "['gelu']",
        "trainable_position_size": T,
        "max_target_length": T,
        "vocab_size": V,
        "per_device_batch_size": B,
        "enable_dropout": False,
        "fused_qkv": True,
        "use_iota_embed": True,
        "normalization_layer_epsilon": 1e-5,
        "attention": "dot_product",
        "remat_policy": {"remat_full": "full", "remat_none": "minimal"}[variant],
        "dtype": dtype,
        "weight_dtype": "float32",
        "opt_type": "adamw",
        "learning_rate": LEARNING_RATE,
        "gradient_clipping_threshold": CLIP_NORM,
        "adam_weight_decay": 1e-4,
        "steps": 1000,
    }
    return ["train", *(f"{k}={v}" for k, v in values.items())]


def main():
    args = serve.arguments(["remat_full", "remat_none"], __doc__)
    reply, sys.stdout = sys.stdout, sys.stderr  # MaxText logs on standard output
    config, recorder = train.initialize(settings(args.variant, args.dtype))
    parts = train_utils.setup_train_loop(config, recorder)
    state_shardings, mesh, state = parts[2], parts[4], parts[-1]
    model, state = nnx.split(state)
    params_shardings, state_shardings = sharding.maybe_update_params_sharding_with_opt(
        config, state_shardings
    )
    train_step, _ = train_utils.jit_train_and_eval_step(
        config,
        model,
        mesh,
        state,
        state_shardings,
        train.train_step,
        train.eval_step,
        None,
        params_shardings,
    )
    rules = config.logical_axis_rules
    with jax.set_mesh(mesh), logical_axis_rules(rules):
        shapes = maxtext_utils.get_shaped_batch(
            config, batch_sharding=sharding.get_input_data_sharding(config, mesh)
        )
    positions = np.tile(np.arange(T, dtype=np.int32), (B, 1))
    segments = np.ones((B, T), np.int32)

    def step(tokens, targets):
        nonlocal state
        batch = {
            "inputs": tokens,
            "inputs_position": positions,
            "inputs_segmentation": segments,
            "targets": targets,
            "targets_position": positions,
            "targets_segmentation": segments,
        }
        with jax.set_mesh(mesh), logical_axis_rules(rules):
            placed = {k: jax.device_put(batch[k], shapes[k].sharding) for k in shapes}
            state, metrics = train_step(state, placed)
        return float(metrics["scalar"]["learning/loss"])

    num_params = sum(
        jnp.size(x) for x in jax.tree.leaves(nnx.to_pure_dict(state)["model"])
    )
    sys.stdout = reply
    serve.serve(
        args,
        step,
        {"jax": jax.__version__, "maxtext": _version("maxtext")},
        import_secs=_import_secs,
        num_params=num_params,
    )


def _version(name: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(name)


if __name__ == "__main__":
    main()
