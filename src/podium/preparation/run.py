# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Raw inputs -> gold data: scan, tokenizer, shards in parallel, one rename.

While it runs, everything lies in OUTPUT.partial/RECIPE/, where a run that was killed
finds its finished shards again; OUTPUT itself appears when it is whole.
"""

import contextlib
import dataclasses
import fcntl
import glob
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

from podium.chat_template import ChatTemplate, find_chat_template, no_template
from podium.errors import ConfigError, DataError, PodiumError, at_work
from podium.input.manifest import ChatInfo, Manifest, TokenizerInfo, load_manifest
from podium.preparation import bpe, finish, recipe, shard
from podium.preparation.chat import ChatForm
from podium.preparation.plan import plan_shards
from podium.preparation.pool import Pool
from podium.preparation.progress import Progress, count_of, megabytes, say
from podium.preparation.rejects import why_none, why_none_of_chats
from podium.preparation.shard import ShardTask
from podium.preparation.sources import Unit, find_units
from podium.preparation.spec import PrepareSpec
from podium.tokenizer import bytes_tokenizer, huggingface_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished preparation."""

    manifest: Manifest
    summary: dict[str, Any]  # documents, text_bytes, rejects by reason, seconds
    is_up_to_date: bool  # nothing had to be done


def run(spec: PrepareSpec) -> Outcome:
    """Prepares what `spec` says, or finds that it was done before.

    Raises ConfigError for what the caller can correct, DataError for what the data or
    the machine did.
    """
    start = time.monotonic()
    output = os.path.abspath(os.path.expanduser(spec.output))
    partial = output + ".partial"
    units = find_units(
        spec.inputs,
        text_key=spec.text_key,
        max_document_bytes=spec.max_document_bytes,
        data_dir=spec.data_dir,
        leave_out=(output, partial, _rejects_file(output)),
    )
    chat = _chat_form(spec)
    if chat:
        units = [_only_jsonl(unit) for unit in units]
    wanted = recipe.recipe_of(spec, units, chat)
    try:
        summary = recipe.finished_summary(output, wanted)
    except ConfigError:
        if not (
            spec.overwrite and os.path.exists(os.path.join(output, "manifest.json"))
        ):
            raise
        summary = None
    if summary is not None:
        shutil.rmtree(partial, ignore_errors=True)  # killed between rename and clean-up
        say(f"{output} is up to date")
        return Outcome(
            manifest=load_manifest(output), summary=summary, is_up_to_date=True
        )
    try:
        with _work_folder(partial, recipe.recipe_id(wanted)) as folder:
            manifest, summary = _prepare(
                spec, chat, wanted, units, folder, output, start
            )
    except OSError as e:
        with at_work():
            raise DataError(
                f"{e.filename or output}: {e.strerror}; run the same command to continue"
            ) from e
    return Outcome(manifest=manifest, summary=summary, is_up_to_date=False)


def _chat_form(spec: PrepareSpec) -> ChatForm | None:
    if spec.chat is None:
        return None
    template = find_chat_template(str(spec.tokenizer))
    if template is None and spec.chat == "conversations":
        raise ConfigError(
            f"--tokenizer={spec.tokenizer}: {no_template(str(spec.tokenizer))}"
        )
    return ChatForm(
        records=spec.chat,
        template=template.text if template else None,
        special_tokens=template.special_tokens if template else {},
        max_tokens=spec.max_tokens,
    )


def _only_jsonl(unit: Unit) -> Unit:
    if unit.kind.startswith("jsonl") or unit.reason in ("empty", "unreadable"):
        return unit
    detail = "expected a .jsonl or .jsonl.gz file"
    return dataclasses.replace(
        unit, kind="reject", reason="no conversation", detail=detail
    )


