# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Steps whose loss is no number, or spikes, in real runs."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium import cli, resume, train
from podium.data_ledger import main as data_ledger
from podium.errors import ConfigError
from podium.input.ledger import documents_of_step
from podium.input.loader import Loader
from podium.input.spec import StreamSpec
from podium.skipped_batches import is_same_run, load, num_skipped
from podium.trainer import saving, verify
from podium.trainer import step as train_step
from podium.trainer.events import read_events
from podium.trainer.flight_recorder import FlightRecorder, records
from podium.trainer.goodput import account
from podium.trainer.loss import loss_sums
from podium.trainer.metrics import read_metrics
from profiling import replay
from tests.test_train import CONFIG

FLAGS = (
    "--config.num_steps=12",
    "--config.checkpoint.every_steps=4",
    "--config.eval=None",
    "--config.mesh.fsdp=-1",
    "--config.log_every_steps=4",
    "--config.optim.schedule.kind=constant",
)
BAD = 5  # the batch, from 0: that of step 6


@pytest.fixture(scope="module", autouse=True)
def _standard_promotion_in_every_thread():
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    (folder / "text").mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):  # no two rows alike
        words = " ".join(map(str, rng.integers(0, 10**6, 80)))
        (folder / "text" / f"{i}.txt").write_text(f"document {i}: {words}")
    (folder / "config.py").write_text(CONFIG)
    return folder


def run(home, name, *more) -> tuple[int, list[dict]]:
    argv = [
        f"--config={home / 'config.py'}",
        f"--workdir={home / name}",
        f"--config.data.text={home / 'text'}",
        *FLAGS,
        *more,
    ]
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main, argv, can_continue=True)
    return stop.value.code, read_metrics(home / name)


@pytest.fixture(scope="module")
def good(home):
    """The run without a fault."""
    code, rows = run(home, "good")
    assert code == 0
    return rows


def spec(home, name="good") -> StreamSpec:
    cfg = resume.load_run(home / name)
    return StreamSpec(
        data=cfg.data,
        split="train",
        seed=cfg.seed,
        global_batch_seqs=cfg.global_batch_seqs,
        rows=range(cfg.global_batch_seqs),
    )


@pytest.fixture
def poison(home, good, monkeypatch):
    """Batches with the first row of batch BAD have a loss that is larger by this factor."""
    first_row = jnp.asarray(Loader(spec(home)).batch(BAD).targets[:1])

    def set_to(value, everywhere=False):
        def poisoned(logits_fn, hidden, targets, cfg):
            sums = loss_sums(logits_fn, hidden, targets, cfg)
            hit = jnp.any(jnp.all(targets == first_row, axis=1)) | everywhere
            more = jnp.where(hit, value, 0.0) * sums.cross_entropy
            return dataclasses.replace(sums, cross_entropy=sums.cross_entropy + more)

        monkeypatch.setattr(train_step, "loss_sums", poisoned)

    return set_to


def losses(rows):
    return [row["loss"] for row in rows]


def test_one_bad_batch_is_skipped_and_recorded(home, good, poison):
    poison(jnp.nan)
    code, rows = run(home, "skip")
    assert code == 0
    assert [row["step"] for row in rows if row["skipped"]] == [6]
    assert losses(rows)[:5] == losses(good)[:5]
    assert rows[5]["loss"] is None
    assert all(np.isfinite(loss) for loss in losses(rows)[6:])
    assert rows[5]["param_norm"] == rows[4]["param_norm"]
    record = json.loads((home / "skip" / "faults" / "step-6.json").read_text())
    assert record["what"] == "loss is nan at step 6"
    assert (record["batch"], record["action"]) == (BAD, "skip")
    documents = documents_of_step(
        spec(home).data, seed=0, global_batch_seqs=8, step=BAD
    )
    shards = {(d["shard"], d["record"]) for d in record["documents"]}
    assert shards == {(d.shard, d.record) for d in documents}
    assert record["layer_grad_norms"]["stack/block_0/mlp/up"] == ["nan", "nan"]
    assert [m["step"] for m in record["metrics"]] == [1, 2, 3, 4, 5, 6]
    [fault] = [e for e in read_events(home / "skip") if e["event"] == "fault"]
    assert (fault["what"], fault["step"]) == ("non_finite", 6)


