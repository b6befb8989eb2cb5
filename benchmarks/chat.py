# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A chat model before and after tuning: first on conversations, then on preferences.

python benchmarks/chat.py --model=smol > benchmarks/results/chat.md

--model is SmolLM2-135M-Instruct as a run folder (docs/models.md). The text is that of
docstrings of Python's standard library: asked what a function does, the assistant says
the first paragraph of its docstring. In a pair that is the chosen answer; rejected is
that of another function of the same module, and the other way round. Every fourth module
is held out, from both trainings. What is scored are the assistant's tokens.

`accuracy` is the share of pairs whose chosen answer is the likelier one, by the model
alone, `reward accuracy` beyond what the model before preferences
finds (podium.evaluate).
"""

import argparse
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import report

MODULES = (
    "array ast base64 bisect calendar codecs collections colorsys copy csv datetime "
    "decimal difflib dis email.utils filecmp fnmatch fractions functools gc getpass glob "
    "gzip hashlib heapq hmac html imaplib inspect io itertools json keyword linecache "
    "locale logging marshal math mimetypes operator os os.path pdb pickle pkgutil "
    "platform pprint quopri random re reprlib secrets select shlex shutil signal site "
    "socket sqlite3 ssl stat statistics string struct subprocess symtable sys sysconfig "
    "tarfile tempfile textwrap threading time timeit tokenize traceback types "
    "unicodedata unittest.mock urllib.parse uuid warnings weakref zipfile zlib"
)
PER_MODULE = 2  # of each module that has as many
SEQ_LEN = 256
Answer = tuple[str, str]  # a question, what the docstring says


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--runs", default="runs/chat", help="keeps what is made")
    parser.add_argument("--chat_steps", type=int, default=8)
    parser.add_argument("--dpo_steps", type=int, default=8)
    parser.add_argument("--chat_lr", type=float, default=5e-5)
    parser.add_argument("--dpo_lr", type=float, default=2e-5)
    args = parser.parse_args()
    runs = Path(args.runs)
    model = Path(args.model)
    data = prepare(runs, model)
    tuned, preferred = runs / "tuned", runs / "preferred"
    train(model, data["chat", "train"], tuned, args.chat_steps, args.chat_lr)
    train(
        *(model, data["pairs", "train"], preferred, args.dpo_steps, args.dpo_lr),
        *(f"--config.init_from={tuned}", "--config.dpo.beta=0.1"),
    )
    rows = []
    for name, run in {
        "as published": model,
        f"after {args.chat_steps} steps on conversations": tuned,
        f"after {args.dpo_steps} more on preferences": preferred,
    }.items():
        held = evaluate(run, data["chat", "held"])
        right, of = likelier(run, data["pairs", "held"])
        rewards = None
        if run is preferred:
            rewards = evaluate(run, data["pairs", "held"])
        rows.append((name, held, right, of, rewards))
    show(rows, runs)


def answers(module: str) -> list[Answer]:
    """Of the module's public functions, the first few; each docstring once."""
    found: dict[str, str] = {}
    for name, member in sorted(vars(importlib.import_module(module)).items()):
        is_own = getattr(member, "__module__", None) == module
        if name.startswith("_") or not inspect.isroutine(member) or not is_own:
            continue
        text = " ".join((inspect.getdoc(member) or "").split("\n\n")[0].split())
        if 40 <= len(text) <= 160 and text not in found:
            found[text] = f"What does {module}.{name} of Python do?"
    return [(question, text) for text, question in found.items()][:PER_MODULE]


def prepare(runs: Path, model: Path) -> dict[tuple[str, str], Path]:
    """Gold data by what they are for and their split."""
    runs.mkdir(parents=True, exist_ok=True)
    known = [
        found
        for module in MODULES.split()
        if len(found := answers(module)) == PER_MODULE
    ]
    out = {}
    for split in ("train", "held"):
        mine = [
            found for i, found in enumerate(known) if (i % 4 == 3) == (split == "held")
        ]
        chats = [
            {"messages": [*asked(question), say("assistant", text)]}
            for found in mine
            for question, text in found
        ]
        pairs = [
            {
                "prompt": asked(question),
                "chosen": [say("assistant", text)],
                "rejected": [say("assistant", other)],
            }
            for found in mine
            for (question, text), (_, other) in zip(
                found, found[1:] + found[:1], strict=True
            )
        ]
        for kind, rows in {"chat": chats, "pairs": pairs}.items():
            source, gold = runs / f"{kind}-{split}.jsonl", runs / f"{kind}-{split}"
            text = "".join(json.dumps(row) + "\n" for row in rows)
            source.write_text(text)
            if not (gold / "manifest.json").exists():
                command(
                    *("prepare", f"--input={source}", f"--output={gold}"),
                    f"--chat={'conversations' if kind == 'chat' else 'preferences'}",
                    *(f"--tokenizer={model / 'tokenizer.json'}", "--eval_fraction=0"),
                )
            out[kind, split] = gold
    return out


