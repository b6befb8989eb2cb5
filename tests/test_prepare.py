# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from podium import cli, prepare
from podium.errors import ConfigError, DataError
from podium.input.manifest import load_manifest, save_manifest
from podium.input.records import decode_record, token_span
from podium.preparation.shard import document_hash
from podium.preparation.verify import verify
from podium.prepare import PrepareSpec
from podium.tokenizer import load_tokenizer, train_bpe

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def texts(tmp_path):
    """A folder of 40 small documents."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(40):
        words = " ".join(f"word{i * j % 97}" for j in range(50 + i))
        (folder / f"{i:02}.txt").write_text(f"document {i}: {words}\n")
    return folder


def _spec(texts, output, **changes):
    values = {"tokenizer": "bytes", "eval_fraction": 0.2, "num_workers": 1}
    return PrepareSpec(
        **{"inputs": (str(texts),), "output": str(output)} | values | changes
    )


def _documents(folder):
    """(split, text, uri, item) of every record, by the index alone."""
    manifest = load_manifest(folder)
    tokenizer = load_tokenizer(folder)
    dtype = np.dtype(manifest.token_dtype)
    found = []
    for split, shards in manifest.splits.items():
        for shard in shards:
            raw = (pathlib.Path(folder) / shard.file).read_bytes()
            for record, entry in enumerate(np.load(pathlib.Path(folder) / shard.index)):
                stop = entry["payload"] + entry["tokens"] * dtype.itemsize
                ids = np.frombuffer(raw[entry["payload"] : stop], dtype)
                assert ids[-1] == manifest.tokenizer.eos_id
                text = tokenizer.decode(ids.tolist())
                found.append((split, text, *shard.source(record)))
    return found


def _bytes(folder):
    """Every file of a data set but for who made it and how long it took."""
    out = {p.name: p.read_bytes() for p in pathlib.Path(folder).iterdir()}
    out["manifest.json"] = load_manifest(folder).fingerprint.encode()
    del out["recipe.json"]
    return out


def _command(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "podium.prepare", *map(str, args)],
        capture_output=True,
        text=True,
        **kwargs,
    )


def _main(*args):
    """Exit code of the command line, run in this process."""
    with pytest.raises(SystemExit) as stop:
        cli.run(prepare.main, [str(a) for a in args])
    return stop.value.code


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
def test_every_document_comes_back_from_the_shards_with_its_source(
    texts, tmp_path, tokenizer
):
    out = tmp_path / "out"
    manifest = prepare.prepare(_spec(texts, out, tokenizer=tokenizer, num_shards=3))
    found = _documents(out)
    assert {uri: text for _, text, uri, _ in found} == {
        str(path): path.read_text() for path in texts.iterdir()
    }
    assert len(found) == 40
    assert {item for *_, item in found} == {0}
    assert manifest.num_records("train") + manifest.num_records("eval") == 40
    assert len(manifest.splits["train"]) == 3
    assert not (tmp_path / "out.partial").exists()


def test_held_out_documents_are_those_with_a_low_hash(texts, tmp_path):
    prepare.prepare(_spec(texts, tmp_path / "out"))
    for split, text, *_ in _documents(tmp_path / "out"):
        assert (split == "eval") == (document_hash(text) / 2**64 < 0.2)


def test_the_number_of_workers_does_not_change_a_byte(texts, tmp_path):
    for workers in (1, 3):
        spec = _spec(
            texts,
            tmp_path / str(workers),
            tokenizer="bpe:300",
            num_shards=5,
            num_workers=workers,
        )
        prepare.prepare(spec)
    assert _bytes(tmp_path / "1") == _bytes(tmp_path / "3")


def test_a_fraction_that_catches_nobody_still_holds_one_document_out(texts, tmp_path):
    spec = _spec(texts, tmp_path / "out", eval_fraction=1e-9, num_shards=3)
    manifest = prepare.prepare(spec)
    assert manifest.num_records("eval") == 1
    assert manifest.num_records("train") == 39
    lowest = min(document_hash(p.read_text()) for p in texts.iterdir())
    ((text),) = [t for split, t, *_ in _documents(tmp_path / "out") if split == "eval"]
    assert document_hash(text) == lowest


def test_two_documents_that_both_hash_low_are_one_each(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    low = [t for t in map(str, range(50)) if document_hash(t) < 2**63][:2]
    for i, text in enumerate(low):
        (texts / str(i)).write_text(text)
    manifest = prepare.prepare(_spec(texts, tmp_path / "out", eval_fraction=0.5))
    assert [manifest.num_records(s) for s in ("train", "eval")] == [1, 1]


@pytest.mark.parametrize("copies", [1, 3])
def test_a_single_text_is_for_training_and_the_reason_is_said(tmp_path, capsys, copies):
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(copies):
        (texts / str(i)).write_text("x")  # its hash is low
    assert document_hash("x") < 2**63
    manifest = prepare.prepare(_spec(texts, tmp_path / "out", eval_fraction=0.5))
    assert [manifest.num_records(s) for s in ("train", "eval")] == [copies, 0]
    assert "nothing is held out" in capsys.readouterr().err


def test_nothing_is_held_out_when_nobody_asks(texts, tmp_path, capsys):
    manifest = prepare.prepare(_spec(texts, tmp_path / "out", eval_fraction=0.0))
    assert manifest.splits["eval"] == ()
    assert "held out" not in capsys.readouterr().err


def test_lines_keep_their_numbers_across_shards_splits_and_rejects(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": f"line {i}"}) for i in range(300)]
    lines[100] = lines[200] = "{"
    path.write_text("\n".join(lines))
    out = tmp_path / "out"
    prepare.prepare(_spec(path, out, num_shards=7))
    found = _documents(out)
    assert {(text, item) for _, text, _, item in found} == {
        (f"line {i}", i) for i in range(300) if i not in (100, 200)
    }
    rejects = [json.loads(x) for x in (out / "rejects.jsonl").read_text().splitlines()]
    assert [(r["uri"], r["item"], r["reason"]) for r in rejects] == [
        (str(path), 100, "invalid JSON"),
        (str(path), 200, "invalid JSON"),
    ]


def test_a_long_text_is_several_records_of_one_document(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("".join(f"line {i}\n" for i in range(2000)))
    out = tmp_path / "out"
    manifest = prepare.prepare(_spec(path, out, max_document_bytes=2048, num_shards=2))
    found = sorted(_documents(out), key=lambda d: d[3])
    assert "".join(text for _, text, *_ in found) == path.read_text()
    assert [item for *_, item in found] == list(range(len(found)))
    shards = [s for split in manifest.splits.values() for s in split]
    assert sum(s.documents for s in shards) == 1


def test_bad_inputs_are_counted_and_listed_and_stop_nothing(texts, tmp_path, capsys):
    (texts / "dangling").symlink_to("nowhere")
    (texts / "empty.txt").touch()
    (texts / "latin.txt").write_bytes(b"caf\xe9")
    (texts / "picture").write_bytes(b"\x89PNG\0")
    os.mkfifo(texts / "pipe")
    out = tmp_path / "out"
    args = [f"--input={texts}", f"--output={out}", "--tokenizer=bytes", "--json"]
    assert _main(*args) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rejects"] == {
        "unreadable": 2,
        "binary": 1,
        "empty": 1,
        "not UTF-8": 1,
    }
    assert sum(split["documents"] for split in result["splits"].values()) == 40
    rows = [json.loads(x) for x in (out / "rejects.jsonl").read_text().splitlines()]
    assert [pathlib.Path(r["uri"]).name for r in rows] == [
        "dangling",
        "empty.txt",
        "latin.txt",
        "picture",
        "pipe",
    ]


def test_strict_stops_at_bad_input_with_its_name_but_not_at_a_picture(texts, tmp_path):
    (texts / "picture").write_bytes(b"\x89PNG\0")
    prepare.prepare(_spec(texts, tmp_path / "fine", strict=True))
    (texts / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin.txt: item 0: not UTF-8"):
        prepare.prepare(_spec(texts, tmp_path / "out", strict=True))
    assert not (tmp_path / "out").exists()


def test_no_usable_document_is_an_error_that_says_why(tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    spec = [f"--input={tmp_path / 'texts'}", f"--output={tmp_path / 'out'}"]
    assert _main(*spec) == 2
    assert "no files in" in capsys.readouterr().err
    (tmp_path / "texts" / "empty").touch()
    assert _main(*spec, "--tokenizer=bytes") == 2
    assert "no usable document" in (err := capsys.readouterr().err)
    assert "1 empty" in err
    assert _main(*spec) == 2
    assert "no usable text: 1 empty" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.rejects.jsonl", "texts"]
    (tmp_path / "texts" / "full").write_text("to be")  # its rejects are no input
    assert _main(f"--input={tmp_path}", *spec[1:], "--tokenizer=bytes") == 0
    assert "2 files or pieces" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "texts"]


def test_a_small_text_shrinks_the_default_tokenizer_and_no_other(texts, tmp_path):
    args = [f"--input={texts}", f"--output={tmp_path / 'out'}"]
    done = _command(*args)
    assert done.returncode == 0, done.stderr
    size = load_manifest(tmp_path / "out").tokenizer.vocab_size
    assert 257 < size < 8192
    assert f"the text gives {size} tokens only, not 8192" in done.stderr
    assert f"--config.model.vocab_size={size}" in done.stdout.splitlines()[-1]
    assert "1 shard," not in done.stderr  # the line ends there
    assert "1 shard\n" in done.stderr
    assert "0.0 MB" not in done.stderr
    explicit = _command(*args[:1], f"--output={tmp_path / 'b'}", "--tokenizer=bpe:8192")
    assert explicit.returncode == 2
    assert f"use bpe:{size} or less" in explicit.stderr


def test_an_output_that_cannot_be_written_is_said_so(texts, capsys):
    assert _main(f"--input={texts}", "--output=/proc/x") == 2
    assert "--output=/proc/x cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--input=/no/such", "--output=o"], "--input=/no/such does not exist"),
        (["--output=o"], "no input"),
        (["--input=."], "no output folder"),
        (["--input=.", "--output=o", "--tokenizer=bpe:x"], "expected a size"),
        (["--input=.", "--output=o", "--tokenizer=bpe:12"], "at least 257"),
        (["--input=.", "--output=o", "--tokenizer=t.json"], "no such file"),
        (["--input=.", "--output=o", "--eval_fraction=0.9"], "expected 0 to 0.5"),
        (["--input=.", "--output=o", "--num_shards=0"], "at least 1"),
        (["--input=.", "--output=o", "--eos=x"], "--eos only goes with"),
        (["--input=.", "--output=o", "--colour=red"], "unknown argument '--colour"),
        (["--verify=d", "--input=."], "--verify checks"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    args, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert _main(*args) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_finished_output_is_found_and_left_alone(texts, tmp_path, capsys):
    spec = _spec(texts, tmp_path / "out")
    first = prepare.prepare(spec)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert prepare.prepare(spec) == first
    assert "is up to date" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before


def test_an_output_made_differently_is_an_error_unless_overwritten(texts, tmp_path):
    out = tmp_path / "out"
    first = prepare.prepare(_spec(texts, out))
    changed = _spec(texts, out, tokenizer="bpe:300")
    with pytest.raises(
        ConfigError, match=r"tokenizer was 'bytes', is 'bpe:300'.*--over"
    ):
        prepare.prepare(changed)
    (texts / "new.txt").write_text("new")
    with pytest.raises(ConfigError, match=r"files were added.*--overwrite"):
        prepare.prepare(_spec(texts, out))
    assert load_manifest(out) == first
    prepare.prepare(_spec(texts, out, overwrite=True))
    assert load_manifest(out).fingerprint != first.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "texts"]


def test_a_folder_that_is_no_data_set_is_never_replaced(texts, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"holds no manifest.json"):
        prepare.prepare(_spec(texts, out, overwrite=True))
    assert (out / "thesis.tex").read_text() == "x"


def test_an_output_inside_its_input_does_not_feed_on_itself(texts):
    spec = _spec(texts, texts / "out")
    prepare.prepare(spec)
    prepare.prepare(spec)  # still up to date
    assert len(_documents(texts / "out")) == 40


def test_a_killed_run_leaves_no_data_set_and_the_next_one_continues(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(120):
        (texts / f"{i:03}.txt").write_text(f"{i} some text\n" * 20_000)
    out, whole = tmp_path / "out", tmp_path / "whole"
    args = [f"--input={texts}", "--tokenizer=bytes", "--num_shards=60"]
    command = [sys.executable, "-m", "podium.prepare", *args, f"--output={out}"]
    run = subprocess.Popen([*command, "--num_workers=1"], stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("out.partial/*/part-*.json")):
        assert run.poll() is None
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    run.wait()
    with pytest.raises(DataError, match=r"out does not exist"):
        load_manifest(out)
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    continued = re.search(r"continuing: (\d+) of 60 shards", again.stderr)
    assert continued, again.stderr
    assert 1 <= int(continued[1]) < 60
    _command(*args, f"--output={whole}", check=True)
    assert _bytes(out) == _bytes(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "texts", "whole"]


def test_a_run_with_other_settings_takes_nothing_from_a_killed_one(texts, tmp_path):
    stale = tmp_path / "out.partial" / "0123456789abcdef"
    stale.mkdir(parents=True)
    (stale / "part-00000.json").write_text("{}")
    prepare.prepare(_spec(texts, tmp_path / "out"))
    assert len(_documents(tmp_path / "out")) == 40
    assert not (tmp_path / "out.partial").exists()


def test_two_runs_do_not_write_one_output(texts, tmp_path):
    (tmp_path / "out.partial").mkdir()
    with open(tmp_path / "out.partial" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another prepare"):
            prepare.prepare(_spec(texts, tmp_path / "out"))


def test_verify_accepts_what_was_written_and_names_what_was_damaged(
    texts, tmp_path, capsys
):
    out = tmp_path / "out"
    prepare.prepare(_spec(texts, out, tokenizer="bpe:300"))
    assert _main(f"--verify={out}") == 0
    shard = out / load_manifest(out).splits["train"][0].file
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    capsys.readouterr()
    assert _main(f"--verify={out}") == 1
    err = capsys.readouterr().err
    assert f"{shard}: SHA-256" in err
    assert "Traceback" not in err
    shard.write_bytes(raw[:-1])  # seen at once, by its size: the same code
    assert _main(f"--verify={out}") == 1
    assert _main(f"--verify={tmp_path / 'nowhere'}") == 2


def test_verify_finds_records_that_contradict_the_manifest(texts, tmp_path):
    """As another program's mistakes would: every checksum is right."""
    out = tmp_path / "out"
    good = prepare.prepare(_spec(texts, out))
    shard = good.splits["train"][0]

    def refused(says, **changes):
        save_manifest(out, dataclasses.replace(good, **changes))
        with pytest.raises(DataError, match=says):
            verify(str(out), lambda n: None)

    info = good.tokenizer
    refused("does not end in eos", tokenizer=dataclasses.replace(info, eos_id=10))
    refused("does not start with bos", tokenizer=dataclasses.replace(info, bos_id=1))
    small = dataclasses.replace(shard, tokens=shard.tokens + 1)
    refused("tokens, the manifest says", splits=good.splits | {"train": (small,)})
    raw = (out / shard.file).read_bytes()
    (out / shard.file).write_bytes(raw[:20] + b"\xff" + raw[21:])
    digest = hashlib.sha256((out / shard.file).read_bytes()).hexdigest()
    forged = dataclasses.replace(shard, sha256=digest)
    refused("record 0.*CRC-32C", splits=good.splits | {"train": (forged,)})