def test_a_rewind_leaves_the_batches_out_and_survives_a_restart(
    home, good, poison, capsys
):
    poison(jnp.nan)
    flags = ("--config.faults.on_non_finite=rewind",)
    code, rows = run(home, "rewind", *flags)
    assert code == 0
    assert "going back from step 6 to 4; the 2 batches" in capsys.readouterr().err
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert not any(row["skipped"] for row in rows)
    assert losses(rows)[:4] == losses(good)[:4]
    assert load(home / "rewind") == [(4, 2)]
    cfg = resume.load_run(home / "rewind")
    for step, skipped in ((4, []), (8, [(4, 2)]), (12, [(4, 2)])):
        assert resume.skipped_batches(home / "rewind", cfg, step) == skipped
    [event] = [e for e in read_events(home / "rewind") if e["event"] == "rewind"]
    assert (event["step"], event["to"], event["batches"]) == (6, 4, 2)
    # Steps 5 and 6 were done, and are lost.
    millis = account(read_events(home / "rewind")).millis
    assert millis["lost"] > 0
    assert millis["restore"] > 0
    # The ledger tells what step 5 saw in the end.
    data_ledger([f"--workdir={home / 'rewind'}", "--step=5", "--json"])
    found = json.loads(capsys.readouterr().out)
    want = documents_of_step(spec(home).data, seed=0, global_batch_seqs=8, step=6)
    assert [d["record"] for d in found] == [d.record for d in want]
    # The step that was bad can be tried again, and one behind the rewind from before it.
    assert verdict(home, "rewind", 6, capsys)["verdict"] == "data"
    for step in ("4", "8"):
        (home / "rewind" / "checkpoints" / step).rename(home / f"rewind-{step}")
    assert verdict(home, "rewind", 7, capsys)["verdict"] == "sound"
    # Two runs of it are one: stopped behind the rewind and continued.
    assert run(home, "parts", *flags, "--config.num_steps=8")[0] == 0
    code, parts = run(home, "parts", *flags)
    assert code == 0
    assert losses(parts)[:8] == losses(rows)[:8]
    batches = [num_skipped(load(home / "parts"), step) for step in (4, 5, 12)]
    assert batches == [0, 2, 2]


def test_without_a_checkpoint_a_rewind_begins_anew_behind_the_batch(home, poison):
    poison(jnp.nan)
    code, rows = run(
        home,
        "anew",
        "--config.faults.on_non_finite=rewind",
        "--config.checkpoint.every_steps=100",
    )
    assert code == 0
    assert load(home / "anew") == [(0, 6)]
    assert [row["step"] for row in rows] == list(range(1, 13))


def test_all_steps_of_a_checkpoint_are_in_the_metrics_when_it_is_begun(
    home, monkeypatch
):
    """Or a run that is killed would never write the rows between."""
    seen = []
    save = saving.Saver.save

    def noting(self, state, step, *args):
        seen.append((step, [r["step"] for r in read_metrics(home / "rows")]))
        save(self, state, step, *args)

    monkeypatch.setattr(saving.Saver, "save", noting)
    assert run(home, "rows", "--config.log_every_steps=100")[0] == 0
    assert seen == [(n, list(range(1, n + 1))) for n in (4, 8, 12)]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("on_non_finite=skip", "step 3, the last of 3 bad steps in a row"),
        ("on_non_finite=rewind", "at step 1, after 2 rewinds"),
        ("on_non_finite=stop", "loss is nan at step 1; last good checkpoint: none"),
    ],
)
def test_faults_without_end_end_the_run(home, poison, capsys, flag, words):
    poison(jnp.nan, everywhere=True)
    code, _ = run(
        home,
        flag,
        f"--config.faults.{flag}",
        "--config.faults.max_in_a_row=3",
        "--config.faults.max_rewinds=2",
    )
    assert code == 1
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_batch_without_tokens_is_a_bad_step(home, good, monkeypatch, capsys):
    first_row = jnp.asarray(Loader(spec(home)).batch(BAD).targets[:1])

    def emptied(logits_fn, hidden, targets, cfg):
        hit = jnp.any(jnp.all(targets == first_row, axis=1))
        return loss_sums(logits_fn, hidden, jnp.where(hit, -1, targets), cfg)

    monkeypatch.setattr(train_step, "loss_sums", emptied)
    code, rows = run(home, "empty")
    assert code == 0
    assert [r["step"] for r in rows if r["skipped"]] == [BAD + 1]
    assert rows[BAD]["loss"] is None
    assert rows[BAD]["tokens"] == 0
    said = capsys.readouterr().err
    assert f"WARNING: the batch holds no token to learn from at step {BAD + 1}" in said
    assert (home / "empty" / "faults" / f"step-{BAD + 1}.json").exists()


