# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
import math
import subprocess
import sys

import pytest

from launch.machines import GPUS, TPUS, place, slices
from podium.aot.chips import parse_slice
from podium.config import TrainConfig
from podium.config_dict import from_config_dict, to_json_dict
from podium.config_override import override_all
from podium.errors import ConfigError


def launch(**settings):
    tree = to_json_dict(TrainConfig())
    overrides = {f"launch.{k.replace('__', '.')}": v for k, v in settings.items()}
    override_all(TrainConfig, tree, overrides)
    return from_config_dict(TrainConfig, tree).launch


def test_every_slice_of_the_table_is_placed_with_all_its_chips():
    regions = {kind: machines[0].regions[0] for kind, machines in TPUS.items()}
    assert len(slices()) == 27
    for name in slices():
        where = place(launch(machine=name, region=regions[name.split("-")[0]]))
        assert where.tpu.name == name
        chips_per_host = int(where.machine_type[-2])
        assert where.hosts * chips_per_host == where.tpu.num_chips
        assert where.devices == where.tpu.num_devices
        assert math.prod(map(int, where.topology.split("x"))) == where.tpu.num_chips


@pytest.mark.parametrize(
    ("name", "machine", "topology", "hosts", "usd"),
    [
        ("v5e-1", "ct5lp-hightpu-1t", "1x1", 1, 1.20),
        ("v5e-8", "ct5lp-hightpu-8t", "2x4", 1, 9.60),
        ("v5e-16", "ct5lp-hightpu-4t", "4x4", 4, 19.20),
        ("v5litepod-256", "ct5lp-hightpu-4t", "16x16", 64, 307.20),
        ("v6e-4", "ct6e-standard-4t", "2x2", 1, 10.80),
        ("tpu7x-16", "tpu7x-standard-4t", "2x2x2", 2, 96.00),
    ],
)
def test_a_slice_is_hosts_of_one_machine(name, machine, topology, hosts, usd):
    where = place(launch(machine=name))
    assert (where.machine_type, where.topology) == (machine, topology)
    assert where.hosts == hosts
    assert where.usd_per_hour == pytest.approx(usd)


def test_a_machine_that_is_not_there_is_a_sentence_and_a_question():
    with pytest.raises(
        ConfigError, match=r"unknown; expected a TPU slice .* Near: a3-ultragpu-8g,"
    ):
        place(launch(machine="a3-ultragpu-9g"))


def test_gpus_are_counted_over_all_machines():
    where = place(launch(machine="a3-highgpu-8g", count="2"))
    assert (where.hosts, where.devices, where.extra) == (2, 16, "cuda")
    assert where.usd_per_hour == pytest.approx(2 * 8 * 10.9791)
    assert place(launch(machine="a4-highgpu-8g")).usd_per_hour is None
    mine = place(launch(machine="a4-highgpu-8g", count="3", usd_per_hour="50"))
    assert mine.usd_per_hour == 150
    assert place(launch(machine="v5e-16", usd_per_hour="0")).usd_per_hour == 0


def test_the_types_of_the_table_are_those_of_the_client():
    from google.cloud.aiplatform_v1 import types

    for machine in GPUS.values():
        assert machine.accelerator in types.AcceleratorType.__members__
        assert machine.disk in (None, "hyperdisk-balanced")


