# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates, loss masks, and what becomes of a line of JSONL."""

import json
import pathlib
import re

import numpy as np
import pytest

from podium import cli, prepare
from podium.chat_template import ChatTemplate, TemplateRefusalError, find_chat_template
from podium.errors import ConfigError, DataError
from podium.input.manifest import load_manifest
from podium.input.records import decode_record, feature_spans
from podium.preparation.chat import ChatEncoder, ChatForm, TemplateMisfitError
from podium.preparation.conversations import RefusedError
from podium.preparation.verify import verify
from podium.prepare import PrepareSpec
from tests.golden.chat_templates import CONVERSATIONS, TEMPLATES

GOLDEN = json.loads(pathlib.Path("tests/golden/chat.json").read_text())
TOKENIZERS = {k: json.dumps(v) for k, v in GOLDEN["tokenizers"].items()}
UINT16 = np.dtype("<u2")


def encoder(
    template=TEMPLATES["smollm2"][0],
    tokenizer="bytelevel",
    bos="<s>",
    eos="<|im_end|>",
    records="conversations",
    max_tokens=None,
):
    form = ChatForm(
        records=records,
        template=template,
        special_tokens={"bos_token": bos, "eos_token": eos},
        max_tokens=max_tokens,
    )
    return ChatEncoder(form, TOKENIZERS[tokenizer], bos_id=None, eos_id=0)


def ids_and_mask(encoded):
    ids = np.frombuffer(encoded.ids, UINT16).tolist()
    return ids, list(encoded.mask)


@pytest.mark.parametrize("is_tagged", [False, True])
@pytest.mark.parametrize(
    "row",
    GOLDEN["rows"],
    ids=lambda r: f"{r['tokenizer']}-{r['template']}-{r['conversation']}",
)
def test_text_ids_and_mask_are_those_of_transformers(row, is_tagged):
    plain, tagged, bos, eos = TEMPLATES[row["template"]]
    template = tagged if is_tagged else plain
    messages = CONVERSATIONS[row["conversation"]]
    ours = encoder(template, row["tokenizer"], bos, eos)
    if "error" in row:
        with pytest.raises(RefusedError) as refused:
            ours.encode({"messages": messages}, UINT16)
        assert refused.value.detail == row["error"]
        return
    parsed = ChatTemplate(template, {"bos_token": bos, "eos_token": eos})
    assert parsed.render(messages) == row["text"]
    assert parsed.render(messages, add_generation_prompt=True) == row["prompt"]
    assert parsed.has_generation == is_tagged
    ids, mask = ids_and_mask(ours.encode({"messages": messages}, UINT16))
    assert ids == row["ids"]
    assert mask == row["mask"]


def test_a_template_sees_what_transformers_shows_it_and_nothing_more():
    text = (
        "{{ strftime_now('%d %b %Y') }} {{ messages | tojson }} {{ tools is none }}"
        "{% for m in messages %}{% break %}{% endfor %}"
    )
    shown = ChatTemplate(text, {}).render(
        [{"role": "user", "content": "<é>", "x": None}]
    )
    assert shown == '26 Jul 2024 [{"role": "user", "content": "<é>"}] True'
    with pytest.raises(TemplateRefusalError, match="unsafe"):
        ChatTemplate("{{ ''.__class__.__mro__ }}", {}).render([])
    with pytest.raises(ConfigError, match=r"T: line 2: Expected an expression"):
        ChatTemplate("\n{% for %}", {}, where="T")


def test_a_turn_of_weight_0_is_context():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    off = {**turns[1], "weight": 0}
    for template in TEMPLATES["smollm2"][:2]:
        both = encoder(template)
        wanted = ids_and_mask(both.encode({"messages": turns + turns}, UINT16))
        found = ids_and_mask(both.encode({"messages": [turns[0], off, *turns]}, UINT16))
        assert found[0] == wanted[0]
        half = len(wanted[1]) - wanted[1][::-1].index(1) - sum(wanted[1]) // 2
        assert found[1] == [0] * half + wanted[1][half:]


