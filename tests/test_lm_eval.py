# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The harness's requests, answered as one text after the other would be.

tests/lm_eval_tasks has a task of each kind, offline. That the figures of a real model are
those of the harness's own adapter for transformers: benchmarks/results/lm_eval.md.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium import lm_eval
from podium.checkpoint import Checkpoints, restore_params
from podium.config import CheckpointConfig, DataConfig, LossConfig, ShardingConfig
from podium.errors import ConfigError, DataError, PodiumError
from podium.models.bind import abstract, bind
from podium.scoring import Scorer, Text
from podium.serving_mesh import one_device
from podium.sharding.mesh import make_mesh
from podium.sharding.rules import ShardingRules
from podium.tokenizer import bytes_tokenizer
from podium.trainer.state import param_layout
from tests.models.families_tiny import random_params
from tests.models.families_tiny import tiny as tiny_model
from tests.trainer import tiny

pytestmark = [
    pytest.mark.usefixtures("standard_promotion"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
TASKS = "tests/lm_eval_tasks"
MAX_TOKENS = 96


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of an untrained bytes model."""
    folder = tmp_path_factory.mktemp("run")
    model = dataclasses.replace(tiny.MODEL, vocab_size=257)
    cfg = tiny.config(model=model, data=DataConfig(seq_len=MAX_TOKENS))
    _, state = tiny.start(cfg)
    params = jax.tree.map(lambda w: 5.0 * w, state.params)  # else all are as likely
    state = dataclasses.replace(state, params=params)
    checkpoints = Checkpoints(folder, CheckpointConfig())
    checkpoints.save(state, step=3, cfg=cfg, fingerprints=["f"], eval_loss=None)
    checkpoints.close()
    info = dataclasses.asdict(bytes_tokenizer().info)
    (folder / "data.json").write_text(
        json.dumps({"paths": [], "fingerprints": [], "tokenizer": info})
    )
    return folder


@pytest.fixture(scope="module")
def log_probs(workdir):
    """tokens -> log-probabilities of what follows each, [T, V]."""
    cfg, params = restore_params(workdir)

    @jax.jit
    def run(tokens_BT):
        net = bind(abstract(cfg.model).graphdef, params)
        positions = jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None]
        return jax.nn.log_softmax(net.logits(net(tokens_BT, positions, None)))[0]

    def padded(tokens):
        row = np.zeros((1, 2 * MAX_TOKENS), np.int32)
        row[0, : len(tokens)] = tokens
        return np.asarray(run(row))[: len(tokens)]

    return padded


def rows_of(name):
    with open(f"{TASKS}/{name}.jsonl") as file:
        return [json.loads(line) for line in file]


def test_the_figures_are_those_of_one_text_after_the_other(
    workdir, log_probs, tmp_path, capsys
):
    samples = tmp_path / "samples.jsonl"
    flags = [f"--workdir={workdir}", f"--include_path={TASKS}", "--mesh=data4.fsdp2"]
    tasks = "--tasks=podium_choice,podium_complete,podium_text"
    assert lm_eval.main([*flags, tasks, f"--samples={samples}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 3
    answers = [json.loads(line) for line in samples.read_text().splitlines()]
    by_task = {
        task: sorted(
            (a for a in answers if a["task"] == task), key=lambda a: a["doc_id"]
        )
        for task in found["tasks"]
    }

    def score(context: str, text: str) -> float:
        before, rest = list(context.encode()), list(text.encode())
        tokens = (before + rest)[-(MAX_TOKENS + 1) :]
        logs = log_probs(tokens[:-1])[-len(rest) :]
        return float(sum(logs[i, t] for i, t in enumerate(rest)))

    hits = []
    for doc, answer in zip(rows_of("choice"), by_task["podium_choice"], strict=True):
        context = f"Question: {doc['question']}\nAnswer:"
        want = [score(context, f" {choice}") for choice in doc["choices"]]
        got = [float(r[0][0]) for r in answer["resps"]]
        np.testing.assert_allclose(got, want, rtol=1e-4)
        hits.append(int(np.argmax(want)) == doc["answer"])
    metrics = found["tasks"]["podium_choice"]["metrics"]
    assert metrics["acc,none"] == pytest.approx(np.mean(hits))
    assert found["tasks"]["podium_choice"]["num"] == len(hits)

    for doc, answer in zip(
        rows_of("complete"), by_task["podium_complete"], strict=True
    ):
        tokens = list(doc["text"].encode())[-(MAX_TOKENS - 12) :]
        start = len(tokens)
        for _ in range(12):
            tokens.append(int(np.argmax(log_probs(tokens)[-1])))
            if tokens[-1] == 256:
                break
        text = bytes_tokenizer().decode([t for t in tokens[start:] if t != 256])
        text = text.split("\n")[0].split(".")[0]
        assert answer["resps"] == [[text]]

    nats = 0.0
    for doc, answer in zip(rows_of("text"), by_task["podium_text"], strict=True):
        tokens = [256, *doc["text"].encode()]
        want = 0.0
        for at in range(0, len(tokens) - 1, MAX_TOKENS):
            # Windows of the harness: as many tokens as fit are scored at once, the
            # last ones behind all that fits before them.
            end = min(at + MAX_TOKENS, len(tokens) - 1)
            window = tokens[max(0, end - MAX_TOKENS) : end]
            logs = log_probs(window)
            want += sum(
                logs[i - (end - len(window)), tokens[i + 1]] for i in range(at, end)
            )
        np.testing.assert_allclose(float(answer["resps"][0][0]), want, rtol=1e-4)
        nats -= want
    num_bytes = sum(len(doc["text"].encode()) for doc in rows_of("text"))
    bits = found["tasks"]["podium_text"]["metrics"]["bits_per_byte,none"]
    assert bits == pytest.approx(nats / num_bytes / np.log(2), rel=1e-4)


@pytest.mark.parametrize("mesh", [{"fsdp": 2, "context": 2, "tensor": 2}, {"stage": 2}])
def test_a_mesh_and_any_batch_score_the_same(mesh):
    cfg = tiny_model("llama_3_1_8b", vocab_multiple=8, num_layers=2)
    params = random_params(cfg)
    draw = np.random.default_rng(0)
    texts = [
        Text(draw.integers(0, 61, n).tolist(), k)
        for n, k in ((90, 3), (2, 1), (33, 32))
    ]
    texts.append(texts[1])
    one = one_device()
    want = Scorer(cfg, params, one, loss=LossConfig(), batch_seqs=1).score(texts)
    assert want[1] == want[3]
    sizes = {"fsdp": 1, **mesh}
    num = int(np.prod(list(sizes.values())))
    devices = make_mesh(tiny.MeshConfig(**sizes), jax.devices()[:num])
    rules = ShardingRules(ShardingConfig(), devices)
    params = jax.device_put(params, param_layout(abstract(cfg), rules))
    loss = LossConfig(chunk_tokens=32)
    got = Scorer(cfg, params, rules, loss=loss, batch_seqs=3).score(texts)
    for a, b in zip(got, want, strict=True):
        assert a.is_greedy == b.is_greedy
        assert a.logprob == pytest.approx(b.logprob, rel=1e-5)


def test_greedy_is_said_of_the_most_likely_continuation_alone():
    cfg = tiny_model("llama_3_1_8b", num_layers=1)
    params = random_params(cfg)
    model = bind(abstract(cfg).graphdef, params)
    tokens = [5, 7, 11]
    for _ in range(3):
        row = jnp.array([tokens], jnp.int32)
        positions = jnp.arange(len(tokens), dtype=jnp.int32)[None]
        logits = jax.jit(lambda r, p: model.logits(model(r, p, None)))(row, positions)
        tokens.append(int(jnp.argmax(logits[0, -1])))
    other = [*tokens[:-2], (tokens[-2] + 1) % 61, tokens[-1]]
    scorer = Scorer(cfg, params, one_device(), loss=LossConfig(), batch_seqs=2)
    scores = scorer.score([Text(tokens, 3), Text(other, 3), Text(other, 1)])
    assert [s.is_greedy for s in scores[:2]] == [True, False]
    with pytest.raises(ConfigError, match="token 61, but the model has vocab_size=61"):
        scorer.score([Text([1, 61], 1)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(  # reads the harness's own fourteen thousand files: 20 s
            ["--tasks=podium_choise"],
            "no task is named 'podium_choise'; did you mean podium_choice",
            marks=pytest.mark.slow,
        ),
        (["--tasks=,"], "--tasks is ','; expected names"),
        (["--tasks=podium_choice", "--batch_seqs=0"], "--batch_seqs is 0; expected 1"),
        (
            ["--tasks=podium_choice", "--num_fewshot=-1"],
            "--num_fewshot is -1; expected 0",
        ),
        (["--tasks=podium_choice", "--include_path=nowhere"], "nowhere is no folder"),
        (["--tasks=podium_complete", "--max_tokens=9"], "asks for 12 new tokens, but"),
    ],
)
def test_a_mistake_is_an_error_that_says_what(workdir, flags, message):
    with pytest.raises(PodiumError, match=message):
        lm_eval.main([f"--workdir={workdir}", f"--include_path={TASKS}", *flags])


def test_data_that_cannot_be_loaded_is_one_line(workdir, tmp_path):
    with open(f"{TASKS}/podium_text.yaml") as file:
        text = file.read().replace(f"{TASKS}/text.jsonl", f"{tmp_path}/gone.jsonl")
    (tmp_path / "gone.yaml").write_text(text.replace("task: podium_text", "task: gone"))
    flags = [f"--workdir={workdir}", f"--include_path={tmp_path}", "--tasks=gone"]
    with pytest.raises(DataError, match=r"the harness cannot load gone: .*gone.jsonl"):
        lm_eval.main(flags)


def test_an_empty_context_is_what_begins_a_document_as_imported_files_say(tmp_path):
    assert lm_eval.prefix_id(tmp_path, bytes_tokenizer()) == 256  # its end
    (tmp_path / "pretrained").mkdir()
    config = tmp_path / "pretrained" / "config.json"
    config.write_text('{"bos_token_id": 1}')
    assert lm_eval.prefix_id(tmp_path, bytes_tokenizer()) == 1
