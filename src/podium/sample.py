# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Generates text from a checkpoint: `python -m podium.sample --workdir=D --prompt=…`."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium import cli
from podium.config import MeshConfig
from podium.errors import ConfigError, DataError
from podium.mesh_name import parse_mesh
from podium.resume import find_checkpoint, saved_data
from podium.sampling import Sampling, check_num_tokens
from podium.starts import is_imported, pretrained_tokens, read_pretrained
from podium.text_stream import Stops, TextStream

if TYPE_CHECKING:
    from podium.generate import Generator
    from podium.tokenizer import Tokenizer

EXAMPLE = """\
example:
  python -m podium.sample --workdir=runs/quickstart --prompt="def main(" --num_tokens=64
  python -m podium.sample --workdir=D --prompt=One --prompt=Two --temperature=0
  python -m podium.sample --workdir=D --prompts=questions.jsonl --batch_seqs=32 --json
  python -m podium.sample --workdir=runs/model --chat --prompt="What is a list?"

One prompt streams to the terminal; several are generated together and printed in turn.
"""


def parser() -> cli.Parser:
    """The command line."""
    out = cli.Parser(
        prog="python -m podium.sample",
        description="Generates text from a checkpoint of a run.",
        epilog=EXAMPLE,
    )
    out.add_argument("--workdir", required=True, help="the run's folder")
    out.add_argument(
        "--prompt",
        action="append",
        default=[],
        help="text to continue; may be given several times",
    )
    out.add_argument(
        "--prompts",
        metavar="FILE",
        help='a prompt a line; in a .jsonl file an object with a "prompt"',
    )
    out.add_argument(
        "--batch_seqs", type=int, default=8, help="prompts at once (default: 8)"
    )
    out.add_argument(
        "--mesh",
        help="devices along each axis, such as data2.tensor4 (default: all devices, "
        "heads split as far as they divide)",
    )
    out.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="to compute in (default: the model's own)",
    )
    out.add_argument(
        "--chat",
        action="store_true",
        help="each prompt is a message to a chat model, which answers it",
    )
    out.add_argument(
        "--num_tokens", type=int, default=100, help="new tokens (default: 100)"
    )
    out.add_argument(
        "--stop",
        metavar="TEXT",
        action="append",
        default=[],
        help="a text that ends the new one, as --stop=$'\\n'; may be given several times",
    )
    out.add_argument(
        "--temperature", type=float, default=0.8, help="0: greedy (default: 0.8)"
    )
    out.add_argument(
        "--top_k", type=int, help="draw from the k likeliest (default: all)"
    )
    out.add_argument(
        "--top_p",
        type=float,
        default=0.95,
        help="draw from the smallest set of this mass (default: 0.95)",
    )
    out.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    out.add_argument("--step", type=int, help="checkpoint (default: the newest)")
    out.add_argument(
        "--json", action="store_true", help="print one JSON object a prompt"
    )
    return out


def main(argv: Sequence[str]) -> int:
    """Parses, restores, generates, prints."""
    args = parser().parse_args(argv)
    sampling = Sampling(
        temperature=args.temperature, top_k=args.top_k, top_p=args.top_p
    )
    check_num_tokens(args.num_tokens)
    if args.batch_seqs < 1:
        raise ConfigError(f"--batch_seqs is {args.batch_seqs}; expected 1 or more")
    if "" in args.stop:
        raise ConfigError("--stop is empty; expected a text that ends the new one")
    mesh = parse_mesh(args.mesh, "--mesh") if args.mesh else None
    texts = args.prompt + (read_prompts(args.prompts) if args.prompts else [])
    if not texts:
        raise ConfigError(
            "there is no prompt: expected --prompt=TEXT, which may be given several "
            "times, or --prompts=FILE"
        )
    step = find_checkpoint(args.workdir, args.step, cli.say)
    tokenizer = tokenizer_of(args.workdir)
    ends = end_ids(args.workdir, tokenizer.eos_id)
    if args.chat:
        prompts, end = chat_prompts(args.workdir, texts, tokenizer)
        ends |= end
    else:
        prompts = [prompt_tokens(text, tokenizer) for text in texts]
    generator, seq_len = open_generator(args.workdir, step, mesh, args.dtype)

    from podium.generate import check_prompts, ids_of_draws

    check_prompts(generator.cfg, prompts, args.num_tokens)
    length = max(map(len, prompts)) + args.num_tokens
    if length > (longest := pretrained_tokens(args.workdir, seq_len)):
        print(
            f"note: prompt and new tokens are {length}, rows in training were "
            f"{longest} long; expect nonsense past that",
            file=sys.stderr,
        )
    settings: dict[str, Any] = {
        "num_tokens": args.num_tokens,
        "sampling": sampling,
        "seed": args.seed,
        "end_ids": ends,
    }
    if len(prompts) == 1 and not args.json:
        start = "" if args.chat else texts[0]
        _stream(generator, tokenizer, start, prompts[0], args.stop, settings)
        print(f"({generator.speed})", file=sys.stderr)
        return 0
    draw_ids, stops = ids_of_draws(prompts), Stops(tokenizer, args.stop)
    for i in range(0, len(prompts), args.batch_seqs):
        part = slice(i, i + args.batch_seqs)
        rows = generator.generate(
            prompts[part],
            draw_ids=draw_ids[part],
            is_done=stops.are_in if args.stop else None,
            **settings,
        )
        assert generator.speed
        for text, tokens in zip(texts[part], rows, strict=True):
            tokens = stops.up_to(tokens)
            is_ended = bool(tokens) and tokens[-1] in ends
            completion = tokenizer.decode(tokens[:-1] if is_ended else tokens)
            completion, is_stopped = stops.cut(completion)
            if args.json:
                row = {"prompt": text, "completion": completion, "tokens": tokens}
                row |= {"is_ended": is_ended or is_stopped, **generator.speed.to_json()}
                print(json.dumps(row, ensure_ascii=False), flush=True)
            else:
                between = "\n" if args.chat else ""
                print(f"{text}{between}{completion}\n{'-' * 8}", flush=True)
        print(f"({generator.speed})", file=sys.stderr)
    return 0