def asked(question: str) -> list[dict[str, str]]:
    # SmolLM's template has a longer system message of its own.
    return [say("system", "Be short."), say("user", question)]


def say(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def train(
    model: Path, data: Path, workdir: Path, steps: int, rate: float, *more: str
) -> None:
    command(
        *("train", f"--config={model / 'config.json'}", f"--workdir={workdir}"),
        *(f"--config.data.paths={data}", "--config.data.packing=best_fit"),
        *(f"--config.data.seq_len={SEQ_LEN}", "--config.global_batch_seqs=2"),
        *(f"--config.num_steps={steps}", f"--config.optim.peak_lr={rate}"),
        *(f"--config.optim.schedule.warmup_steps={steps // 6}", "--config.eval=None"),
        *("--config.log_every_steps=1", "--config.checkpoint.keep_best=0", *more),
    )


def evaluate(run: Path, data: Path) -> dict:
    """What podium.evaluate finds; the folder's one split is called train."""
    return json.loads(
        command(
            *("evaluate", f"--workdir={run}", f"--data={data}", "--split=train"),
            *("--batch_seqs=2", "--json"),
        )
    )


def command(name: str, *flags: str) -> str:
    """What a command prints on stdout; what it says goes on to stderr."""
    words = [sys.executable, "-m", f"podium.{name}", *flags]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def likelier(run: Path, data: Path) -> tuple[float, int]:
    """Of how many pairs the chosen answer is the likelier, and of how many."""
    import jax
    import jax.numpy as jnp

    from podium.checkpoint import restore_params
    from podium.config import DataConfig, DpoConfig
    from podium.input.loader import Loader
    from podium.input.spec import StreamSpec
    from podium.models import bind
    from podium.trainer.loss import lse_and_label
    from podium.trainer.preference import preference_sums

    cfg, params = restore_params(run)
    graph = bind.abstract(cfg.model).graphdef
    loader = Loader(
        StreamSpec(
            data=DataConfig(paths=(str(data),), packing="best_fit", seq_len=SEQ_LEN),
            split="train",
            is_one_pass=True,
            global_batch_seqs=2,
            rows=(0, 1),
        )
    )

    @jax.jit
    def sums(params, batch):
        model = bind.bind(graph, params)
        hidden = model(batch.tokens, batch.positions, batch.segment_ids)
        lse, label = lse_and_label(model.logits(hidden), batch.targets)
        logprobs = jnp.where(batch.targets >= 0, label - lse, 0.0)
        return preference_sums(logprobs, jnp.zeros_like(logprobs), batch, DpoConfig())

    total = None
    stop = loader.stop_step
    assert stop is not None  # one pass
    for step in range(stop):
        found = sums(params, loader.batch(step))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    assert total is not None
    return float(total.correct), round(float(total.pairs))


def show(rows: list, runs: Path) -> None:
    print("# python benchmarks/chat.py\n")
    manifest = {
        name: sum(1 for _ in (runs / f"{name}.jsonl").open())
        for name in ("chat-train", "chat-held")
    }
    print(
        f"{manifest['chat-train']} questions to learn from, {manifest['chat-held']} of "
        f"other modules held out ({rows[0][1]['eval_tokens']:,.0f} tokens of answers); "
        f"{rows[0][3]} held-out pairs.\n"
    )
    print(
        "| SmolLM2-135M-Instruct | loss, nats a token | accuracy | reward accuracy | "
        "DPO loss | margin |\n|---|--:|--:|--:|--:|--:|"
    )
    for name, held, right, of, rewards in rows:
        cells = [f"{held['eval_loss']:.3f}", f"{right / of:.1%}"]
        if rewards is None:
            cells += ["", "", ""]
        else:
            cells += [
                f"{rewards['eval_reward_accuracy']:.1%}",
                f"{rewards['eval_loss']:.3f}",
                f"{rewards['eval_reward_margin']:.3f}",
            ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n```\n" + "\n".join(report.lines(report.provenance())) + "\n```")


if __name__ == "__main__":
    main()
