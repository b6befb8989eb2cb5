# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""MaxText's train step through its own `train_compile`, for a slice that is not there.

maxtext_compare.py makes the environment and calls this:
  $ENVS/maxtext/bin/python benchmarks/peers/maxtext_aot.py OUT key=value ...

Writes OUT.hlo.gz, the scheduled program, and OUT.json, what the compiler says of it.
`train_compile` ends by saving what it compiled; here it saves that instead.
"""

import sys

import aot_result

aot_result.without_tpus()

from flax import nnx
from maxtext.trainers.pre_train import train_compile


def main() -> None:
    out, *settings = sys.argv[1:]
    facts = {"packages": aot_result.versions("maxtext", "jax", "libtpu", "flax")}
    make_mesh, make_inputs = (
        train_compile.get_topology_mesh,
        train_compile.get_shaped_inputs,
    )

    def mesh(config):
        made = make_mesh(config)
        facts["places"] = aot_result.places(made.devices.flat)
        facts["mesh"] = {k: v for k, v in made.shape.items() if v > 1}
        return made

    def inputs(*args):
        made = make_inputs(*args)
        state = nnx.to_pure_dict(made[0][0])
        facts["params"] = aot_result.count(state["model"])
        facts["dtypes"] = aot_result.dtypes(state)
        return made

    train_compile.get_topology_mesh = mesh
    train_compile.get_shaped_inputs = inputs
    train_compile.save_compiled = lambda compiled, _: aot_result.write(
        out, compiled.as_text(), aot_result.sizes(compiled), facts
    )
    train_compile.main(["train_compile", *settings, f"compiled_trainstep_file={out}"])


if __name__ == "__main__":
    main()
