# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The command: from a run's folder to text, and one line for every mistake."""

import dataclasses
import json
import subprocess
import sys

import pytest

from podium import sample
from podium.checkpoint import Checkpoints
from podium.config import CheckpointConfig
from podium.errors import PodiumError
from podium.preparation.spec import PrepareSpec
from podium.prepare import prepare
from podium.text_stream import TextStream
from podium.tokenizer import bytes_tokenizer
from tests.trainer import tiny

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of an untrained bytes model, with its data in D/data."""
    folder = tmp_path_factory.mktemp("run")
    text = folder / "text"
    text.mkdir()
    for i in range(4):
        (text / f"{i}.txt").write_text(f"document {i}\n" * 9)
    prepare(
        PrepareSpec(
            inputs=(str(text),),
            output=str(folder / "data"),
            tokenizer="bytes",
            eval_fraction=0.25,
            num_workers=1,
        )
    )
    cfg = tiny.config(model=dataclasses.replace(tiny.MODEL, vocab_size=257))
    cfg = dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, paths=()))
    _, state = tiny.start(cfg)
    checkpoints = Checkpoints(folder, CheckpointConfig())
    checkpoints.save(state, step=3, cfg=cfg, fingerprints=["f"], eval_loss=None)
    checkpoints.close()
    return folder


def test_one_prompt_streams_its_continuation(workdir, capsys):
    flags = [f"--workdir={workdir}", "--num_tokens=5", "--temperature=0"]
    assert sample.main([*flags, "--prompt=hello"]) == 0
    streamed = capsys.readouterr().out
    assert streamed.startswith("hello")
    assert sample.main([*flags, "--prompt=hello", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert len(row["tokens"]) == 5
    assert row["completion"] == bytes_tokenizer().decode(row["tokens"])
    assert streamed == f"hello{row['completion']}\n"


def test_several_prompts_come_back_in_order(workdir, capsys):
    flags = [f"--workdir={workdir}", "--num_tokens=3", "--seed=4", "--step=3"]
    assert sample.main([*flags, "--prompt=one", "--prompt=a longer one", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["one", "a longer one"]
    assert all(len(row["tokens"]) == 3 or row["is_ended"] for row in rows)


def test_prompts_come_from_files_in_batches_and_on_a_mesh(workdir, tmp_path, capsys):
    texts = ["one", "a longer one", "two", "one"]
    lines, objects = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    lines.write_text("\n".join(texts[:2]) + "\n\n" + "\r\n".join(texts[2:]) + "\n")
    objects.write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts))
    flags = [f"--workdir={workdir}", "--num_tokens=4", "--json", "--dtype=float32"]
    outs = []
    for more in (
        [f"--prompts={lines}", "--batch_seqs=3", "--mesh=data4.fsdp2"],
        [f"--prompts={objects}"],
        [f"--prompt={text}" for text in texts],
    ):
        assert sample.main([*flags, *more]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["prompt"] for row in rows] == texts
        assert all(row["prefill_tokens_per_sec"] > 0 for row in rows)
        outs.append([row["tokens"] for row in rows])
    assert outs[0] == outs[1] == outs[2]
    assert outs[0][0] != outs[0][3]  # the same prompt twice, drawn anew


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.txt", "\n \n", "holds no prompt; expected one a line"),
        ("a.jsonl", '{"prompt": "a"}\n["b"]\n', r'a.jsonl:2: expected an .* \["b"\]'),
        ("b.jsonl", '{"text": "a"}\n', r"b.jsonl:1: expected an object"),
    ],
)
def test_a_file_without_prompts_is_an_error(workdir, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(PodiumError, match=message):
        sample.main([f"--workdir={workdir}", f"--prompts={tmp_path / name}"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt="], "prompt is empty"),
        ([], "there is no prompt: expected --prompt=TEXT"),
        (["--prompt=a", "--batch_seqs=0"], "--batch_seqs is 0; expected 1 or more"),
        (
            ["--prompt=a", "--mesh=tensr2"],
            "--mesh: 'tensr2' in 'tensr2' is not an axis",
        ),
        (["--prompt=a", "--mesh=data3"], "data=3 takes 3 devices, but there are 8"),
        (["--prompt=a", "--mesh=tensor8"], "does not divide by mesh axis tensor"),
        (["--prompts=nowhere.txt"], "--prompts=nowhere.txt cannot be read: No such"),
        (["--prompt=a", "--step=9"], r"no checkpoint 9 .* found \[3\]"),
        (["--prompt=a", "--temperature=-1"], "temperature is -1"),
        (["--prompt=a", "--num_tokens=0"], "num_tokens is 0"),
        (["--prompt=a", "--stop="], "--stop is empty"),
    ],
)
def test_a_mistake_is_an_error_that_says_what(workdir, flags, message):
    with pytest.raises(PodiumError, match=message):
        sample.main([f"--workdir={workdir}", *flags])


def test_a_missing_tokenizer_is_looked_for_where_the_data_lies(workdir, tmp_path):
    (tmp_path / "checkpoints").symlink_to(workdir / "checkpoints")
    with pytest.raises(PodiumError, match=f"tokenizer should lie .* {tmp_path}/data"):
        sample.main([f"--workdir={tmp_path}", "--prompt=a"])


def test_a_character_split_over_tokens_is_shown_whole():
    tokenizer = bytes_tokenizer()
    stream = TextStream(tokenizer, end_ids={tokenizer.eos_id})
    shown = [stream.add(token) for token in [*"aé€".encode(), tokenizer.eos_id]]
    assert shown == ["a", "", "é", "", "", "€", ""]
    assert stream.rest() == ""
    assert stream.add(0xE2) == ""
    assert stream.rest() == "\ufffd"


def test_a_text_that_may_begin_a_stop_is_held_back():
    tokenizer = bytes_tokenizer()
    stream = TextStream(tokenizer, end_ids={tokenizer.eos_id}, stops=["\n\n", "END"])
    shown = [stream.add(token) for token in b"a\nbEN"]
    assert shown == ["a", "", "\nb", "", ""]
    assert not stream.is_stopped
    assert [stream.add(token) for token in b"Dx"] == ["", ""]
    assert stream.is_stopped
    assert stream.rest() == ""
    other = TextStream(tokenizer, end_ids=(), stops=["END"])
    assert [other.add(token) for token in b"aEN"] == ["a", "", ""]
    assert other.rest() == "EN"


def test_a_stop_ends_a_row_whatever_shares_its_batch(workdir, capsys):
    flags = [f"--workdir={workdir}", "--temperature=0", "--num_tokens=40"]

    def rows(*more):
        assert sample.main([*flags, "--json", *more]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (whole,) = rows("--prompt=ab")
    stop = whole["completion"][20:22]
    cut = whole["completion"].index(stop)
    asked = f"--stop={stop}"
    (alone,) = rows("--prompt=ab", asked, "--stop=no such text")
    assert alone["completion"] == whole["completion"][:cut]
    assert alone["is_ended"]
    assert alone["tokens"] == whole["tokens"][: len(alone["tokens"])]
    assert len(alone["tokens"]) < len(whole["tokens"])
    beside = rows("--prompt=ab", "--prompt=zzz", asked)[0]
    assert beside["tokens"] == alone["tokens"]
    assert beside["completion"] == alone["completion"]
    assert sample.main([*flags, "--prompt=ab", asked]) == 0  # streamed
    assert capsys.readouterr().out == "ab" + whole["completion"][:cut] + "\n"


def test_help_shows_an_example_without_importing_jax():
    code = "import sys, podium.sample as s; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    shown = subprocess.run(
        [sys.executable, "-m", "podium.sample", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python -m podium.sample --workdir=runs/quickstart" in shown.stdout


def test_a_wrong_folder_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "podium.sample", f"--workdir={tmp_path}"]
    done = subprocess.run(
        [*command, "--prompt=a"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("CheckpointError: ")
    assert done.stderr.count("\n") == 1


def test_a_message_is_asked_in_the_template_of_the_model(workdir, capsys):
    flags = [f"--workdir={workdir}", "--num_tokens=4", "--temperature=0", "--json"]
    with pytest.raises(PodiumError, match=r"--chat: .* holds no chat template"):
        sample.main([*flags, "--chat", "--prompt=hi"])
    path = workdir / "chat_template.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.role }}={{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant={% endif %}"
    )
    try:
        assert sample.main([*flags, "--chat", "--prompt=hi"]) == 0
        asked = json.loads(capsys.readouterr().out)
        assert sample.main([*flags, "--prompt=user=hi\nassistant="]) == 0
        assert asked["tokens"] == json.loads(capsys.readouterr().out)["tokens"]
        assert sample.main([*flags[:-1], "--chat", "--prompt=hi"]) == 0
        assert capsys.readouterr().out == f"{asked['completion']}\n"
        path.write_text("{{ raise_exception('not today') }}")
        with pytest.raises(PodiumError, match="refuses the message: not today"):
            sample.main([*flags, "--chat", "--prompt=hi"])
    finally:
        path.unlink()
