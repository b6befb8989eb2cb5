# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Scores a checkpoint on tasks of EleutherAI's lm-evaluation-harness (extra `lm-eval`).

python -m podium.lm_eval --workdir=runs/model --tasks=arc_easy,hellaswag
"""

import argparse
import difflib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium import cli
from podium.errors import ConfigError, DataError, PodiumError, at_work
from podium.mesh_name import parse_mesh
from podium.resume import find_checkpoint
from podium.sample import end_ids, tokenizer_of
from podium.starts import pretrained_tokens, read_pretrained

if TYPE_CHECKING:
    from podium.config import MeshConfig
    from podium.harness import PodiumLM
    from podium.tokenizer import Tokenizer

EXAMPLE = """\
example:
  python -m podium.lm_eval --workdir=runs/model --tasks=arc_easy,piqa --batch_seqs=16
  python -m podium.lm_eval --workdir=runs/model --tasks=mine --include_path=tasks/ --json

Tasks are the harness's own, which it downloads, or those of YAML files in --include_path.
"""


def parser() -> cli.Parser:
    """The command line."""
    out = cli.Parser(
        prog="python -m podium.lm_eval",
        description="Scores a checkpoint on tasks of the lm-evaluation-harness.",
        epilog=EXAMPLE,
    )
    out.add_argument("--workdir", metavar="D", required=True, help="the run folder")
    out.add_argument("--tasks", required=True, help="names, with commas between")
    out.add_argument(
        "--include_path", metavar="DIR", help="folder of your own tasks' YAML files"
    )
    out.add_argument(
        "--num_fewshot", type=int, help="answered ones in front (the task's)"
    )
    out.add_argument("--limit", type=int, help="of each task the first so many (all)")
    out.add_argument("--step", type=int, help="checkpoint (the newest)")
    out.add_argument(
        "--batch_seqs", type=int, default=8, help="rows at once (default: 8)"
    )
    out.add_argument(
        "--max_tokens",
        type=int,
        help="longest row; what is longer is cut on the left (as long as in training)",
    )
    out.add_argument("--seed", type=int, default=0, help="of tasks that draw tokens")
    out.add_argument("--mesh", help="such as data2.tensor4 (all devices)")
    out.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="to compute in (the model's own)",
    )
    out.add_argument(
        "--samples", metavar="FILE", help="also write every request and answer, JSONL"
    )
    out.add_argument("--json", action="store_true", help="print one JSON object")
    return out


def main(argv: Sequence[str]) -> int:
    """Parses, restores, scores, prints."""
    args = parser().parse_args(argv)
    for flag, low in (("batch_seqs", 1), ("max_tokens", 2), ("limit", 1)):
        value = getattr(args, flag)
        if value is not None and value < low:
            raise ConfigError(f"--{flag} is {value}; expected {low} or more")
    if args.num_fewshot is not None and args.num_fewshot < 0:
        raise ConfigError(f"--num_fewshot is {args.num_fewshot}; expected 0 or more")
    mesh = parse_mesh(args.mesh, "--mesh") if args.mesh else None
    args.step = find_checkpoint(args.workdir, args.step, cli.say)
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "podium.lm_eval needs the package lm-eval; install it with: "
            "uv sync --extra lm-eval"
        )
    tasks, manager = _find_tasks(args.tasks, args.include_path)
    lm = _open(args, mesh)
    found = _evaluate(args, lm, tasks, manager)
    rows = _rows(found)
    if args.samples:
        _write_samples(args.samples, found["samples"])
    if args.json:
        print(json.dumps({"step": args.step, "tasks": rows}))
        return 0
    print(f"checkpoint {args.step} of {args.workdir}")
    width = max(len(name) for name in rows)
    for name, row in rows.items():
        for metric, value in row["metrics"].items():
            error = row["stderr"].get(metric)
            more = f" ± {error:.4f}" if error is not None else ""
            print(f"{name:{width}}  {metric:28}  {value:.4f}{more}  (n={row['num']})")
    return 0


def _find_tasks(names: str, include_path: str | None) -> tuple[list[str], Any]:
    """The tasks that are meant, and the harness's index of them. Raises ConfigError."""
    from lm_eval.tasks import TaskManager

    if include_path is not None and not Path(include_path).is_dir():
        raise ConfigError(f"--include_path={include_path} is no folder")
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if not asked:
        raise ConfigError(f"--tasks is {names!r}; expected names, such as arc_easy")
    known: list[str] = []
    # The harness's own tasks are thousands of files: only where they are meant.
    for with_defaults in (False, True) if include_path else (True,):
        manager = TaskManager(include_path=include_path, include_defaults=with_defaults)
        known = manager.all_tasks
        if all(name in known for name in asked):
            return asked, manager
    unknown = next(name for name in asked if name not in known)
    near = difflib.get_close_matches(unknown, known, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "see --include_path"
    raise ConfigError(f"--tasks: no task is named {unknown!r}; {hint}")


def _open(args: argparse.Namespace, mesh: "MeshConfig | None") -> "PodiumLM":
    import dataclasses

    from podium.checkpoint import restore_params, saved_config
    from podium.compile_cache import use_compile_cache
    from podium.generate import Generator
    from podium.harness import PodiumLM
    from podium.scoring import Scorer
    from podium.serving_mesh import choose_mesh
    from podium.sharding.mesh import use_virtual_cpu_devices
    from podium.sharding.rules import ShardingRules

    if mesh is not None:
        use_virtual_cpu_devices(mesh)
    use_compile_cache()
    cfg = saved_config(args.workdir, args.step)
    dtype = args.dtype or cfg.model.dtype
    model = dataclasses.replace(cfg.model, dtype=dtype)
    serving = choose_mesh(model, cfg.sharding, mesh)
    rules = ShardingRules(cfg.sharding, serving.mesh)
    _, params = restore_params(args.workdir, args.step, rules=rules)
    tokenizer = tokenizer_of(args.workdir)
    max_tokens = pretrained_tokens(args.workdir, cfg.data.seq_len)
    if args.max_tokens is not None and args.max_tokens > max_tokens:
        cli.say(
            f"note: --max_tokens is {args.max_tokens}, rows in training were "
            f"{max_tokens} long"
        )
    return PodiumLM(
        Scorer(model, params, rules, loss=cfg.loss, batch_seqs=args.batch_seqs),
        lambda: Generator(model, params, serving),
        tokenizer,
        end_ids=end_ids(args.workdir, tokenizer.eos_id),
        prefix_id=prefix_id(args.workdir, tokenizer),
        max_tokens=args.max_tokens or max_tokens,
        batch_seqs=args.batch_seqs,
        seed=args.seed,
    )


def prefix_id(workdir: str, tokenizer: "Tokenizer") -> int:
    """The token that stands for an empty context, as in the harness's own adapter: what
    begins a document, also where only an imported model's files name it; else its end."""
    found = [
        tokenizer.bos_id,
        read_pretrained(workdir, "generation_config.json").get("bos_token_id"),
        read_pretrained(workdir, "config.json").get("bos_token_id"),
        tokenizer.eos_id,
    ]
    return next(i for i in found if isinstance(i, int))


def _evaluate(
    args: argparse.Namespace, lm: "PodiumLM", tasks: list[str], manager: Any
) -> dict[str, Any]:
    from lm_eval.evaluator import simple_evaluate

    try:
        with at_work():
            found = simple_evaluate(
                model=lm,
                tasks=list(tasks),
                task_manager=manager,
                num_fewshot=args.num_fewshot,
                limit=args.limit,
                log_samples=bool(args.samples),
                torch_random_seed=None,  # pyright: ignore[reportArgumentType]
            )
    except PodiumError:
        raise
    except Exception as error:
        if lm.has_begun:
            raise
        why = " ".join(str(error).split())[:300]
        raise DataError(
            f"the harness cannot load {', '.join(tasks)}: {type(error).__name__}: "
            f"{why}; it downloads its own tasks' data from huggingface.co"
        ) from error
    assert found is not None
    return dict(found)


def _rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Task -> its figures: the harness's `metric,filter` keys, standard errors apart."""
    out = {}
    for name, values in found["results"].items():
        figures = {k: v for k, v in values.items() if isinstance(v, int | float)}
        metrics = {k: v for k, v in figures.items() if "_stderr" not in k and "," in k}
        errors = {
            k.replace("_stderr", ""): v for k, v in figures.items() if "_stderr" in k
        }
        counts = found["n-samples"].get(name, {})
        num = counts.get("effective", values.get("sample_len"))
        out[name] = {"metrics": metrics, "stderr": errors, "num": num}
    return out


def _write_samples(path: str, samples: dict[str, list[dict[str, Any]]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for task, rows in samples.items():
            for row in rows:
                line = json.dumps(
                    {"task": task, **row}, default=str, ensure_ascii=False
                )
                file.write(line + "\n")
    print(f"requests and answers: {path}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
