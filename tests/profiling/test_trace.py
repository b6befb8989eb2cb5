# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Traces of a real run on CPU devices, and of a TPU as it would write them."""

import json
import math
import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium import cli
from profiling import trace, xspace
from profiling.trace_advice import advise
from profiling.trace_programs import Op, scope_of
from profiling.trace_read import Event, read
from profiling.trace_times import PARTS, _owners, times
from tests.profiling import tpu_xspace

US = 1e-6
SETTINGS = [
    *("num_steps=12", "global_batch_seqs=8", "profile.steps=6:11", "eval=None"),
    *("model.vocab_size=272", "model.num_layers=3", "model.embed_dim=32"),
    *("model.attention.num_heads=4", "model.attention.num_kv_heads=2"),
    *("model.attention.head_dim=8", "model.mlp.dim=64", "model.remat=full"),
    *("model.dtype=float32", "data.tokenizer=bytes", "data.seq_len=32"),
    *("data.eval_fraction=0.0", "optim.schedule.warmup_steps=2"),
    *("mesh.data=2", "mesh.fsdp=2"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A run folder whose steps 6 to 10 were traced, on four CPU devices."""
    home = tmp_path_factory.mktemp("trace")
    (home / "text").mkdir()
    for i in range(24):
        text = f"document {i}: " + "to be or not to be, " * (i + 3)
        (home / "text" / f"{i}.txt").write_text(text)
    (home / "config.py").write_text(
        "from podium.config import TrainConfig\n"
        "from podium.config_dict import to_config_dict\n"
        "def get_config():\n    return to_config_dict(TrainConfig())\n"
    )
    return train(home, "run")


def train(home, name) -> pathlib.Path:
    command = [sys.executable, "-m", "podium.train", f"--config={home / 'config.py'}"]
    command += [f"--workdir={home / name}", f"--config.data.text={home / 'text'}"]
    command += [f"--config.{s}" for s in SETTINGS]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(home / "cache")}
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", **cache}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trace of steps 6 to 10: " in done.stdout + done.stderr
    return home / name


@pytest.fixture
def tpu(tmp_path) -> pathlib.Path:
    return tpu_xspace.write(tmp_path / "host0.xplane.pb")


def total(op_rows, kind: str) -> float:
    return sum(row.secs for row in op_rows if row.op.kind == kind)


# --- a run on CPU devices -----------------------------------------------------------


def test_a_traced_run_tells_its_layers_scopes_and_parts(run):
    found_trace = read(run)
    assert found_trace.program == "jit_train_step"
    assert found_trace.steps == [6, 7, 8, 9, 10]
    assert len(found_trace.devices) == 4
    found = times(found_trace)
    assert found.num_steps >= 3
    assert list(found.layers) == ["stack/0", "stack/1", "stack/2"]
    for sums in found.layers.values():
        assert {"forward", "recompute", "backward"} <= set(sums)
    scopes = {scope for (scope,) in found.by("scope")}
    assert {"embed", "stack/attention", "stack/mlp", "loss", "optimizer"} <= scopes
    parts = {part for (part,) in found.by("part")}
    assert {"Attention", "GatedMlp", "Embed", "Transformer.logits"} <= parts
    assert found.parts["compute"] > 0
    assert found.parts["collective"] > 0
    assert math.isclose(sum(found.parts.values()), found.step_secs)
    # One matmul's operations by hand: gate, [8 / 4 rows x 32 tokens, 32] @ [32, 64].
    assert any(r.op.flops == 2 * 2 * 32 * 32 * 64 for r in found.ops)
    # The scan's body runs once a layer.
    mlp = [r for r in found.ops if r.op.scope == "stack/mlp" and r.op.flops > 1e5]
    assert mlp
    assert all(r.executions == pytest.approx(3) for r in mlp)
    assert found.to_device.batches >= 1
    assert found.to_device.num_bytes == found.to_device.batches * 4 * 8 * 32 * 4


def test_a_program_from_the_compile_cache_is_known_too(run):
    found = times(read(train(run.parent, "again")))
    assert list(found.layers) == ["stack/0", "stack/1", "stack/2"]


def test_xprof_opens_the_trace(run):
    """The converters behind XProf's and TensorBoard's pages, without a browser."""
    from xprof.convert import raw_to_tool_data

    (file,) = xspace.trace_files(run)
    names = raw_to_tool_data.xspace_to_tool_names([str(file)])
    assert {"trace_viewer@", "overview_page", "op_profile"} <= set(names)
    shown, kind = raw_to_tool_data.xspace_to_tool_data([str(file)], "trace_viewer@", {})
    assert kind == "application/json"
    events = json.loads(shown)["traceEvents"]
    named = {event.get("name") for event in events}
    assert "podium: wait for batch" in named
    ours = {row.op.name for row in times(read(run)).ops[:5]}
    assert ours <= named


def test_the_command_prints_tables_a_picture_and_advice_that_works(run, capsys):
    assert trace.main([str(run)]) == 0
    out = capsys.readouterr().out
    for what in ("collective", "stack/mlp", "stack/2", "The step is bound by "):
        assert what in out
    line = out.split("\nTry --config.")[1].split(" ")[0]
    cli.load_config(str(run / "config.json"), dict([line.split("=", 1)]))
    (picture,) = run.rglob("roofline.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_json_is_one_object_whose_parts_sum_to_the_step(run, capsys):
    assert trace.main([str(run), "--json", f"--against={run}"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["secs"].values()) == pytest.approx(told["step_secs"])
    assert sum(op["secs"] for op in told["ops"]) <= told["step_secs"] * (1 + 1e-9)
    assert all(row["before"] == row["after"] for row in told["against"]["parts"])


# --- as a TPU writes it -------------------------------------------------------------


def test_a_tpus_trace_is_accounted_for_to_the_microsecond(tpu):
    found_trace = read(tpu)
    assert [d.name for d in found_trace.devices] == ["host0 TPU:0", "host0 TPU:1"]
    assert found_trace.devices[0].peak_flops == 197e12
    found = times(found_trace)
    # The first of three steps was cut; of two, 1000 + 800 us, half a step each.
    assert found.num_steps == 2
    assert found.step_secs == pytest.approx(900 * US)
    want = {"compute": 240, "memory": 230, "collective": 180, "transfer": 50}
    want |= {"infeed_wait": 0, "idle": 200}
    assert found.parts == pytest.approx({k: v * US for k, v in want.items()})
    assert found.hidden_secs == pytest.approx(320 * US)  # under matmul and elementwise
    assert found.layers["stack/0"]["forward"] == pytest.approx(200 * US)
    assert found.by("scope")["stack/mlp",] == pytest.approx(320 * US)
    assert found.by("scope")["optimizer",] == pytest.approx(200 * US)
    fusion = next(r for r in found.ops if r.op.name == "fusion.1")
    assert fusion.op.flops == 33_554_432
    assert fusion.executions == 2
    assert fusion.busy_each == pytest.approx(120 * US)
    assert found_trace.steps == [10, 11, 12]
    assert found.to_device.num_bytes == 12_000_000


def test_layers_run_backwards_in_the_backward_pass(tmp_path):
    backward = "transpose(jvp(stack))"
    file = tpu_xspace.write(tmp_path / "a.xplane.pb", phase=backward)
    space = xspace.load(file)
    # The matmul of the loop's first round takes 60 us less: that is the last layer.
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].display_name
                at = event.offset_ps % tpu_xspace.STEP
                if name == "fusion.1" and at == 100 * tpu_xspace.US:
                    event.duration_ps -= 60 * tpu_xspace.US
                # What is in flight begins after it, so those 60 us are nobody's.
                if name == "all-gather-start.1" and at == 100 * tpu_xspace.US:
                    event.offset_ps += 120 * tpu_xspace.US
                    event.duration_ps -= 120 * tpu_xspace.US
    file.write_bytes(space.SerializeToString())
    layers = times(read(file)).layers
    first, last = (sum(layers[f"stack/{i}"].values()) for i in (0, 1))
    assert layers["stack/0"].keys() == {"backward"}
    assert first - last == pytest.approx(60 * US)
    mlp = times(read(file)).by("scope")["stack/mlp",]
    assert mlp == pytest.approx(260 * US)


def test_a_wait_for_a_batch_is_told_from_other_idleness(tmp_path):
    file = tpu_xspace.write(tmp_path / "a.xplane.pb", waits=(700, 950))
    found = times(read(file))
    # Idle from 800 to 1100, of which the host waits until 950; twice in two steps less.
    assert found.parts["infeed_wait"] == pytest.approx(75 * US)
    assert found.parts["idle"] == pytest.approx(125 * US)


def test_xprofs_own_converters_find_the_same_times(tpu):
    """Also says that what is made here looks to XProf as a TPU's trace does."""
    from xprof.convert import raw_to_tool_data

    def table(tool: str):
        shown, _ = raw_to_tool_data.xspace_to_tool_data([str(tpu)], tool, {})
        return json.loads(shown)

    stats = table("hlo_stats")
    columns = [column["id"] for column in stats["cols"]]
    rows = [
        dict(zip(columns, (cell["v"] for cell in row["c"]), strict=True))
        for row in stats["rows"]
    ]
    theirs = {row["hlo_op_name"]: row for row in rows}
    assert theirs["fusion.1"]["category"] == "convolution fusion"
    # XProf counts the step that was cut too: fusion.1 ran in it no more.
    assert theirs["fusion.1"]["total_self_time"] == pytest.approx(2 * 2 * 2 * 120)
    mine = {row.op.name: row for row in times(read(tpu)).ops}
    assert mine["fusion.1"].secs * 2 * 2 == pytest.approx(
        theirs["fusion.1"]["total_self_time"] * US
    )


def test_without_its_program_a_tpus_trace_still_tells_the_parts(tmp_path):
    file = tpu_xspace.write(tmp_path / "a.xplane.pb", with_program=False)
    found = times(read(file))
    assert found.parts["compute"] == pytest.approx(240 * US)
    assert found.parts["collective"] == pytest.approx(180 * US)
    assert not found.layers


def test_two_traces_beside_each_other(tmp_path, capsys):
    old = tpu_xspace.write(tmp_path / "old" / "a.xplane.pb", slower=2)
    new = tpu_xspace.write(tmp_path / "new" / "a.xplane.pb")
    assert trace.main([str(new), f"--against={old}"]) == 0
    out = capsys.readouterr().out
    assert "A step takes 0.9 ms, was 1.8 ms: 2.00 times faster" in out
    assert (tmp_path / "new" / "roofline.png").exists()
    assert not (tmp_path / "old" / "roofline.png").exists()


def test_all_hosts_of_the_newest_session_are_read(tmp_path):
    sessions = tmp_path / "traces" / "plugins" / "profile"
    tpu_xspace.write(sessions / "2026_01_01_00_00_00" / "a.xplane.pb", slower=3)
    for host in ("a", "b"):
        tpu_xspace.write(sessions / "2026_01_02_00_00_00" / f"{host}.xplane.pb")
    found = times(read(tmp_path))
    assert found.num_devices == 4
    assert found.step_secs == pytest.approx(900 * US)


# --- advice -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "cfg", "want"),
    [
        ("infeed_wait", {"data": {"num_threads": 4}}, "data.num_threads=8"),
        ("collective", {"mesh": {"tensor": 4}}, "mesh.tensor=2"),
        ("collective", {"global_batch_seqs": 32}, "global_batch_seqs=64"),
        ("transfer", {"optim": {"state_memory": "host"}}, "optim.state_memory=device"),
        ("memory", {"model": {"dtype": "float32"}}, "model.dtype=bfloat16"),
        ("idle", {}, "global_batch_seqs=16"),
    ],
)
def test_a_bottleneck_has_a_setting(tpu, part, cfg, want):
    found = times(read(tpu))
    found.parts = dict.fromkeys(PARTS, 0.1 * found.step_secs)
    found.parts[part] = 0.5 * found.step_secs
    told = advise(found, cfg)
    assert told.bottleneck == part
    assert told.setting == want
    assert "50%" in told.sentence


def test_every_setting_that_is_advised_is_one(tpu):
    found = times(read(tpu))
    for part in PARTS:
        found.parts = dict.fromkeys(PARTS, 0.0)
        found.parts[part] = found.step_secs
        for cfg in (None, {"model": {"dtype": "float32"}}):
            line = advise(found, cfg).setting
            cli.load_config("configs/quickstart.py", dict([line.split("=", 1)]))


# --- mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda at: None, "does not exist"),
        (lambda at: at.mkdir(), "holds no trace"),
        (lambda at: at.write_text("x"), "is no trace"),
    ],
)
def test_a_path_without_a_trace_is_one_line(tmp_path, capsys, make, says):
    make(tmp_path / "x")
    with pytest.raises(SystemExit) as stop:
        cli.run(trace.main, [str(tmp_path / "x")])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert "--config.profile.steps=10:15" in err
    assert err.count("\n") == 1


