# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The checkout on its way to the hosts: an archive in the bucket, an image out of it.

Both are named by the checkout's hash, so that what is there already is not made again,
and a build that somebody began a minute ago is waited for.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

from launch import request
from launch.cloud import Cloud
from launch.source import Checkout
from podium.config_launch import LaunchConfig
from podium.errors import CloudError

Say = Callable[[str, str], None]
_DOCKER = "gcr.io/cloud-builders/docker"
_TIMEOUT_SECS = 3600


def deliver(
    cloud: Cloud,
    settings: LaunchConfig,
    package: request.Package,
    checkout: Checkout,
    extra: str,
    *,
    say: Say,
) -> request.Package:
    """Brings the checkout to where the hosts find it; the package, by digest.

    Raises CloudError.
    """
    check_bucket(cloud, settings, say)
    if package.archive:
        upload(cloud, package.archive, checkout, say)
        return package
    name, tag = package.image.rsplit(":", 1)
    digest = _built(cloud, settings, name, tag)
    if digest:
        say("image", f"{name} is in Artifact Registry: {digest[:19]}")
    else:
        archive = request.archive_address(settings, package.sha256)
        upload(cloud, archive, checkout, say)
        digest = _build(cloud, name, tag, archive, extra, say)
        say("image", f"{name} is built: {digest[:19]}")
    return dataclasses.replace(package, image=f"{name}@{digest}")


def check_bucket(cloud: Cloud, settings: LaunchConfig, say: Say) -> None:
    """Raises CloudError where there is no bucket, or one in another region."""
    from google.api_core.exceptions import Forbidden

    name, _ = _split(settings.bucket or "")
    make = (
        f"make it: gcloud storage buckets create gs://{name} "
        f"--location={settings.region} --project={cloud.project}"
    )

    def ask() -> str | None:
        try:
            return cloud.storage.get_bucket(name, retry=None).location
        except Forbidden as error:
            if "storage.buckets.get" not in str(error):
                raise
            return None  # who may write to it may still not read what it is

    location = (cloud.call(f"bucket gs://{name}", ask, missing=make) or "").lower()
    if "-" in location and location != settings.region:
        raise CloudError(
            f"launch.bucket gs://{name} lies in {location}, the job runs in "
            f"{settings.region}; {make.replace(name, name + '-2', 1)}, or run there"
        )
    if location and "-" not in location:
        say("bucket", f"gs://{name} lies in all of {location}; one region is faster")


def upload(cloud: Cloud, address: str, checkout: Checkout, say: Say) -> None:
    """Writes the archive unless it lies there. Raises CloudError."""
    from google.api_core.exceptions import PreconditionFailed

    bucket, name = _split(address)
    blob = cloud.storage.bucket(bucket).blob(name)
    if cloud.call("archive", lambda: blob.exists(retry=None)):
        say("archive", f"{address} is there")
        return
    data = checkout.tar_gz()

    def write() -> None:
        with contextlib.suppress(PreconditionFailed):  # a first try took effect
            blob.upload_from_string(
                data,
                content_type="application/gzip",
                if_generation_match=0,  # never another one's half
                checksum="crc32c",
                retry=None,
            )

    cloud.call("archive", write)
    say("archive", f"{address}, {len(data) / 1e6:.1f} MB")


def _split(address: str) -> tuple[str, str]:
    bucket, _, name = address.removeprefix("gs://").partition("/")
    return bucket, name


def _built(cloud: Cloud, settings: LaunchConfig, name: str, tag: str) -> str | None:
    """The digest that a tag stands for, or None. Raises CloudError."""
    from google.api_core.exceptions import NotFound

    repository = f"{cloud.parent}/repositories/{settings.repository}"
    image = name.rpartition("/")[2]

    def ask() -> str | None:
        try:
            found = cloud.registry.get_tag(
                name=f"{repository}/packages/{image}/tags/{tag}", retry=None
            )
        except NotFound:
            return None
        return found.version.rpartition("/")[2]

    digest = cloud.call("image", ask)
    if digest is None:
        cloud.call(
            f"Artifact Registry's repository {settings.repository}",
            lambda: cloud.registry.get_repository(name=repository, retry=None),
            missing=f"make it: gcloud artifacts repositories create "
            f"{settings.repository} --repository-format=docker "
            f"--location={settings.region} --project={cloud.project}",
        )
    return digest


