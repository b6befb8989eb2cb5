# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Published models in and out: `python -m podium.convert --from=hf --input=… --output=…`.

In, from a model folder or a GGUF file: a run folder to sample, evaluate, or start a run
from. Out: a folder that transformers, and whatever reads its files, loads. Formats and
families: docs/models.md.
"""

import argparse
import functools
import json
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from podium import cli
from podium.errors import at_work
from podium.resume import find_checkpoint

_EXAMPLE = """\
examples:
  python -m podium.convert --from=hf --input=SmolLM2-135M --output=runs/smol
  python -m podium.convert --from=gguf --input=SmolLM2-135M-Instruct.Q4_1.gguf \\
      --output=runs/smol
  python -m podium.sample --workdir=runs/smol --prompt="The capital of France is"
  python -m podium.train --config=runs/smol/config.json --workdir=runs/tuned \\
      --config.data.paths=gold/mine
  python -m podium.convert --to=hf --input=runs/tuned --output=tuned-hf
  python -m podium.convert --to=peft --input=runs/lora --output=lora-peft
"""


_SHARD_MB = 5_000  # as transformers cuts
_DTYPES = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.source is None) == (args.target is None):
        parser.error(
            "name one of --from=hf, --from=gguf (a model comes in), --to=hf and --to=peft "
            "(it goes out, or adapters alone)"
        )
    for name in ("step", "dtype", "max_shard_mb", "no_tokenizer"):
        if args.source and getattr(args, name) not in (None, False):
            parser.error(f"--{name} goes with --to=hf")
    for name in ("max_shard_mb", "no_tokenizer"):
        if args.target == "peft" and getattr(args, name) not in (None, False):
            parser.error(f"--{name} goes with --to=hf: adapters are one small file")
    if args.max_shard_mb is not None and args.max_shard_mb < 1:
        parser.error(f"--max_shard_mb is {args.max_shard_mb}; expected 1 or more")
    outcome = _import(args) if args.source else _export(args)
    if args.json:
        print(json.dumps(outcome))
        return 0
    print(
        f"{outcome['output']}: {outcome['family']}, {outcome['params']:,} parameters in "
        f"{outcome['tensors']:,} tensors"
    )
    if args.source:
        _say_next(args)
    return 0


def _say_next(args: argparse.Namespace) -> None:
    from podium.tokenizer import TOKENIZER_FILE

    if (pathlib.Path(args.output) / TOKENIZER_FILE).exists():
        print(
            f"next: python -m podium.sample --workdir={args.output} --prompt='Once upon'"
        )
    else:
        cli.say(
            f"warning: {args.input} has no tokenizer, so the model takes no text; put "
            f"{TOKENIZER_FILE} beside its weights and import again"
        )


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m podium.convert",
        description="Brings published models in, and takes trained ones out.",
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add(
        "--from",
        dest="source",
        choices=("hf", "gguf"),
        help="hf: a model folder of transformers, config.json and safetensors; gguf: a "
        "file of llama.cpp (extra gguf)",
    )
    add(
        "--to",
        dest="target",
        choices=("hf", "peft"),
        help="hf: such a folder is written, adapters merged; peft: the adapters alone, as "
        "peft loads them",
    )
    add(
        "--input",
        metavar="D",
        required=True,
        help="a model folder or file; out: a run folder",
    )
    add("--output", metavar="D", required=True, help="folder to make")
    add("--step", type=int, metavar="N", help="out: checkpoint (the newest)")
    add(
        "--dtype",
        choices=_DTYPES,
        help="out: type of the tensors (as imported, or float32)",
    )
    add("--max_shard_mb", type=int, metavar="N", help="out: of a file (5000)")
    add("--no_tokenizer", action="store_true", help="out: weights and config alone")
    add("--json", action="store_true", help="print one JSON object")
    return parser


def _import(args: argparse.Namespace) -> dict:
    from podium.models.flops import param_count
    from podium.preparation.progress import Progress
    from podium.pretrained.new_run import check_output

    source, notes, write = _found(args)
    for note in notes:
        cli.say(f"note: {note}")
    check_output(pathlib.Path(args.output))
    size = sum(4 * math.prod(tensor.shape) for tensor in source.tensors)
    with at_work(), Progress("importing", size, "convert") as progress:
        write(args.output, progress.advance)
    return {
        "output": args.output,
        "family": source.family,
        "params": param_count(source.cfg),
        "tensors": len(source.tensors),
    }


def _found(args: argparse.Namespace) -> tuple[Any, list[str], Callable]:
    """The model at --input, notes on it, and what writes its run folder."""
    if args.source == "gguf":
        from podium.pretrained.from_gguf import import_gguf, read_gguf

        gguf = read_gguf(args.input)
        return gguf.source, [], functools.partial(import_gguf, gguf)
    from podium.pretrained.from_hf import import_hf, read_hf

    folder = read_hf(args.input)
    return folder.source, folder.notes, functools.partial(import_hf, folder)


def _export(args: argparse.Namespace) -> dict:
    from podium.models.flops import param_count
    from podium.preparation.progress import Progress
    from podium.pretrained import origin
    from podium.pretrained.new_run import check_output, model_of
    from podium.pretrained.to_hf import export_hf, plan_export

    step = find_checkpoint(args.input, args.step, cli.say)
    plan = plan_export(args.input, step, args.dtype)
    check_output(pathlib.Path(args.output))
    if args.target == "peft":
        return _export_peft(args, plan)
    with at_work(), Progress("exporting", plan.num_bytes, "convert") as progress:
        export_hf(
            plan,
            args.output,
            max_shard_bytes=(args.max_shard_mb or _SHARD_MB) * 1_000_000,
            has_tokenizer=not args.no_tokenizer,
            advance=progress.advance,
        )
    origin.note(args.input, plan.origin, args.output)
    return {
        "output": args.output,
        "family": plan.family,
        "params": param_count(model_of(args.input, step).model),
        "tensors": len(plan.planned),
        "step": step,
    }


def _export_peft(args: argparse.Namespace, plan: Any) -> dict:
    from podium.pretrained import origin
    from podium.pretrained.safetensors_files import LONG_NAMES
    from podium.pretrained.to_peft import export_peft, plan_peft

    peft = plan_peft(plan)
    if peft.params.lora.base_dtype != "float32":
        cli.say(
            f"note: these adapters were trained on weights in "
            f"{peft.params.lora.base_dtype}; on others results differ a little"
        )
    with at_work():
        count = export_peft(peft, args.output, LONG_NAMES[args.dtype or "float32"])
    origin.note(args.input, plan.origin, args.output)
    return {
        "output": args.output,
        "family": plan.family,
        "params": count,
        "tensors": len(peft.modules) + len(peft.experts),
        "step": plan.step,
    }


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