def test_help_is_quick_to_import_and_shows_an_example():
    code = (
        "import sys; from podium import prepare, cli\n"
        "try: cli.run(prepare.main, ['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'jax', 'tensorflow', 'numpy', 'pyarrow', 'tokenizers', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python -m podium.prepare --input=" in done.stdout


def test_tensorflow_reads_the_shards_unaided(texts, tmp_path):
    out = tmp_path / "out"
    prepare.prepare(_spec(texts, out, tokenizer="bpe:300", num_shards=3))
    code = """
import glob, json, sys
import tensorflow as tf
feature = {"tokens": tf.io.FixedLenFeature([], tf.string)}
found = []
for raw in tf.data.TFRecordDataset(sorted(glob.glob(sys.argv[1] + "/*.tfrecord"))):
    tokens = tf.io.parse_single_example(raw, feature)["tokens"]
    found.append(tf.io.decode_raw(tokens, tf.uint16, little_endian=True).numpy().tolist())
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    tokenizer = load_tokenizer(out)
    found = [tokenizer.decode(ids) for ids in json.loads(done.stdout)]
    assert sorted(found) == sorted(path.read_text() for path in texts.iterdir())
    assert all(ids[-1] == tokenizer.eos_id for ids in json.loads(done.stdout))


def test_the_example_of_the_format_page_writes_valid_data(tmp_path):
    page = (ROOT / "docs" / "data-format.md").read_text()
    *_, code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", code, str(out)], check=True)
    done = _command(f"--verify={out}")
    assert done.returncode == 0, done.stderr
    texts = {text for _, text, *_ in _documents(out)}
    assert texts == {"Good morning.", "Grüß Gott.", "Good night."}
    shard = load_manifest(out).splits["train"][0]
    data = decode_record((out / shard.file).read_bytes(), 0, "f")
    assert token_span(data, "f")[1] == len(data)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_text_key_in_no_line_is_named_with_the_keys_there_are(
    tmp_path, capsys, tokenizer, suffix
):
    path = tmp_path / f"x.{suffix}"
    rows = [{"id": 1, "content": "to be"}, {"id": 2, "content": "not to be"}]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit) as stop:
        cli.run(
            prepare.main,
            [
                *(f"--input={path}", f"--output={tmp_path}/out", "--text_key=body"),
                f"--tokenizer={tokenizer}",
            ],
        )
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "no text (no " in last
    assert "'body'; there are id, content)" in last
    listed = tmp_path / "out.rejects.jsonl"
    assert last.endswith(f"see {listed}")
    rejects = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {(r["uri"], r["item"]) for r in rejects} == {
        (str(path), i) for i in range(len(rejects))
    }


def test_the_next_command_names_a_config_that_is_there(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("to be or not to be")
    prepare.main(["--input=a.txt", "--output=my gold", "--tokenizer=bytes"])
    shown = capsys.readouterr()
    assert "nothing is held out" in shown.err
    words = shlex.split(shown.out.splitlines()[-1].removeprefix("next: "))
    flags = dict(word.split("=", 1) for word in words if "=" in word)
    assert pathlib.Path(flags["--config"]).is_absolute()
    assert pathlib.Path(flags["--config"]).exists()
    assert flags["--config.data.paths"] == "my gold"
    assert flags["--config.eval"] == "None"


def test_the_next_command_of_a_models_tokenizer_tunes_that_model(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("to be or not to be")
    run = tmp_path / "run"
    run.mkdir()
    train_bpe(["to be or not to be"], 300, is_at_most=True).save(run)
    flags = [f"--input={tmp_path / 'a.txt'}", f"--tokenizer={run / 'tokenizer.json'}"]

    def shown(output):
        prepare.main([*flags, f"--output={tmp_path / output}"])
        return capsys.readouterr().out.splitlines()[-1]

    (run / "config.json").write_text("{}")  # of a folder of transformers, say
    assert "--config.model.vocab_size=" in shown("first")
    (run / "data.json").write_text("{}")
    assert f"--config={run / 'config.json'} " in (command := shown("second"))
    assert "vocab_size" not in command


def test_tfrecords_without_a_manifest_are_no_text(tmp_path):
    (tmp_path / "train-00000-of-00001.tfrecord").touch()
    with pytest.raises(DataError, match=r"beside its TFRecords.*copy the whole"):
        load_manifest(tmp_path)