def test_a_spike_is_kept_and_recorded_unless_asked_otherwise(home, poison, capsys):
    poison(50.0)
    more = ("--config.faults.spike_z=8", "--config.num_steps=60")
    code, rows = run(home, "kept", *more)
    assert code == 0
    again = [r["step"] for r in rows if r["loss"] > 20 and r["step"] > 32]
    assert again  # the row comes once an epoch
    assert not any(r["skipped"] for r in rows)
    assert (home / "kept" / "faults" / f"step-{again[0]}.json").exists()
    code, rows = run(home, "dropped", *more, "--config.faults.on_spike=skip")
    assert code == 0
    assert next(r["step"] for r in rows if r["skipped"]) == again[0]


def test_a_run_that_is_verified_is_the_same_run(home, good):
    code, rows = run(home, "verified", "--config.faults.verify_every_steps=5")
    assert code == 0
    assert losses(rows) == losses(good)
    events = read_events(home / "verified")
    assert [e["step"] for e in events if e["event"] == "verify"] == [5, 10]
    assert account(events).millis["verification"] > 0


def test_a_step_that_came_out_in_two_ways_is_recorded_for_a_replay(
    home, good, monkeypatch, capsys
):
    numbers = itertools.count()
    recomputed = verify.Verifier._recomputed

    def odd(self, state, batch):
        return recomputed(self, state, batch) + np.uint32(next(numbers) // 3)

    monkeypatch.setattr(verify.Verifier, "_recomputed", odd)
    assert run(home, "two", "--config.faults.verify_every_steps=5")[0] == 1
    assert "step 10 on the same inputs came out in two" in capsys.readouterr().err
    record = json.loads((home / "two" / "faults" / "step-10.json").read_text())
    assert record["what"].startswith("silent data corruption: step 10")
    assert [m["step"] for m in record["metrics"]] == list(range(1, 10))
    found = verdict(home, "two", 10, capsys)
    assert (found["verdict"], found["recorded"]) == ("hardware", None)
    assert found["why"].endswith("Here it comes out twice the same")


def test_a_record_has_the_steps_before_a_restart_and_keeps_an_earlier_one(home, poison):
    poison(jnp.nan)
    assert run(home, "halves", "--config.num_steps=4")[0] == 0
    assert run(home, "halves")[0] == 0
    [path] = records(home / "halves", 6)
    known = json.loads(path.read_text())
    assert [m["step"] for m in known["metrics"]] == [1, 2, 3, 4, 5, 6]
    cfg = resume.load_run(home / "halves")
    again = FlightRecorder(home / "halves", cfg, print).record(
        6, what="again", action="skip", skips=[(4, 2)], layers={}
    )
    assert records(home / "halves", 6) == [path, again]
    assert json.loads(again.read_text())["batch"] == 7


def test_timelines_are_told_apart_by_what_they_left_out():
    assert is_same_run([(4, 2)], [], 4)
    assert not is_same_run([(4, 2)], [], 5)
    assert is_same_run([(4, 2), (9, 1)], [(4, 2)], 8)


def test_no_checkpoint_is_saved_of_replicas_that_differ(
    home, good, monkeypatch, capsys
):
    saves = iter([4, 8])

    def odd(found, specs, axes):
        return (0, [(0,) * len(axes)], True) if next(saves) == 8 else None

    monkeypatch.setattr(verify, "odd_replicas", odd)
    code, _ = run(home, "odd", "--config.faults.verify_every_steps=100")
    assert code == 1
    assert "after step 8, step is not the same" in capsys.readouterr().err
    assert resume.latest_step(home / "odd") == 4


def verdict(home, name, step, capsys, *more):
    capsys.readouterr()
    argv = [f"--workdir={home / name}", f"--step={step}", "--json", *more]
    replay.main(argv)
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def skipped(home, poison):
    """A run with one bad step, and the poison still there."""
    poison(jnp.nan)
    if not (home / "replayed").exists():
        assert run(home, "replayed")[0] == 0
    return "replayed"


def test_a_replay_blames_the_data_and_names_the_documents(home, skipped, capsys):
    found = verdict(home, skipped, 6, capsys)
    assert (found["verdict"], found["replayed"]["skipped"]) == ("data", True)
    assert "4 of 4 other batches are sound" in found["why"]
    want = documents_of_step(spec(home).data, seed=0, global_batch_seqs=8, step=BAD)
    row = found["documents"][0]["row"]
    assert {d["record"] for d in found["documents"] if d["row"] == row} == {
        d.record for d in want if d.row == row
    }
    on_another = verdict(home, skipped, 6, capsys, "--mesh=data2.tensor2")
    assert on_another["verdict"] == "data"


def test_a_replay_blames_the_hardware_where_it_does_not_come_again(
    home, skipped, monkeypatch, capsys
):
    monkeypatch.undo()
    jax.clear_caches()
    found = verdict(home, skipped, 6, capsys)
    assert found["verdict"] == "hardware"
    assert np.isfinite(found["replayed"]["loss"])


def test_a_replay_blames_the_numerics_where_every_batch_is_bad(
    home, skipped, poison, capsys
):
    poison(jnp.nan, everywhere=True)
    jax.clear_caches()
    # As if the steps before had been recorded with the fault already in the weights.
    found = verdict(home, skipped, 6, capsys)
    assert found["verdict"] == "numerics"
    assert "4 of 4 other batches are as bad" in found["why"]
    assert [layer["name"] for layer in found["layers"]] == [
        *("embed", "stack/0", "stack/1", "final_norm")
    ]


def test_a_replay_names_where_a_gradient_overflows(home, good, monkeypatch, capsys):
    def steep(logits_fn, hidden, targets, cfg):
        # The root of nothing: 0, and its slope is infinite.
        nothing = hidden - jax.lax.stop_gradient(hidden)
        sums = loss_sums(logits_fn, hidden, targets, cfg)
        more = jnp.sum(jnp.sqrt(nothing))
        return dataclasses.replace(sums, cross_entropy=sums.cross_entropy + more)

    monkeypatch.setattr(train_step, "loss_sums", steep)
    jax.clear_caches()
    assert run(home, "steep", "--config.num_steps=4")[0] == 0
    found = verdict(home, "steep", 2, capsys)
    assert found["verdict"] == "numerics"
    assert np.isfinite(found["replayed"]["loss"])
    words = (
        "activations are numbers, the first gradients that are none: final_norm/scale"
    )
    assert found["why"].endswith(words)


def test_a_sound_step_comes_out_to_the_bit_on_its_mesh(home, good, capsys):
    for step in (3, 7, 12):
        found = verdict(home, "good", step, capsys)
        assert found["verdict"] == "sound"
        assert found["recorded"] == found["replayed"]


def test_a_step_that_was_not_trained_cannot_be_replayed(home, good):
    with pytest.raises(ConfigError, match="knows nothing of step 99"):
        replay.main([f"--workdir={home / 'good'}", "--step=99"])