def open_generator(
    workdir: str | Path, step: int, mesh: MeshConfig | None, dtype: str | None
) -> tuple["Generator", int]:
    """A checkpoint of a run ready to generate, and the length of the run's rows."""
    from podium.checkpoint import restore_params, saved_config
    from podium.compile_cache import use_compile_cache
    from podium.generate import Generator
    from podium.serving_mesh import choose_mesh
    from podium.sharding.mesh import use_virtual_cpu_devices

    if mesh is not None:
        use_virtual_cpu_devices(mesh)
    use_compile_cache()
    cfg = saved_config(workdir, step)
    model = cfg.model if dtype is None else dataclasses.replace(cfg.model, dtype=dtype)
    rules = choose_mesh(model, cfg.sharding, mesh)
    _, params = restore_params(workdir, step, rules=rules)
    return Generator(model, params, rules), cfg.data.seq_len


def _stream(
    generator: "Generator",
    tokenizer: "Tokenizer",
    text: str,
    prompt: list[int],
    stops: Sequence[str],
    settings: dict[str, Any],
) -> None:
    from podium.decoding import FINISHED

    out = TextStream(tokenizer, end_ids=settings["end_ids"], stops=stops)
    for i, tokens_BT in enumerate(generator.stream([prompt], **settings)):
        if i == 0:
            print(text, end="", flush=True)
        for token in tokens_BT[0].tolist():
            if token != FINISHED:
                print(out.add(token), end="", flush=True)
        if out.is_stopped:
            break
    print(out.rest())


def read_prompts(path: str) -> list[str]:
    """The prompts of a file: lines that are not empty, or of a .jsonl file objects with
    a "prompt". Raises DataError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"--prompts={path} cannot be read: {why}") from error
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"--prompts={path} holds no prompt; expected one a line")
    if not path.endswith(".jsonl"):
        return [line.rstrip("\r") for _, line in lines]
    return [_prompt_of(line, f"{path}:{i}") for i, line in lines]


def _prompt_of(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if not isinstance(prompt, str):
        raise DataError(
            f'{where}: expected an object like {{"prompt": "text"}}, found {line:.60}'
        )
    return prompt


def prompt_tokens(text: str, tokenizer: "Tokenizer") -> list[int]:
    """Ids of a prompt, begun as documents are. Raises ConfigError where nothing is left."""
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    tokens = [*start, *tokenizer.encode(text)]
    if not tokens:
        raise ConfigError(
            "a prompt is empty, and this tokenizer has no token that begins a document; "
            "give at least one character"
        )
    return tokens


def chat_prompts(
    workdir: str, messages: Sequence[str], tokenizer: "Tokenizer"
) -> tuple[list[list[int]], set[int]]:
    """Ids of messages that the assistant is to answer, in the template of the run's model,
    and what ends a turn in it. Raises ConfigError."""
    from datetime import datetime

    from podium.chat_template import (
        TemplateRefusalError,
        find_chat_template,
        no_template,
    )

    template = find_chat_template(workdir, now=datetime.now)
    if template is None:
        raise ConfigError(f"--chat: {no_template(workdir)}")
    try:
        asked = [[{"role": "user", "content": text}] for text in messages]
        prompts = [template.render(a, add_generation_prompt=True) for a in asked]
        said = template.render([*asked[0], {"role": "assistant", "content": "."}])
    except TemplateRefusalError as error:
        raise ConfigError(
            f"--chat: the template refuses the message: {error}"
        ) from error
    last = tokenizer.encode_template(said.rstrip())[-1]
    # What ends a turn is no text: a template without such a token ends nothing.
    ends = {last} if not tokenizer.decode([last]) else set()
    return [tokenizer.encode_template(text) for text in prompts], ends


def end_ids(workdir: str | Path, eos_id: int) -> set[int]:
    """The tokens that end a text: a document's, and those that an imported model's
    generation_config.json names, which ends turns of a conversation with others."""
    found = read_pretrained(workdir, "generation_config.json").get("eos_token_id")
    found = found if isinstance(found, list) else [found]
    return {eos_id, *(i for i in found if isinstance(i, int))}


def tokenizer_of(workdir: str) -> "Tokenizer":
    """The tokenizer of the data that the run was trained on. Raises DataError.

    The run folder holds a copy; runs of before that have it with their data only.
    """
    from podium.input.manifest import TokenizerInfo
    from podium.tokenizer import TOKENIZER_FILE, load_tokenizer, open_tokenizer

    saved = saved_data(workdir)
    if "tokenizer" in saved:
        return open_tokenizer(workdir, TokenizerInfo(**saved["tokenizer"]))
    if is_imported(workdir):
        raise DataError(
            f"{workdir} was imported without a tokenizer; put {TOKENIZER_FILE} beside the "
            "weights that it is from and import again"
        )
    folder = next(iter(saved.get("paths", ())), str(Path(workdir) / "data"))
    try:
        return load_tokenizer(folder)
    except DataError as error:
        raise DataError(
            f"the run's tokenizer should lie with its data in {folder}: {error}"
        ) from error


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