def _prepare(
    spec: PrepareSpec,
    chat: ChatForm | None,
    wanted: dict[str, Any],
    units: Sequence[Any],
    folder: str,
    output: str,
    start: float,
) -> tuple[Manifest, dict[str, Any]]:
    shards = plan_shards(units, spec.num_shards)
    if not shards:
        raise DataError(f"no files in {', '.join(spec.inputs)}; nothing to prepare")
    if spec.num_shards and len(shards) < spec.num_shards:
        say(
            f"{count_of(len(shards), 'shard')}, not {spec.num_shards}: there is not more "
            "to share"
        )
    total = sum(unit.size_bytes for unit in units)
    say(
        f"{count_of(len(units), 'file or piece', 'files or pieces')}, {megabytes(total)}, "
        f"{count_of(len(shards), 'shard')}"
    )
    eval_below = int(spec.eval_fraction * 2**64)
    num_workers = spec.num_workers or _num_cores()
    tokenizer = _tokenizer(
        spec, chat, shards, folder, eval_below, num_workers, _rejects_file(output)
    )
    tasks = [
        ShardTask(
            folder=folder,
            number=number,
            units=members,
            tokenizer=tokenizer,
            text_key=spec.text_key,
            max_document_bytes=spec.max_document_bytes,
            eval_below=eval_below,
            strict=spec.strict,
            chat=chat,
        )
        for number, members in enumerate(shards)
    ]
    parts = _write(tasks, num_workers)
    if not _count(parts, "train") + _count(parts, "eval"):
        if chat:
            finish.write_rejects(_rejects_file(output), tasks, parts)
            reasons = why_none_of_chats(_rejects_file(output))
        else:
            reasons = why_none(
                units,
                text_key=spec.text_key,
                max_document_bytes=spec.max_document_bytes,
                listed_in=_rejects_file(output),
            )
        shutil.rmtree(folder)
        raise DataError(f"no usable document in {', '.join(spec.inputs)}: {reasons}")
    tasks, parts = _with_both_splits(spec, tasks, parts, num_workers)
    final = os.path.join(folder, "final")
    shutil.rmtree(final, ignore_errors=True)
    os.mkdir(final)
    manifest = finish.assemble(final, tasks, parts, tokenizer, _chat_info(chat))
    summary = {
        "text_bytes": sum(part["text_bytes"] for part in parts),
        "rejects": _rejects(parts),
        "seconds": round(time.monotonic() - start, 2),
    }
    recipe.save_recipe(final, wanted, summary)
    finish.publish(final, output, manifest)
    pathlib.Path(_rejects_file(output)).unlink(missing_ok=True)  # of an earlier try
    return manifest, summary


def _chat_info(chat: ChatForm | None) -> ChatInfo | None:
    if chat is None:
        return None
    sha256 = None
    if chat.template is not None:
        sha256 = ChatTemplate(chat.template, chat.special_tokens).sha256
    return ChatInfo(records=chat.records, template_sha256=sha256)


def _tokenizer(
    spec: PrepareSpec,
    chat: ChatForm | None,
    shards: Sequence[Sequence[Any]],
    folder: str,
    eval_below: int,
    num_workers: int,
    rejects_file: str,
) -> TokenizerInfo:
    if spec.bpe_size is None:
        if spec.tokenizer == "bytes":
            tokenizer = bytes_tokenizer()
        else:
            eos = spec.eos
            if chat and eos is None:  # where the file is not clear, its model is
                eos = chat.special_tokens.get("eos_token")
            tokenizer = huggingface_tokenizer(
                str(spec.tokenizer), eos=spec.eos, else_eos=eos
            )
        tokenizer.save(folder)
        return tokenizer.info
    task = bpe.BpeTask(
        folder=folder,
        vocab_size=spec.bpe_size,
        is_at_most=spec.tokenizer is None,
        units=[unit for members in shards for unit in members],
        text_key=spec.text_key,
        max_document_bytes=spec.max_document_bytes,
        eval_below=eval_below,
        rejects_file=rejects_file,
    )
    what = f"learning bpe:{spec.bpe_size}"
    with (
        Progress(what, task.sample_chars()) as progress,
        Pool(1, num_threads=num_workers) as pool,
    ):
        info = pool.map(bpe.load_or_train, [task], progress.advance)[0]
    if info.vocab_size < spec.bpe_size:
        say(
            f"the text gives {info.vocab_size} tokens only, not {spec.bpe_size}: the "
            "vocabulary is that much smaller"
        )
    return info


