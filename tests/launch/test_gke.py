# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import copy
import json

import pytest
import yaml

from launch import gke
from podium import cli
from podium.errors import ConfigError
from profiling import plan_cache

WHERE = ["--config.launch.project=my-project", "--config.launch.bucket=gs://my-bucket"]
GOLD = "--config.data.paths=gs://my-bucket/gold,gs://other/gold"
V4 = "--config.launch.region=us-central2"
BIG = ["--config=configs/dense_100b_v4_256.py", "--slice=v4-256", *WHERE, GOLD, V4]


def jobset(capsys, *argv):
    assert gke.main(argv) == 0
    return yaml.safe_load(capsys.readouterr().out)


def parts(found):
    (replicated,) = found["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    return replicated, job, job["template"]["spec"]


def test_the_102b_runs_on_32_hosts_of_v4_256(capsys):
    found = jobset(capsys, *BIG, "--account=podium")
    replicated, job, pod = parts(found)
    assert replicated["replicas"] == 1
    assert (job["parallelism"], job["completions"]) == (32, 32)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v4-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4x8",
    }
    assert pod["serviceAccountName"] == "podium"
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "launch.job"]
    name = found["metadata"]["name"]
    assert container["args"][:4] == [
        f"--run={name}",
        "--hosts=32",
        f"--folder=gs://my-bucket/runs/{name}",
        "--config=configs/dense_100b_v4_256.py",
    ]
    assert container["resources"]["limits"] == {"google.com/tpu": "4"}
    assert "MEGASCALE_NUM_SLICES" not in [row["name"] for row in container["env"]]
    # Pods get names of at most 63 letters.
    assert len(f"{name}-slice-0-31-abcde") <= 63


def test_the_price_and_the_plan_are_told(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert gke.main(BIG) == 0
    said = capsys.readouterr().err
    assert "cost      412.16 USD per hour (list price)\n" in said  # 128 chips at 3.22
    assert "plan      none was made for this config" in said
    cfg = cli.load_config("configs/dense_100b_v4_256.py", {})
    plan = {"fits": False, "hbm_bytes_per_chip": 2**36, "hbm_capacity_bytes": 2**35}
    plan_cache.save(cfg, "v4-256", plan)
    with pytest.raises(ConfigError, match="does not fit v4-256"):
        gke.main(BIG)


def test_several_slices_are_several_jobs_that_know_of_one_another(capsys):
    config = "--config=configs/dense_100b_v5e_256x4.py"
    for asked in (
        ["--slice=v5e-256x4"],
        ["--slice=v5e-256", "--config.launch.count=4"],
    ):
        found = jobset(capsys, config, *asked, *WHERE, GOLD)
        replicated, job, pod = parts(found)
        assert (replicated["replicas"], job["parallelism"]) == (4, 64)
        (container,) = pod["containers"]
        assert "--hosts=256" in container["args"]
        env = {row["name"]: row.get("value") for row in container["env"]}
        assert env["MEGASCALE_NUM_SLICES"] == "4"
        first = "$(JOBSET_NAME)-slice-0-0.$(JOBSET_NAME)"
        assert env["MEGASCALE_COORDINATOR_ADDRESS"] == first


@pytest.mark.parametrize(
    ("name", "hosts", "chips"),
    [("v5e-1", 1, "1"), ("v5e-8", 1, "8"), ("v6e-16", 4, "4"), ("v5p-8", 1, "4")],
)
def test_a_slice_has_the_hosts_of_its_generation(name, hosts, chips, capsys):
    found = jobset(
        capsys, "--config=configs/quickstart.py", f"--slice={name}", *WHERE, GOLD
    )
    _, job, pod = parts(found)
    assert job["parallelism"] == hosts
    assert pod["containers"][0]["resources"]["requests"] == {"google.com/tpu": chips}


def test_a_mistake_ends_the_run_and_a_host_that_goes_begins_it_again(capsys):
    found = jobset(capsys, *BIG)
    _, job, _ = parts(found)
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [1, 2]
    (rule,) = found["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy", "DeadlineExceeded"]
    assert found["spec"]["failurePolicy"]["maxRestarts"] > 0


def test_spot_and_reserved_nodes_are_selected(capsys):
    _, _, pod = parts(jobset(capsys, *BIG, "--config.launch.capacity.kind=spot"))
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["tolerations"][0]["key"] == "cloud.google.com/gke-spot"
    held = "--config.launch.capacity.name=projects/p/zones/us-central2-b/reservations/r"
    flags = ["--config.launch.capacity.kind=reservation", held]
    _, _, pod = parts(jobset(capsys, *BIG, *flags))
    assert pod["nodeSelector"]["cloud.google.com/reservation-name"] == "r"


BREAKS = {
    "a misspelt field": lambda m: m["spec"].update(replicatedjobs=[]),
    "a rule without a name": lambda m: m["spec"]["failurePolicy"]["rules"][0].pop(
        "name"
    ),
    "an unknown action": lambda m: m["spec"]["failurePolicy"]["rules"][0].update(
        action="Restart"
    ),
    "a number of slices that is text": lambda m: m["spec"]["replicatedJobs"][0].update(
        replicas="1"
    ),
    "a template without pods": lambda m: m["spec"]["replicatedJobs"][0]["template"][
        "spec"
    ].pop("template"),
    "no containers": lambda m: m["spec"]["replicatedJobs"][0]["template"]["spec"][
        "template"
    ]["spec"].pop("containers"),
    "a misspelt field of a pod": lambda m: m["spec"]["replicatedJobs"][0]["template"][
        "spec"
    ]["template"]["spec"].update(nodeSelectors={}),
    "a chip count that is a list": lambda m: m["spec"]["replicatedJobs"][0]["template"][
        "spec"
    ]["template"]["spec"]["containers"][0]["resources"].update(limits=[4]),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_manifest_that_a_cluster_would_refuse_is_refused_here(what, capsys):
    found = jobset(capsys, *BIG)
    gke.validate(copy.deepcopy(found))
    BREAKS[what](found)
    with pytest.raises(ConfigError, match="the manifest is no JobSet"):
        gke.validate(found)


def test_the_schema_is_one():
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(json.loads(gke._SCHEMA.read_text()))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config=configs/quickstart.py", *WHERE],
            "give a TPU slice, --slice=v4-256",
        ),
        (
            ["--config=configs/quickstart.py", "--slice=a3-highgpu-8g", *WHERE],
            "machines with GPUs run on Vertex AI: python -m launch.vertex",
        ),
        (
            ["--config=configs/quickstart.py", "--slice=v4-9", *WHERE],
            "launch.machine=v4-9: v4 has no such slice",
        ),
        ([*BIG, "--config.launch.capacity.kind=flex_start"], "made with flex-start"),
        ([*BIG, f"--config.launch.run={'a' * 50}"], "of at most 40"),
        ([*BIG, "--config.mesh.fsdp=64"], "v4-256 has 128"),
        (["--config=configs/quickstart.py", "--slice=v4-8"], "launch.project"),
        ([*BIG, "--config.launch.region=us-west4"], "but v4 is in us-central2 alone"),
        ([*BIG, "--config.launch.machine=v4-128"], "name two machines"),
        ([*BIG, "--config.launch.capacity.kind=reservation"], "capacity.name is not"),
    ],
)
def test_a_mistake_is_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(gke.main, flags)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert message in err.splitlines()[-1]
    assert not out