def test_sharegpt_lines_are_the_same_conversation():
    openai = {"messages": [m for m in CONVERSATIONS[0]]}
    names = {"user": "human", "assistant": "gpt"}
    other = [
        {"from": names[m["role"]], "value": m["content"]} for m in CONVERSATIONS[0]
    ]
    assert encoder().encode(openai, UINT16) == encoder().encode(
        {"conversations": other}, UINT16
    )


def test_a_template_that_rewrites_earlier_turns_is_an_error():
    text = (
        "{% for m in messages %}{{ m.role }}: "
        "{{ m.content if loop.last else m.content | upper }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(TemplateMisfitError, match="message 1: the template writes"):
        encoder(text).encode({"messages": CONVERSATIONS[1]}, UINT16)


SAID = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ({"text": "a"}, "no conversation", "no key 'messages' .* are 'text'"),
        ({"messages": []}, "no conversation", "'messages' is empty"),
        ({"messages": "a"}, "no conversation", "'messages' is a str"),
        ({"messages": ["a"]}, "no conversation", r"messages\[0\] is a str"),
        ({"messages": [{"role": "bot"}]}, "bad role", "role 'bot'; expected system"),
        ({"conversations": [{"from": "x"}]}, "bad role", "from 'x'; expected"),
        ({"messages": [{"role": "tool"}]}, "tools", "tools are not supported"),
        ({"messages": SAID, "tools": [{}]}, "tools", "'tools'"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
            "tools",
            "tool_calls",
        ),
        ({"messages": [{"role": "user"}]}, "no conversation", "content is a NoneType"),
        ({"messages": SAID[:1]}, "no answer", "no message of the assistant"),
        ({"messages": SAID[1:]}, "no question", "message 0 answers nothing"),
        (
            {"messages": [*SAID, {"role": "user", "content": "<|im_end|>"}]},
            "special token",
            "im_end.* in message 2",
        ),
        ({"chosen": "a", "rejected": "b"}, "no conversation", "--chat=preferences"),
    ],
)
def test_a_line_that_is_no_conversation_says_why(line, reason, detail):
    with pytest.raises(RefusedError) as refused:
        encoder().encode(line, UINT16)
    assert refused.value.reason == reason
    assert re.search(detail, refused.value.detail)


