# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What `launch.vertex` decides before any cloud is asked."""

import json
import subprocess
import sys

import pytest
import yaml
from google.cloud.aiplatform_v1 import types

from launch import vertex
from podium import cli

BASE = ["--config=configs/quickstart.py", "--dry_run"]
WHERE = ["--config.launch.project=my-project", "--config.launch.bucket=gs://my-bucket"]
GOLD = "--config.data.paths=gs://my-bucket/gold"


def dry_run(capsys, *flags):
    """The request, its cost line, and what was said."""
    assert vertex.main([*BASE, *WHERE, *flags]) == 0
    out, err = capsys.readouterr()
    job = yaml.safe_load(out)
    types.CustomJob.from_json(json.dumps(job))  # unknown fields raise
    return job, out.split("\n")[0], err


def test_a_slice_is_one_pool_of_one_replica(capsys):
    job, cost, said = dry_run(
        capsys, "--slice=v5e-16", GOLD, "--config.launch.region=us-west4"
    )
    (pool,) = job["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"] == {
        "machineType": "ct5lp-hightpu-4t",
        "tpuTopology": "4x4",
    }
    assert pool["replicaCount"] == "1"
    assert "--hosts=4" in pool["containerSpec"]["args"]
    image = pool["containerSpec"]["imageUri"]
    assert image.startswith("us-west4-docker.pkg.dev/my-project/podium/podium-tpu:")
    assert job["jobSpec"]["scheduling"]["restartJobOnWorkerRestart"] is True
    assert (
        cost == "# 19.20 USD per hour (list price, without Vertex AI's management fee)"
    )
    steps = [line.split()[0] for line in said.splitlines()]
    assert steps == ["config", "machines", "cost", "plan", "checkout", "run"]


def test_trackers_go_with_the_job_and_do_not_make_it_another_run(capsys):
    names = []
    shown = "--config.tracking.mlflow.uri=http://mlflow.internal:5000"
    for flags in ([], [shown]):
        job, _, _ = dry_run(capsys, "--slice=v5e-1", GOLD, *flags)
        (pool,) = job["jobSpec"]["workerPoolSpecs"]
        told = pool["containerSpec"]["args"]
        (run,) = [w for w in told if w.startswith("--run=")]
        names.append(run.removeprefix("--run="))
    assert names[0] == names[1]
    assert shown in told
    assert f"--config.launch.run={names[1]}" in told


def test_a_job_is_told_the_names_of_secrets(capsys):
    named = "--config.launch.secrets=WANDB_API_KEY=wandb,B=b"
    project = "--config.tracking.wandb.project=p"
    job, _, _ = dry_run(capsys, "--slice=v5e-1", GOLD, named, project)
    (pool,) = job["jobSpec"]["workerPoolSpecs"]
    told = pool["containerSpec"]["args"]
    assert named in told
    assert "--config.launch.project=my-project" in told


def test_gpus_of_several_hosts_are_two_pools(capsys):
    job, cost, _ = dry_run(
        capsys,
        GOLD,
        "--config.launch.machine=a3-ultragpu-8g",
        "--config.launch.count=3",
        "--config.launch.labels=team=a,cost=b",
        "--config.launch.service_account=me@my-project.iam.gserviceaccount.com",
        "--config.launch.network=projects/12/global/networks/mine",
        "--config.launch.experiment=first",
        "--config.launch.capacity.kind=flex_start",
        "--config.launch.capacity.max_wait_hours=2",
        "--config.launch.timeout_hours=12",
    )
    spec = job["jobSpec"]
    first, second = spec["workerPoolSpecs"]
    assert [first["replicaCount"], second["replicaCount"]] == ["1", "2"]
    assert first | {"replicaCount": "2"} == second
    assert first["machineSpec"] == {
        "machineType": "a3-ultragpu-8g",
        "acceleratorType": "NVIDIA_H200_141GB",
        "acceleratorCount": 8,
    }
    assert first["diskSpec"]["bootDiskType"] == "hyperdisk-balanced"
    assert first["containerSpec"]["command"][:2] == ["bash", "-c"]
    env = {row["name"]: row["value"] for row in first["containerSpec"]["env"]}
    assert env["AIP_EXPERIMENT_NAME"] == "first"
    told = [
        f for f in first["containerSpec"]["args"] if f.startswith("--config.launch.")
    ]
    assert f"--config.launch.run={job['displayName']}" in told
    assert "--config.launch.experiment=first" in told
    assert "--config.launch.project=my-project" in told
    assert spec["scheduling"] | {"restartJobOnWorkerRestart": True} == {
        "timeout": "43200s",
        "strategy": "FLEX_START",
        "maxWaitDuration": "7200s",
        "restartJobOnWorkerRestart": True,
    }
    assert spec["network"] == "projects/12/global/networks/mine"
    assert {"team": "a", "cost": "b"}.items() <= job["labels"].items()
    assert "not known for a3-ultragpu-8g" in cost


def test_training_settings_reach_the_job_and_launch_settings_do_not(capsys):
    args = ("--slice=v5e-8", "--config.num_steps=100", "--config.sample.prompt=$(HOME)")
    job, _, _ = dry_run(capsys, *args)
    container = job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    assert container["args"][2:] == [
        "--config=configs/quickstart.py",
        "--config.num_steps=100",
        "--config.sample.prompt=$$(HOME)",
    ]
    name = job["displayName"]
    out = {"outputUriPrefix": f"gs://my-bucket/runs/{name}"}
    assert job["jobSpec"]["baseOutputDirectory"] == out


