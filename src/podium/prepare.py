# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""python -m podium.prepare: text, code, JSONL, Parquet or TFDS -> gold TFRecords.

`prepare(PrepareSpec(...))` is the same as a function. Format: docs/data-format.md.
"""

import argparse
import json
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import podium
from podium import cli
from podium.errors import ConfigError, at_work
from podium.preparation.spec import PrepareSpec
from podium.storage import is_remote
from podium.tokenizer_name import is_path

if TYPE_CHECKING:
    from podium.input.manifest import Manifest

_EXAMPLE = """\
examples:
  python -m podium.prepare --input=docs/ --input='src/**/*.py' --output=gold/mine
  python -m podium.prepare --input=wiki.jsonl --text_key=body --tokenizer=bytes \\
      --output=gold/wiki
  python -m podium.prepare --input=tfds:my_texts --data_dir=tfds/ --output=gold/texts
  python -m podium.prepare --input=chats.jsonl --chat \\
      --tokenizer=runs/model/tokenizer.json --output=gold/chats
  python -m podium.prepare --verify=gold/mine
A folder gives every file that decodes as UTF-8, a .jsonl or .jsonl.gz its lines, a
.parquet its rows. What cannot be used is listed in OUTPUT/rejects.jsonl. A run that
was stopped continues where it was.
exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 75 interrupted, the same
command continues"""


def prepare(spec: PrepareSpec) -> "Manifest":
    """Makes the data set that `spec` describes and returns its manifest.

    Quick if it is there already. Raises ConfigError for what the caller can correct,
    DataError for what is wrong with the data.
    """
    from podium.preparation.run import run

    return run(spec).manifest


def main(argv: Sequence[str]) -> int:
    """The command line."""
    args = _parser().parse_args(argv)
    return _verify(args) if args.verify else _prepare(args)


def _prepare(args: argparse.Namespace) -> int:
    values = vars(args) | {
        "inputs": tuple(args.inputs or ()),
        "output": args.output or "",
    }
    del values["verify"], values["json"]
    spec = PrepareSpec(**values)

    from podium.preparation.run import run

    outcome = run(spec)
    _show(args, outcome.manifest, outcome.summary)
    if not args.json:
        print(f"next: {_next_command(args, outcome.manifest)}")
    return 0


def _next_command(args: argparse.Namespace, manifest: "Manifest") -> str:
    """A command that trains on what was made, from where this one was run."""
    output, config = args.output, pathlib.Path("configs", "quickstart.py")
    flags = [f"--config.model.vocab_size={manifest.tokenizer.vocab_size}"]
    # What is tuned has its config beside its tokenizer.
    if (run := _run_of(args.tokenizer)) is not None:
        config, flags = run / "config.json", []
    elif manifest.chat:
        config = pathlib.Path("FILE")
    if manifest.chat:
        flags = ["--config.data.packing=best_fit"]
        if manifest.chat.records == "preferences":
            flags.append("--config.dpo.beta=0.1")
    elif not config.exists():
        config = pathlib.Path(podium.__file__).parents[2] / config
    words = [
        *("python", "-m", "podium.train"),
        f"--config={config if config.exists() else 'FILE'}",
        f"--workdir=runs/{os.path.basename(os.path.abspath(output))}",
        f"--config.data.paths={output}",
        *flags,
        *([] if manifest.splits["eval"] else ["--config.eval=None"]),
    ]
    return shlex.join(words)


def _run_of(tokenizer: str | None) -> pathlib.Path | None:
    """The run folder that a tokenizer is from, if it is from one."""
    if tokenizer is None or not is_path(tokenizer):
        return None
    folder = pathlib.Path(tokenizer)
    folder = folder if folder.is_dir() else folder.parent
    has_both = all((folder / name).exists() for name in ("config.json", "data.json"))
    return folder if has_both else None


def rejects_line(summary: dict[str, Any], output: str) -> str:
    """What was left out and where it is listed; empty if nothing was."""
    rejects = summary.get("rejects")
    if not rejects:
        return ""
    listed = ", ".join(f"{n:,} {reason}" for reason, n in rejects.items())
    return f"not used: {listed}; see {os.path.join(output, 'rejects.jsonl')}"


def _verify(args: argparse.Namespace) -> int:
    if args.inputs or args.output:
        raise ConfigError("--verify checks what is there; drop --input and --output")

    from podium.input.manifest import load_manifest
    from podium.preparation.progress import Progress
    from podium.preparation.verify import verify

    if not is_remote(args.verify) and not os.path.isdir(args.verify):
        raise ConfigError(f"--verify={args.verify} is no folder; expected gold data")
    with at_work():  # whatever is wrong with the data: it was checked, and it failed
        manifest = load_manifest(args.verify)
        shards = [s for split in manifest.splits.values() for s in split]
        with Progress("verifying", sum(s.bytes for s in shards)) as progress:
            manifest = verify(args.verify, progress.advance)
    args.output = args.verify
    _show(args, manifest, {})
    return 0


def _show(
    args: argparse.Namespace, manifest: "Manifest", summary: dict[str, Any]
) -> None:
    splits = {
        name: {
            "shards": len(shards),
            "records": sum(s.records for s in shards),
            "documents": sum(s.documents for s in shards),
            "tokens": sum(s.tokens for s in shards),
            "bytes": sum(s.bytes for s in shards),
        }
        for name, shards in sorted(manifest.splits.items(), reverse=True)
    }
    info = manifest.tokenizer
    if args.json:
        tokenizer = {"kind": info.kind, "vocab_size": info.vocab_size}
        out = {
            "output": os.path.abspath(args.output),
            "fingerprint": manifest.fingerprint,
            "tokenizer": tokenizer,
            "splits": splits,
            **summary,
        }
        print(json.dumps(out))
        return
    print(f"{args.output}: tokenizer {info.kind}, vocabulary {info.vocab_size:,}")
    for name, counts in splits.items():
        print(
            f"  {name:5}  {counts['documents']:>12,} documents"
            f"  {counts['tokens']:>16,} tokens"
            f"  {counts['shards']:>5} shard{'s' * (counts['shards'] != 1)}"
        )
    if line := rejects_line(summary, args.output):
        print(f"  {line}")


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m podium.prepare",
        description="Turns text into TFRecord shards, index and manifest.",
        epilog=_EXAMPLE,
    )
    spec = PrepareSpec
    add = parser.add_argument
    add(
        "--input",
        dest="inputs",
        action="append",
        metavar="WHAT",
        help="folder, glob, file, or tfds:NAME[/CONFIG][:VERSION][#SPLIT]; repeatable",
    )
    add("--output", metavar="D", help="folder to make")
    add(
        "--tokenizer",
        default=spec.tokenizer,
        help="bytes, bpe:SIZE (learned from the input) or the path of a Hugging Face "
        "tokenizer.json (default: bpe:8192, or as many tokens as the text gives)",
    )
    add(
        "--eos",
        metavar="TOKEN",
        help="the token of a tokenizer.json that ends a document, if it is not clear",
    )
    add(
        "--eval_fraction",
        type=float,
        default=spec.eval_fraction,
        metavar="X",
        help=f"share of the documents held out (default: {spec.eval_fraction})",
    )
    add(
        "--text_key",
        default=spec.text_key,
        metavar="KEY",
        help=f"JSONL key, Parquet column, TFDS feature (default: {spec.text_key})",
    )
    add("--num_shards", type=int, metavar="N", help="train shards (default: by size)")
    add("--num_workers", type=int, metavar="N", help="processes (default: one a core)")
    add(
        "--max_document_bytes",
        type=int,
        default=spec.max_document_bytes,
        metavar="N",
        help="longer documents are cut at line ends (default: 64 MiB)",
    )
    add(
        "--chat",
        nargs="?",
        const="conversations",
        choices=("conversations", "preferences"),
        help="lines of JSONL are conversations, or preferences: pairs of answers; in the "
        "chat template beside the tokenizer.json (docs/chat.md)",
    )
    add(
        "--max_tokens",
        type=int,
        metavar="N",
        help="with --chat: longer records are left out, and listed (default: none are)",
    )
    add("--data_dir", metavar="DIR", help="where TFDS data sets lie")
    add("--strict", action="store_true", help="stop at the first bad input")
    add("--overwrite", action="store_true", help="replace an output of other settings")
    add("--json", action="store_true", help="print the result as one JSON object")
    add("--verify", metavar="D", help="check every byte of a data set instead")
    return parser


if __name__ == "__main__":
    cli.run(main, can_continue=True)
