# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Loss and perplexity on held-out data, from any checkpoint of a run.

python -m podium.evaluate --workdir=runs/quickstart
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from podium import cli, resume
from podium.config import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    MeshConfig,
    TrainConfig,
)
from podium.errors import ConfigError, DataError, at_work

T = TypeVar("T")

_EXAMPLE = """example:
  python -m podium.evaluate --workdir=runs/quickstart
  python -m podium.evaluate --workdir=runs/quickstart --step=200 --data=gold/books
  python -m podium.evaluate --workdir=runs/quickstart --by=source --json
"""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = cli.Parser(
        prog="python -m podium.evaluate",
        description="Held-out loss of a checkpoint, every scored token weighing the same.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--workdir", metavar="D", required=True, help="the run folder")
    parser.add_argument("--step", type=int, help="checkpoint (the newest)")
    parser.add_argument("--data", help="gold data folder (the run's own)")
    parser.add_argument(
        "--split", choices=("eval", "train"), default="eval", help="of the data (eval)"
    )
    parser.add_argument("--batch_seqs", type=int, help="rows at once (as in training)")
    parser.add_argument("--seq_len", type=int, help="tokens a row (as in training)")
    parser.add_argument(
        "--by",
        choices=("total", "dataset", "source"),
        help="also the loss of each data set, or of each source (as in training)",
    )
    parser.add_argument(
        "--max_groups",
        type=int,
        help="sources are grouped by folder into at most so many (as in training)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    for name in ("batch_seqs", "seq_len", "max_groups"):
        number = getattr(args, name)
        if number is not None and number < 1:
            parser.error(f"--{name} is {number}; expected 1 or more")
    args.step = resume.find_checkpoint(args.workdir, args.step, cli.say)
    cfg = resume.load_run(args.workdir)
    data = cfg.data
    if args.data:
        data = dataclasses.replace(data, paths=(args.data,), weights=())
    if args.seq_len:
        data = dataclasses.replace(data, seq_len=args.seq_len)
    has_pairs = _check_data(args, data)
    if has_pairs and cfg.dpo is None:
        raise ConfigError(
            f"{data.paths[0]} has pairs of answers, and {args.workdir} was not trained on "
            "such: a run with dpo is measured on them"
        )
    dpo = cfg.dpo if has_pairs else None  # on texts, it is a model as any other

    from podium.input.server import InputServer

    cfg = dataclasses.replace(cfg, data=data, dpo=dpo)
    with InputServer.start() as server:
        result = _evaluate(cfg, args, server)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"checkpoint {result['step']} of {args.workdir}, {args.split} split")
        unit = "nats per token" if dpo is None else "per pair"
        print(f"  loss        {result['eval_loss']:.4f} {unit}")
        if dpo is None:
            print(f"  perplexity  {result['eval_perplexity']:.2f}")
        else:
            print(f"  pairs       {result['eval_pairs']:,.0f}")
            print(f"  accuracy    {result['eval_reward_accuracy']:.1%}")
            print(f"  margin      {result['eval_reward_margin']:.3f}")
        print(f"  tokens      {result['eval_tokens']:,.0f} in rows of {data.seq_len:,}")
        _print_groups(result.get("groups", {}))
    return 0


def _print_groups(groups: dict[str, dict[str, float]]) -> None:
    width = max(map(len, groups), default=0)
    for i, (name, group) in enumerate(groups.items()):
        if i == 0:
            print(f"\n{'':{width}}     loss  perplexity       tokens")
        print(
            f"{name:{width}}  {group['loss']:7.4f}  {group['perplexity']:10.2f}  "
            f"{group['tokens']:11,}"
        )


def _check_data(args, data: DataConfig) -> bool:
    """Whether the data are pairs. Raises where a loss on them would be no loss of this
    run."""
    from podium.input.check import check_datasets
    from podium.input.manifest import has_pairs, load_manifest

    paths = data.paths
    try:
        manifests = [load_manifest(path) for path in paths]
    except DataError as error:
        if args.data:
            raise
        raise DataError(
            f"{error}. It was the run's data; name where it lies now with --data"
        ) from error
    if args.data:
        resume.check_tokenizer(args.workdir, args.data, manifests[0].tokenizer)
    else:
        resume.check_fingerprints(
            args.workdir,
            paths,
            [manifest.fingerprint for manifest in manifests],
            advice="Put the first back, or name the other with --data.",
        )
    check_datasets(data, manifests)
    for path, manifest in zip(paths, manifests, strict=True):
        if not manifest.splits[args.split]:
            other = "train" if args.split == "eval" else "eval"
            raise DataError(
                f"{path} has no {args.split} split; use --split={other}, or other --data"
            )
    return has_pairs(manifests[0])