def test_the_same_settings_are_the_same_run_and_others_another(capsys):
    def name(*flags):
        return dry_run(capsys, "--slice=v5e-8", *flags)[0]["displayName"]

    first = name()
    assert first.startswith("quickstart-")
    assert name("--config.launch.disk_gb=300") == first
    assert name("--config.seed=1") != first
    assert name("--config.launch.run=mine") == "mine"


def test_a_prebuilt_image_gets_the_checkout_as_an_archive(capsys):
    job, _, _ = dry_run(
        capsys, "--slice=v5e-8", "--config.launch.image=us-docker.pkg.dev/p/r/i:t"
    )
    container = job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    assert container["imageUri"] == "us-docker.pkg.dev/p/r/i:t"
    python, flag, text, archive, sha256, extra = container["command"]
    assert (python, flag, extra) == ("python", "-c", "tpu")
    compile(text, "bootstrap", "exec")
    assert archive == f"gs://my-bucket/packages/{sha256}.tar.gz"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--slice=v5e-8"], "launch.project, launch.bucket not set; add --config."),
        ([*WHERE], "launch.machine is not set"),
        ([*WHERE, "--slice=v4-8"], "python -m launch.gke"),
        ([*WHERE, "--slice=v5e-16"], "prepared on one host, and the job has 4"),
        ([*WHERE, "--slice=v5e-8", "--config.data.paths=gold"], "gcloud storage cp -r"),
        ([*WHERE, "--slice=v5e-8", "--config.data.text=/etc"], "outside the checkout"),
        ([*WHERE, "--slice=v5e-8", "--config.data.text=None"], "are both empty"),
        (
            [*WHERE, "--slice=v5e-8", "--config.checkpoint.folder=/tmp/c"],
            "which is gone with the job's machine",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.mesh.tensor=3"],
            "mesh is fsdp -1 x tensor 3, 3 devices times -1, but v5e-8 has 8",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.mesh.fsdp=4"],
            "mesh is fsdp 4, 4 devices, but v5e-8 has 8; set --config.mesh.fsdp=-1",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.mesh.slices.data=2"],
            "mesh.slices asks for 2, but v5e-8 has 1 slices",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.tracking.wandb.project=p"],
            "add --config.launch.secrets=WANDB_API_KEY=wandb",
        ),
        (
            [*WHERE, "--config.launch.secrets=WANDB_API_KEY"],
            "launch.secrets is 'WANDB_API_KEY'; expected VARIABLE=SECRET",
        ),
        (
            [*WHERE, "--config.launch.secrets=A=x,A=y"],
            "launch.secrets: A is given twice; keep one",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.data.text=no/such"],
            "git does not ignore",
        ),
        ([*WHERE, "--slice=v5e-8", "--config.data.text=runs"], "git does not ignore"),
        (
            [*WHERE, "--slice=v5e-8", "--config.model.vocab_size=300"],
            "ids up to 1023; set --config.model.vocab_size=1024 or more, or "
            "--config.data.tokenizer=bpe:300",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.data.tokenizer=bpe:x"],
            "--config.data.tokenizer=bpe:x: expected a size, e.g. bpe:8192",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.data.tokenizer=my.json"],
            "--config.data.tokenizer=my.json: no such file; expected bytes,",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.init_from=runs/quickstart"],
            "init_from is runs/quickstart, which the job cannot read",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.tracking.mlflow.uri=sqlite:////tmp/a"],
            "which is another place in the job",
        ),
        (
            [
                *WHERE,
                "--slice=v5e-8",
                "--config.tracking.mlflow.uri=http://localhost:5",
            ],
            "which is another place in the job",
        ),
        (
            [*WHERE, "--slice=v5e-8", "--config.launch.machine=a3-highgpu-8g"],
            "name two machines; give one of them",
        ),
        (
            [*WHERE, "--slice=ct5lp-hightpu-8t"],
            "is Vertex AI's machine under v5e; give the slice: v5e-",
        ),
        ([*WHERE, "--slice=h100"], "Near: a3-highgpu-1g"),
        ([*WHERE, "--slise=v5e-8"], "did you mean --slice?"),
        ([*WHERE, "--config.launch.regoin=x"], "Did you mean 'launch.region'?"),
        (["list"], "list comes first: python -m launch.vertex list"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(vertex.main, [*BASE, *flags])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert message in err.splitlines()[-1]
    assert not out


def test_a_misspelt_verb_is_told_the_right_one(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(vertex.main, ["stauts", "run", "--project=my-project"])
    assert stop.value.code == 2
    assert "did you mean status?" in capsys.readouterr().err


def test_a_config_outside_the_checkout_is_refused(tmp_path, capsys):
    config = tmp_path / "c.py"
    config.write_text("from configs.quickstart import get_config\n")
    with pytest.raises(SystemExit):
        cli.run(vertex.main, [f"--config={config}", *WHERE, "--slice=v5e-8"])
    assert "lies outside the checkout" in capsys.readouterr().err


def test_a_model_that_cannot_be_exported_is_refused(capsys):
    odd = ["--config.launch.export=hf", "--config.model.norm.kind=layernorm"]
    with pytest.raises(SystemExit):
        cli.run(vertex.main, [*BASE, *WHERE, "--slice=v5e-8", *odd])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("ConfigError: launch.export=hf: no family of transformers")
    assert line.endswith("; leave it out (None)")


def test_help_shows_an_example():
    done = subprocess.run(
        [sys.executable, "-m", "launch.vertex", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python -m launch.vertex --config=configs/X.py --slice=v5e-16" in done.stdout