# --- the command ---------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """The folder of a model's tokenizer with SmolLM2's template."""
    folder = tmp_path / "model"
    (folder / "pretrained").mkdir(parents=True)
    (folder / "tokenizer.json").write_text(TOKENIZERS["bytelevel"])
    config = {"chat_template": TEMPLATES["smollm2"][0], "eos_token": "<|im_end|>"}
    (folder / "pretrained" / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def lines_of(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def spec(model, inputs, output, **changes):
    values = {"tokenizer": str(model / "tokenizer.json"), "chat": "conversations"}
    values |= {"eval_fraction": 0.0, "num_workers": 1, "output": str(output)}
    return PrepareSpec(inputs=(inputs,), **(values | changes))


def records_of(folder):
    """(ids, mask) of every record of the train split, read as plain Examples."""
    out = []
    for shard in load_manifest(folder).splits["train"]:
        raw, at = (folder / shard.file).read_bytes(), 0
        while at < len(raw):
            data = decode_record(raw, at, "")
            ids, mask = (
                data[slice(*feature_spans(data, name, "")[0])]
                for name in ("tokens", "loss_mask")
            )
            out.append((np.frombuffer(ids, UINT16).tolist(), list(mask)))
            at += len(data) + 16
    return out


def test_a_prepared_conversation_is_a_plain_example_with_a_mask(model, tmp_path):
    rows = [r for r in GOLDEN["rows"] if r["tokenizer"] == "bytelevel"]
    rows = [r for r in rows if r["template"] == "smollm2"]
    chats = lines_of(tmp_path / "c.jsonl", [{"messages": c} for c in CONVERSATIONS])
    output = tmp_path / "gold"
    manifest = prepare.prepare(spec(model, chats, output))
    assert records_of(output) == [(r["ids"], r["mask"]) for r in rows]
    assert manifest.chat
    assert manifest.chat.records == "conversations"
    assert json.loads((output / "manifest.json").read_text())["format_version"] == 2
    verify(str(output), lambda n: None)


def test_what_cannot_be_used_is_counted_and_named(model, tmp_path):
    lines = [
        {"messages": SAID},
        {"messages": [{"role": "bot", "content": "x"}]},
        {"messages": [*SAID, {"role": "user", "content": "word " * 200}]},
        {"messages": SAID[:1]},
    ]
    chats = lines_of(tmp_path / "c.jsonl", lines)
    output = tmp_path / "gold"
    manifest = prepare.prepare(spec(model, chats, output, max_tokens=200))
    assert manifest.num_records("train") == 1
    rejects = [
        json.loads(x) for x in (output / "rejects.jsonl").read_text().splitlines()
    ]
    assert sorted((r["item"], r["reason"]) for r in rejects) == [
        (1, "bad role"),
        (2, "too long"),
        (3, "no answer"),
    ]


def test_strict_names_the_line_also_in_a_later_shard(model, tmp_path):
    lines = [{"messages": SAID}] * 49 + [{"messages": [{"role": "bot"}]}]
    chats = lines_of(tmp_path / "c.jsonl", lines)
    wanted = spec(model, chats, tmp_path / "gold", strict=True, num_shards=4)
    with pytest.raises(DataError, match=r"c.jsonl: line 50: bad role \(messages\[0\]"):
        prepare.prepare(wanted)


def test_a_template_that_does_not_fit_names_the_line(model, tmp_path):
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{{ messages | length }}{% endfor %}"
    )
    chats = lines_of(tmp_path / "c.jsonl", [{"text": "x"}, {"messages": SAID}])
    with pytest.raises(DataError, match=r"c.jsonl: line 2: message 1: the template"):
        prepare.prepare(spec(model, chats, tmp_path / "gold"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tokenizer=bytes"], "--chat needs the tokenizer.json"),
        (["--tokenizer=MODEL", "--text_key=x"], "--text_key names texts"),
        (
            ["--tokenizer=MODEL", "--max_tokens=1"],
            "--max_tokens=1: expected at least 2",
        ),
        (["--tokenizer=BARE"], "holds no chat template: no chat_template.jinja"),
        (["--tokenizer=MODEL", "--chat=dpo"], "invalid choice: 'dpo'"),
        (["--tokenizer=MODEL"], r"1 no conversation \(.*c.jsonl: line 1: no key"),
        (["--tokenizer=MODEL", "--input=EMPTY"], "1 empty"),
        (["--tokenizer=MODEL", "--input=TEXT"], "expected a .jsonl"),
    ],
)
def test_a_mistake_is_one_line(model, tmp_path, capsys, flags, said):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "tokenizer.json").write_text(TOKENIZERS["bytelevel"])
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "a.txt").write_text("a text")
    chats = lines_of(tmp_path / "c.jsonl", [{"text": "x"}])
    named = {
        "MODEL": model / "tokenizer.json",
        "BARE": tmp_path / "bare/tokenizer.json",
    }
    named |= {"EMPTY": tmp_path / "empty.jsonl", "TEXT": tmp_path / "a.txt"}
    for name, path in named.items():
        flags = [flag.replace(name, str(path)) for flag in flags]
    if not any(flag.startswith("--input") for flag in flags):
        flags = [*flags, f"--input={chats}"]
    flags = ["--chat", f"--output={tmp_path / 'gold'}", "--num_workers=1", *flags]
    with pytest.raises(SystemExit) as stop:
        cli.run(prepare.main, flags)
    assert stop.value.code in (1, 2)
    shown = capsys.readouterr().err.strip().splitlines()
    assert re.search(said, shown[-1]), shown
    assert not any("Traceback" in line for line in shown)


def test_the_template_is_found_where_transformers_keeps_it(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "chat_template": [
                    {"name": "tool_use", "template": "T"},
                    {"name": "default", "template": "D{{ eos_token }}"},
                ],
                "eos_token": {"content": "E"},
            }
        )
    )
    found = find_chat_template(tmp_path / "tokenizer.json")
    assert found
    assert found.render([]) == "DE"
    (tmp_path / "chat_template.jinja").write_text("J")
    found = find_chat_template(tmp_path)
    assert found
    assert found.render([]) == "J"
