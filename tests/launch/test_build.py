# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Google's unmodified clients, on the way to an image."""

import gzip
import os

import pytest
import requests

from launch import build, request
from launch.machines import place
from launch.source import read_checkout
from podium.config_launch import LaunchConfig
from podium.errors import CloudError

SETTINGS = LaunchConfig(
    machine="v5e-8", project="my-project", bucket="gs://podium-tests/launch"
)
BUILDS = "POST /v1/.*/builds"


@pytest.fixture
def deliver(cloud):
    """Delivers a checkout; the package, and what was said."""

    def run(checkout, settings=SETTINGS):
        said = []
        where = place(settings)
        package = request.planned_package(settings, where, checkout)
        found = build.deliver(
            cloud,
            settings,
            package,
            checkout,
            where.extra,
            say=lambda *words: said.append(" ".join(words)),
        )
        return found, said

    return run


def test_an_image_is_built_once_for_a_checkout_and_anew_for_another(
    deliver, google, repo
):
    first, said = deliver(read_checkout(repo))
    name = "us-central1-docker.pkg.dev/my-project/podium/podium-tpu"
    assert first.image.startswith(f"{name}@sha256:")
    assert said[-1].startswith(f"image {name} is built: sha256:")
    again, said = deliver(read_checkout(repo))
    assert again == first
    assert f"image {name} is in Artifact Registry: {first.image[-71:][:19]}" in said
    assert google.count(BUILDS) == 1
    (repo / "a.py").write_text("a = 2\n")
    other, _ = deliver(read_checkout(repo))
    assert other.image != first.image
    assert google.count(BUILDS) == 2


def test_the_build_gets_the_archive_the_accelerator_and_the_cache(
    deliver, google, checkout, cloud
):
    deliver(checkout)
    (found,) = google.builds.values()
    source = found["source"]["storageSource"]
    blob = cloud.storage.bucket(source["bucket"]).blob(source["object"])
    assert gzip.decompress(blob.download_as_bytes(raw_download=True)) == checkout.tar
    pull, docker = found["steps"]
    assert pull["args"][1].endswith(":cache || exit 0")
    args = docker["args"]
    assert args[args.index("--file") + 1] == "launch/Dockerfile"
    assert "EXTRA=tpu" in args
    assert sorted(image.rpartition(":")[2] for image in found["images"]) == sorted(
        ["cache", checkout.sha256[:32]]
    )


@pytest.mark.parametrize("code", [0, 503])
def test_a_build_whose_answer_is_lost_is_not_begun_again(
    deliver, google, checkout, code
):
    google.fail(BUILDS, code, late=True)
    deliver(checkout)
    assert len(google.builds) == 1


def test_a_build_that_somebody_else_began_is_waited_for(deliver, google, checkout):
    name = request.image_name(SETTINGS, "tpu")
    tag = checkout.sha256[:32]
    body = {"images": [f"{name}:{tag}"], "tags": [f"podium-tpu-{tag}"], "steps": []}
    google._create_build("projects/p/locations/us-central1", query={}, body=body)
    deliver(checkout)
    assert google.count(BUILDS) == 0


def test_a_build_that_fails_names_the_step_the_reason_and_the_log(
    deliver, google, checkout
):
    google.build_fails = "Build step failure: uv.lock needs to be updated"
    with pytest.raises(CloudError) as error:
        deliver(checkout)
    assert str(error.value) == (
        "the build b-0 ended as FAILURE, in: docker build --file launch/Dockerfile …: "
        "Build step failure: uv.lock needs to be updated; its log: "
        "https://console.cloud.google.com/cloud-build/builds/b-0"
    )
    assert error.value.is_met_at_work


def test_where_there_is_no_repository_the_command_that_makes_one_is_said(
    deliver, google, checkout
):
    google.repositories.clear()
    with pytest.raises(CloudError) as error:
        deliver(checkout)
    assert str(error.value).endswith(
        "make it: gcloud artifacts repositories create podium --repository-format=docker "
        "--location=us-central1 --project=my-project"
    )
    assert not error.value.is_met_at_work
    assert google.count(BUILDS) == 0


def test_a_prebuilt_image_needs_no_build_and_the_archive_goes_up_once(
    deliver, google, checkout, bucket
):
    image = "us-docker.pkg.dev/p/r/i:t"
    settings = LaunchConfig(
        machine="v5e-8", project="my-project", bucket="gs://podium-tests", image=image
    )
    bucket.next(2, 503)
    package, said = deliver(checkout, settings)
    assert package.image == image
    assert package.archive == f"gs://podium-tests/packages/{checkout.sha256}.tar.gz"
    assert said[-1].startswith(f"archive {package.archive}, ")
    _, said = deliver(checkout, settings)
    assert said[-1] == f"archive {package.archive} is there"
    assert google.count("packages|builds") == 0


def test_a_bucket_that_is_missing_or_elsewhere_is_said(deliver, checkout, cloud):
    gone = LaunchConfig(
        machine="v5e-8", project="my-project", bucket="gs://no-such-bucket/x"
    )
    with pytest.raises(CloudError) as error:
        deliver(checkout, gone)
    assert str(error.value).endswith(
        "make it: gcloud storage buckets create gs://no-such-bucket "
        "--location=us-central1 --project=my-project"
    )
    cloud.storage.create_bucket("far-away")
    requests.patch(
        f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b/far-away",
        json={"location": "EUROPE-WEST4"},
        timeout=30,
    ).raise_for_status()
    far = LaunchConfig(machine="v5e-8", project="my-project", bucket="gs://far-away")
    with pytest.raises(
        CloudError, match="lies in europe-west4, the job runs in us-cen"
    ):
        deliver(checkout, far)