def _evaluate(cfg: TrainConfig, args, server) -> dict:
    import jax

    from podium.checkpoint import restore_params, saved_config
    from podium.compile_cache import use_compile_cache
    from podium.input.device import Feed, prefetch
    from podium.input.groups import Groups
    from podium.input.spec import StreamSpec
    from podium.models import bind
    from podium.sharding.mesh import make_mesh
    from podium.sharding.rules import ShardingRules
    from podium.trainer.evaluate import evaluate
    from podium.trainer.state import param_layout
    from podium.trainer.step import batch_sharding, make_eval_step

    use_compile_cache()
    # Any checkpoint, on whatever is here: all devices hold a share of the weights.
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1, tensor=1))
    rules = ShardingRules(cfg.sharding, mesh)
    devices = jax.device_count()
    rows = args.batch_seqs or -(-cfg.global_batch_seqs // devices) * devices
    if rows % devices:
        raise ConfigError(
            f"--batch_seqs={rows} does not divide over {devices} devices; use "
            f"{-(-rows // devices) * devices}"
        )
    cfg = dataclasses.replace(cfg, model=saved_config(args.workdir, args.step).model)
    model = bind.abstract(cfg.model)
    feed = Feed.of(batch_sharding(rules), (rows, cfg.data.seq_len))
    spec = StreamSpec(
        data=cfg.data,
        split=args.split,
        is_one_pass=True,
        global_batch_seqs=rows,
        rows=feed.rows,
    )
    if cfg.dpo is not None:
        return _pairs(cfg, args, server.open(spec), feed, rules)
    _, params = restore_params(args.workdir, args.step, rules=rules)
    grouping = cfg.eval or EvalConfig()
    groups = Groups(
        spec, args.by or grouping.by, args.max_groups or grouping.max_groups
    )
    if len(groups.names) == 1 and args.by == "source":
        print(
            "note: --by=source makes one group of all: there is one source, or parted by "
            "folder or file they would be more than "
            f"--max_groups={args.max_groups or grouping.max_groups}",
            file=sys.stderr,
        )
    layout, num_groups = param_layout(model, rules), len(groups.names)
    eval_step = make_eval_step(cfg, model, rules, layout, num_groups)
    stream = server.open(spec)
    num_batches = _num_batches(stream)
    with at_work(), prefetch(stream, feed) as batches:
        counted = _counted(num_batches, batches)
        grouped = ((b, feed.put_one(groups.of_batch(i))) for i, b, _ in counted)
        found = evaluate(eval_step, params, grouped, groups.names)
    _say_damage(stream)
    total = found.total
    return {
        "step": args.step,
        "seq_len": cfg.data.seq_len,
        "eval_loss": total.loss,
        "eval_perplexity": total.perplexity,
        "eval_tokens": total.tokens,
        "groups": {
            name: {
                "loss": group.loss,
                "perplexity": group.perplexity,
                "tokens": group.tokens,
                "nats": group.nats,
            }
            for name, group in found.groups.items()
        },
    }


def _pairs(cfg: TrainConfig, args, stream, feed, rules) -> dict:
    import jax

    from podium.input.device import prefetch
    from podium.models import bind
    from podium.trainer.evaluate import evaluate_pairs
    from podium.trainer.step import make_pair_eval_step

    both = (_on_base if cfg.lora else _beside_reference)(cfg, args, rules)
    layouts = jax.tree.map(lambda w: w.sharding, both)
    model = bind.abstract(cfg.model)
    eval_step = make_pair_eval_step(cfg, model, rules, layouts)
    num_batches = _num_batches(stream)
    with at_work(), prefetch(stream, feed) as batches:
        counted = _counted(num_batches, batches)
        result = evaluate_pairs(eval_step, both, (b for _, b, _ in counted))
    _say_damage(stream)
    return {"step": args.step, "seq_len": cfg.data.seq_len, **result}


def _on_base(cfg: TrainConfig, args, rules) -> tuple[Any, Any]:
    """Adapters on the weights below them, and those alone: no array is there twice."""
    from podium.base_weights import load_adapted
    from podium.checkpoint import Checkpoints

    checkpoints = Checkpoints(args.workdir, CheckpointConfig())
    try:
        found = load_adapted(checkpoints, args.step, cfg.model, rules)
    finally:
        checkpoints.close()
    return found.params, found.frozen


def _beside_reference(cfg: TrainConfig, args, rules) -> tuple[Any, Any]:
    """The weights that were trained, and the reference."""
    from podium.checkpoint import restore_params
    from podium.models import bind
    from podium.starts import reference_step
    from podium.trainer.reference import reference_of
    from podium.trainer.state import param_layout

    _, params = restore_params(args.workdir, args.step, rules=rules)
    shardings: Any = param_layout(bind.abstract(cfg.model), rules)
    step = reference_step(args.workdir, cfg, is_new=False, is_first=True)
    return params, reference_of(cfg, shardings, step, rules)


def _num_batches(stream) -> int:
    """How many it has: one thread at a time may ask a stream, so not under `prefetch`."""
    with at_work():
        return stream.info.stop_step - stream.info.first_step


def _counted(num_batches: int, batches: Iterable[T]) -> Iterator[T]:
    """The same batches; how far they are is shown meanwhile."""
    from podium.preparation.progress import Progress

    with Progress("scoring", num_batches, "evaluate", "batches") as progress:
        for batch in batches:
            yield batch
            progress.advance(1)


def _say_damage(stream) -> None:
    for damage in dict.fromkeys(stream.take_damaged()):
        print(f"warning: not counted: {damage}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