def _write(
    tasks: Sequence[ShardTask], num_workers: int, what: str = "tokenizing"
) -> list[finish.Part]:
    """Parts of all tasks; those that an earlier run finished are taken as they are."""
    parts = [task.finished() for task in tasks]
    todo = [i for i, part in enumerate(parts) if part is None]
    if len(todo) < len(tasks):
        say(f"continuing: {len(tasks) - len(todo)} of {len(tasks)} shards are finished")
    if todo:
        size = sum(unit.size_bytes for i in todo for unit in tasks[i].units)
        processes = min(num_workers, len(todo))
        with (
            at_work(),
            Progress(what, size) as progress,
            Pool(processes, num_threads=max(1, num_workers // processes)) as pool,
        ):
            done = pool.map(
                shard.write_shard, [tasks[i] for i in todo], progress.advance
            )
        for i, part in zip(todo, done, strict=True):
            parts[i] = part
    return [part for part in parts if part is not None]


def _with_both_splits(
    spec: PrepareSpec,
    tasks: list[ShardTask],
    parts: list[finish.Part],
    num_workers: int,
) -> tuple[list[ShardTask], list[finish.Part]]:
    """Few documents may all hash into one split: then one of them moves.

    The lowest hash is held out, or the highest is trained on. Where all documents are
    the same text, none is held out.
    """
    lowest = min(part["lowest_hash"] for part in parts)
    highest = max(part["highest_hash"] for part in parts)
    if not _count(parts, "train"):
        moved = [i for i, part in enumerate(parts) if part["highest_hash"] == highest]
        below = highest if lowest < highest else 0
    elif spec.eval_fraction and not _count(parts, "eval") and lowest < highest:
        moved = [i for i, part in enumerate(parts) if part["lowest_hash"] == lowest]
        below = lowest + 1
    else:
        moved, below = [], 0
    if moved:
        tasks, parts = list(tasks), list(parts)
        for i in moved:
            tasks[i] = dataclasses.replace(tasks[i], eval_below=below)
        what = "moving a document into the other split"
        redone = _write([tasks[i] for i in moved], num_workers, what)
        for i, part in zip(moved, redone, strict=True):
            parts[i] = part
    if spec.eval_fraction and not _count(parts, "eval"):
        say(
            "nothing is held out: there is one document only; cut it into more with "
            "--max_document_bytes, e.g. 65536"
        )
    return tasks, parts


def _count(parts: Sequence[finish.Part], split: str) -> int:
    return sum(part["splits"][split]["records"] for part in parts)


def _rejects(parts: Sequence[finish.Part]) -> dict[str, int]:
    """Number of rejects by reason, most first."""
    total: dict[str, int] = {}
    for part in parts:
        for reason, count in part["rejects"].items():
            total[reason] = total.get(reason, 0) + count
    return dict(sorted(total.items(), key=lambda kv: (-kv[1], kv[0])))


def _rejects_file(output: str) -> str:
    """Where rejects are listed if no output comes of it."""
    return f"{output}.{finish.REJECTS_FILE}"


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _work_folder(partial: str, name: str) -> Iterator[str]:
    """partial/name, for this process alone and without leftovers of other recipes.

    `partial` is deleted at the end, unless finished parts are in it and the run is not
    done. Raises ConfigError if another process is at work there.
    """
    folder = os.path.join(partial, name)
    try:
        os.makedirs(partial, exist_ok=True)
        lock_file = open(os.path.join(partial, "lock"), "w")  # noqa: SIM115
    except OSError as e:
        raise ConfigError(
            f"--output={partial.removesuffix('.partial')} cannot be written: "
            f"{e.strerror}; choose another folder"
        ) from e
    with lock_file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{partial} is in use: another prepare writes the same --output; wait "
                "for it, or choose another name"
            ) from None
        for entry in os.scandir(partial):
            if entry.is_dir() and entry.name != name:
                say("settings or inputs differ from the unfinished run: starting again")
                shutil.rmtree(entry.path)
        os.makedirs(folder, exist_ok=True)
        try:
            yield folder
        except PodiumError:
            if not glob.glob(os.path.join(glob.escape(folder), "part-*.json")):
                shutil.rmtree(partial)
            raise
        shutil.rmtree(partial)