def test_a_file_cut_short_and_a_trace_of_no_step_are_one_line(tpu, capsys):
    whole = tpu.read_bytes()
    for content, says in (
        (whole[: len(whole) // 2], "cut short"),
        (xspace.schema().XSpace().SerializeToString(), "no whole step"),
    ):
        tpu.write_bytes(content)
        with pytest.raises(SystemExit) as stop:
            cli.run(trace.main, [str(tpu)])
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1


# --- parts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op_name", "scope"),
    [
        ("jit(f)/transpose(jvp(stack))/while/body/closed_call/mlp/mul", "stack/mlp"),
        ("jit(f)/jvp(stack)/(attention/dot:mlp/dot)", "stack"),
        ("jit(f)/(a/x/mul:a/x/add)", "a/x"),
        ("jit(f)/jit(silu)/div", ""),
        ("state.step", ""),
        ("", ""),
    ],
)
def test_the_scope_of_a_path(op_name, scope):
    assert scope_of(op_name) == scope


KINDS = st.sampled_from(["compute", "memory", "collective", "transfer", "infeed"])
EVENTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), KINDS), max_size=9)


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.integers(0, 9))
def test_every_moment_has_one_owner_of_the_highest_rank(rows, num_core):
    events = [
        Event(start, start + length, Op(name="x", kind=kind, category=""), 0)
        for start, length, kind in rows
    ]
    num_core = min(num_core, len(events))
    owned, gaps = _owners(events, num_core, 10, 70)
    rank = ["compute", "memory", "collective", "transfer", "infeed"]
    want, idle = [0] * 2 * len(rank), 0
    for now in range(10, 70):
        on = [
            rank.index(e.op.kind) + (i >= num_core) * len(rank)
            for i, e in enumerate(events)
            if e.start <= now < e.end
        ]
        if on:
            want[min(on)] += 1
        else:
            idle += 1
    got = [0] * 2 * len(rank)
    for i, (e, ps) in enumerate(zip(events, owned, strict=True)):
        got[rank.index(e.op.kind) + (i >= num_core) * len(rank)] += ps
    assert got == want
    assert sum(b - a for a, b in gaps) == idle