def build_request(name: str, tag: str, archive: str, extra: str) -> dict[str, Any]:
    """What Cloud Build is asked for. The image before is a cache: the libraries are the
    same layer while uv.lock is."""
    bucket, path = _split(archive)
    pull = f"docker pull {name}:cache || exit 0"
    arguments = [
        "build",
        "--file",
        "launch/Dockerfile",
        "--build-arg",
        f"EXTRA={extra}",
    ]
    arguments += ["--build-arg", "BUILDKIT_INLINE_CACHE=1"]
    arguments += ["--cache-from", f"{name}:cache"]
    arguments += ["--tag", f"{name}:{tag}", "--tag", f"{name}:cache", "."]
    return {
        "source": {"storage_source": {"bucket": bucket, "object_": path}},
        "steps": [
            {"name": _DOCKER, "entrypoint": "bash", "args": ["-c", pull]},
            {"name": _DOCKER, "args": arguments, "env": ["DOCKER_BUILDKIT=1"]},
        ],
        "images": [f"{name}:{tag}", f"{name}:cache"],
        "timeout": {"seconds": _TIMEOUT_SECS},
        "options": {"machine_type": "E2_HIGHCPU_8", "disk_size_gb": 200}
        | {"logging": "CLOUD_LOGGING_ONLY"},
        "tags": [_build_tag(name, tag)],
    }


def _build_tag(name: str, tag: str) -> str:
    return f"{name.rpartition('/')[2]}-{tag}"


def _build(
    cloud: Cloud,
    name: str,
    tag: str,
    archive: str,
    extra: str,
    say: Say,
) -> str:
    """The digest of a new image. Raises CloudError where the build fails."""
    from google.cloud.devtools import cloudbuild_v1

    build = cloudbuild_v1.Build(build_request(name, tag, archive, extra))

    def under_way() -> Any:
        tags = (
            f'tags="{_build_tag(name, tag)}" AND (status="QUEUED" OR status="WORKING")'
        )
        asked = cloudbuild_v1.ListBuildsRequest(parent=cloud.parent, filter=tags)
        return next(iter(cloud.builds.list_builds(request=asked, retry=None)), None)

    def create() -> Any:
        asked = cloudbuild_v1.CreateBuildRequest(parent=cloud.parent, build=build)
        started = cloud.builds.create_build(request=asked, retry=None)
        return started.metadata.build

    found = cloud.call("Cloud Build", under_way)
    if found is None:
        found = cloud.call("Cloud Build", create, settled=under_way)
    say("build", f"{found.id}; its log: {found.log_url}")
    asked = cloudbuild_v1.GetBuildRequest(name=f"{cloud.parent}/builds/{found.id}")
    status = None
    while True:
        found = cloud.call(
            "Cloud Build", lambda: cloud.builds.get_build(request=asked, retry=None)
        )
        if found.status.name != status:
            status = found.status.name
            say("build", status.lower())
        if status == "SUCCESS":
            return _digest(found, f"{name}:{tag}")
        if status not in ("PENDING", "QUEUED", "WORKING"):
            raise _failure(found)
        time.sleep(cloud.patience.poll_secs)


def _digest(build: Any, image: str) -> str:
    return next(found.digest for found in build.results.images if found.name == image)


def _failure(build: Any) -> CloudError:
    steps = [
        step for step in build.steps if step.status.name not in ("SUCCESS", "QUEUED")
    ]
    where = f", in: docker {' '.join(steps[0].args[:3])} …" if steps else ""
    why = build.failure_info.detail or build.status_detail or "no reason is given"
    error = CloudError(
        f"the build {build.id} ended as {build.status.name}{where}: "
        f"{' '.join(why.split())[:300]}; its log: {build.log_url}"
    )
    error.is_met_at_work = True
    return error