RESERVATION = "projects/p/zones/us-central1-a/reservations/r"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "launch.machine is not set; give a TPU slice (--slice=v5e-16)"),
        (
            {"machine": "v4-256"},
            "no v4, only v5e, v6e, tpu7x; v4 runs on GKE: python -m",
        ),
        ({"machine": "v5p-8"}, "Vertex AI has no v5p"),
        ({"machine": "v5e-256x4"}, "has one slice; several run on GKE"),
        ({"machine": "v5e-16", "count": "2"}, "has one slice; several run on GKE"),
        ({"machine": "v5e-17"}, "v5e has no such slice; chips count. Nearest: v5e-8"),
        ({"machine": "tpu7x-4x4x12"}, "no tpu7x of 4x4x12; it has 2x2x1"),
        ({"machine": "a3-higpu-8g"}, "unknown; expected a TPU slice such as v5e-16"),
        ({"machine": "a3-higpu-8g"}, "Near: a3-highgpu-8g"),
        ({"machine": "v5e8"}, "Near: v5e-8"),
        ({"machine": "v5e-16", "region": "europe-west4"}, "it is in us-central1, us-"),
        (
            {"machine": "v5e-16", "capacity__kind": "spot"},
            "several hosts (v5e-16 has 4)",
        ),
        ({"machine": "v5e-8", "capacity__kind": "flex_start"}, "is for GPUs"),
        (
            {"machine": "a3-highgpu-2g"},
            "comes by spot or flex_start or reservation only",
        ),
        ({"machine": "a4x-highgpu-4g"}, "a4x-highgpu-4g comes by reservation only"),
        ({"machine": "a3-ultragpu-8g", "region": "us-west4"}, "has no a3-ultragpu-8g"),
        (
            {"machine": "g4-standard-48", "capacity__kind": "flex_start"},
            "not for g4-standard-48",
        ),
        (
            {
                "machine": "a3-highgpu-8g",
                "capacity__kind": "flex_start",
                "timeout_hours": "200",
            },
            "launch.timeout_hours is 200; under flex_start at most 168",
        ),
        (
            {"machine": "v5e-16", "capacity__kind": "reservation"},
            "launch.capacity.name is not set",
        ),
        (
            {
                "machine": "v5e-16",
                "region": "us-west4",
                "capacity__kind": "reservation",
                "capacity__name": RESERVATION,
            },
            "is in zone us-central1-a, outside launch.region (us-west4)",
        ),
    ],
)
def test_what_vertex_has_not_is_refused_with_what_it_has(settings, message):
    with pytest.raises(ConfigError) as error:
        place(launch(count=settings.pop("count", "1"), **settings))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).count("Did you mean") <= 1


def test_one_host_takes_spot_and_a_reservation_in_its_region():
    assert place(launch(machine="v5e-8", capacity__kind="spot")).hosts == 1
    held = launch(
        machine="v5e-16", capacity__kind="reservation", capacity__name=RESERVATION
    )
    assert place(held).hosts == 4


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("project", "My Project", "a project id of 6 to 30 lower-case letters"),
        ("project", "123456789", "(not its number)"),
        ("region", "us-central1-a", "a region, e.g. us-central1 (no zone)"),
        ("bucket", "my-bucket", "expected gs://BUCKET or gs://BUCKET/PATH"),
        ("bucket", "gs://My_Bucket", "expected gs://BUCKET"),
        ("run", "Run.1", "at most 63 lower-case letters, digits and '-'"),
        ("image", "my image", "expected HOST/PATH:TAG"),
        ("service_account", "me@gmail.com", "NAME@PROJECT.iam.gserviceaccount.com"),
        ("network", "projects/my-project/global/networks/x", "the project's number"),
        ("labels", "Team=a", "expected KEY=VALUE of lower-case letters"),
        ("labels", "team=a,team=b", "'team' is given twice"),
        ("labels", "podium_run=a", "is one of Podium's own"),
        ("experiment", "My exp", "at most 64 lower-case"),
        ("timeout_hours", "0", "expected a number above 0"),
        ("capacity.kind", "spott", "Did you mean 'spot'?"),
        ("capacity.kind", "reserved", "Did you mean 'reservation'?"),
        ("machines", "v5e-8", "Did you mean 'launch.machine'?"),
    ],
)
def test_a_setting_of_another_form_is_refused_in_one_line(key, text, message):
    with pytest.raises(ConfigError) as error:
        launch(**{key.replace(".", "__"): text})
    assert message in str(error.value)
    assert str(error.value).startswith((f"launch.{key}", "unknown config key"))


def test_slices_are_spelt_as_the_planner_spells_them():
    assert {parse_slice(name).name for name in slices()} == set(slices())


def test_launch_needs_no_jax_and_no_cloud_library():
    code = (
        "import sys; from launch import vertex; "
        "sys.argv = ['launch.vertex', '--config=configs/quickstart.py', '--slice=v5e-8', "
        "'--config.launch.project=my-project', '--config.launch.bucket=gs://my-bucket', "
        "'--dry_run']; assert vertex.main(sys.argv[1:]) == 0; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"jax", "numpy", "tensorflow", "flax", "grpc", "requests"}
    assert "launch.vertex" in loaded
    assert not loaded & (heavy | {"google.api_core", "google.auth"})
