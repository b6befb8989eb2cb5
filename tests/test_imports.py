# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

from podium import cli

ROOT = pathlib.Path("src/podium")
# Who may import whom: folder or file -> what it may name. Read it top to bottom.
BASE = {"config", "config_dict", "config_model", "config_override", "config_remat"}
BASE |= {"config_launch", "config_quantization", "config_tracking", "config_positions"}
BASE |= {"config_width", "config_lora", "config_dpo", "config_mesh"}
BASE |= {"errors", "cli"}
ALLOWED = {
    "sharding": BASE | {"sharding"},
    "models": BASE | {"sharding", "models"},
    "input": BASE | {"input", "storage"},
    "preparation": BASE
    | {
        "code_commit",
        "input",
        "storage",
        "chat_template",
        "tokenizer",
        "tokenizer_name",
        "tokenizer_words",
        "preparation",
    },
    "aot": BASE | {"sharding", "input", "trainer", "aot"},
}
WITHOUT_JAX = [
    *("config", "config_dict", "config_model", "config_override", "config_remat"),
    *("config_launch", "config_quantization", "config_setting", "config_tracking"),
    *("config_positions", "config_width", "config_lora", "fingerprints"),
    *("config_mesh", "config_dpo"),
    *("errors", "cli", "platforms", "resume", "processes", "storage", "checksums"),
    "skipped_batches",
    "starts",
    "code_commit",
    "mesh_name",
    *("endpoints", "tracking_start", "lean_package", "text_tokens", "tokenizer_name"),
]


def podium_imports(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "podium"
        ):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("podium.")]
            found |= {name.split(".")[1] for name in names}
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_run_one_way(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert podium_imports(path) <= ALLOWED[folder], path


def test_the_library_never_imports_its_tools():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [getattr(node, "module", None) or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            names += (
                [a.name for a in node.names] if isinstance(node, ast.Import) else []
            )
            tops = {n.split(".")[0] for n in names}
            assert not tops & {
                "configs",
                "launch",
                "profiling",
                "tests",
                "benchmarks",
            }, path


def modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(out.stdout.split())


def test_import_podium_is_light_and_config_needs_no_jax():
    assert not modules_after("import podium") & {"jax", "numpy", "tensorflow", "absl"}
    loaded = modules_after("import podium; podium.TrainConfig")
    assert not loaded & {"jax", "numpy", "tensorflow"}


def test_the_command_line_parses_without_jax():
    code = "from podium import " + ", ".join(WITHOUT_JAX)
    code += "; cli.load_config('configs/quickstart.py')"
    assert not modules_after(code) & {"jax", "flax", "optax", "tensorflow", "orbax"}


def test_a_run_without_trackers_imports_none():
    code = "from podium import TrainConfig, tracking_start\n"
    code += "from podium.trainer import tracking\ncfg = TrainConfig()\n"
    code += "tracking_start.check(cfg); assert not tracking_start.trackers(cfg, '', [])"
    loaded = modules_after(code)
    assert not {m for m in loaded if m.startswith("google.cloud.ai")}
    assert not loaded & {"wandb", "mlflow"}


def test_every_public_name_is_there():
    import podium

    for name in podium.__all__:
        assert getattr(podium, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = podium.nothing


COMMANDS = ["train", "prepare", "sample", "evaluate", "sharding_report", "data_ledger"]
COMMANDS += ["convert", "lm_eval"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_arguments_says_which_is_missing(command, capsys):
    main = importlib.import_module(f"podium.{command}").main
    with pytest.raises(SystemExit) as stop:
        cli.run(main, [])
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert "missing" in shown or "required" in shown or "name at least one" in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command):
    out = subprocess.run(
        [sys.executable, "-m", f"podium.{command}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"python -m podium.{command} --" in out.stdout.split("example")[1]


def test_nothing_that_is_read_can_run_code():
    """docs/training.md: neither checkpoints nor data are ever unpickled."""
    unpickling = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib"}
    unpickling |= {"marshal", "shelve", "jsonpickle", "yaml", "torch"}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            assert not {n.split(".")[0] for n in names} & unpickling, path
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") not in ("eval", "exec"), path
                allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
                assert all(ast.unparse(value) == "False" for value in allowed), path


def test_asking_vertex_ai_imports_that_client_alone_and_the_rest_when_it_is_named():
    code = "import os; from launch.cloud import Cloud\n"
    code += (
        "os.environ['CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM'] = 'http://x.test'\n"
    )
    code += "Cloud('my-project', 'us-central1').jobs\n"
    service = "google.cloud.aiplatform_v1.services."
    few = {m for m in modules_after(code) if m.startswith(service)}
    assert {m.split(".")[4] for m in few} == {"job_service"}
    code += "from google.cloud import aiplatform_v1; aiplatform_v1.VizierServiceClient"
    all_ = {m.split(".")[4] for m in modules_after(code) if m.startswith(service)}
    assert {"job_service", "vizier_service"} < all_
