# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Google's own clients, and one way of calling them: retried, and explained.

The clients come with the extra `vertex` and are imported when first used. They speak
REST, so that an endpoint can be any address, as gcloud's own variables name it:
CLOUDSDK_API_ENDPOINT_OVERRIDES_{AIPLATFORM,CLOUDBUILD,ARTIFACTREGISTRY,LOGGING,SECRETMANAGER,
STORAGE},
for private endpoints. One on plain http:// is asked without credentials.
"""

import dataclasses
import functools
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from launch.explain import explain, is_transient, said
from podium import cli
from podium.endpoints import credentials, override
from podium.errors import CloudError, ConfigError
from podium.lean_package import make_lean

T = TypeVar("T")


_NAMES = {
    "AIPLATFORM": "Vertex AI",
    "CLOUDBUILD": "Cloud Build",
    "ARTIFACTREGISTRY": "Artifact Registry",
    "SECRETMANAGER": "Secret Manager",
}
# What `Cloud.call` was told it does -> a role that suffices, where an answer names no
# permission.
_ROLES = {
    "archive": "roles/storage.objectAdmin",
    "bucket": "roles/storage.objectAdmin",
    "progress": "roles/storage.objectAdmin",
    "Cloud Build": "roles/cloudbuild.builds.editor",
    "image": "roles/artifactregistry.writer",
    "log": "roles/logging.viewer",
    **dict.fromkeys(
        ("job", "submit", "cancel", "sweep", "experiment", "runs of", "curves of"),
        "roles/aiplatform.user",
    ),
}


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a service may be away, and how often it is asked how far it is."""

    first_secs: float = 1.0  # doubled each time, with as much of chance
    most_secs: float = 30.0
    total_secs: float = 300.0
    poll_secs: float = 10.0


class Cloud:
    """The services of one project in one region."""

    def __init__(
        self, project: str, region: str, patience: Patience | None = None
    ) -> None:
        self.project, self.region = project, region
        self.patience = patience or Patience()
        make_lean("google.cloud.aiplatform_v1")

    @property
    def parent(self) -> str:
        """projects/P/locations/R."""
        return f"projects/{self.project}/locations/{self.region}"

    @functools.cached_property
    def jobs(self) -> Any:
        """Vertex AI's JobServiceClient."""
        with installed():
            from google.cloud.aiplatform_v1.services.job_service import JobServiceClient

        host = f"https://{self.region}-aiplatform.googleapis.com"
        return self._rest(JobServiceClient, "AIPLATFORM", host)

    @functools.cached_property
    def builds(self) -> Any:
        """CloudBuildClient."""
        with installed():
            from google.cloud.devtools.cloudbuild_v1 import CloudBuildClient

        return self._rest(CloudBuildClient, "CLOUDBUILD", None)

    @functools.cached_property
    def registry(self) -> Any:
        """ArtifactRegistryClient."""
        with installed():
            from google.cloud.artifactregistry_v1 import ArtifactRegistryClient

        return self._rest(ArtifactRegistryClient, "ARTIFACTREGISTRY", None)

    @functools.cached_property
    def secrets(self) -> Any:
        """SecretManagerServiceClient."""
        with installed():
            from google.cloud.secretmanager_v1 import SecretManagerServiceClient

        return self._rest(SecretManagerServiceClient, "SECRETMANAGER", None)

    @functools.cached_property
    def storage(self) -> Any:
        """Storage's Client; STORAGE_EMULATOR_HOST is its own variable."""
        with installed():
            from google.cloud import storage
        address = os.environ.get("STORAGE_EMULATOR_HOST") or override("STORAGE")
        return self._plain(storage.Client, address)

    @functools.cached_property
    def logs(self) -> Any:
        """Logging's Client, over HTTP."""
        with installed():
            from google.cloud import logging
        return self._plain(logging.Client, override("LOGGING"), _use_grpc=False)

    def call(
        self,
        what: str,
        fn: Callable[[], T],
        *,
        settled: Callable[[], T | None] = lambda: None,
        missing: str = "",
    ) -> T:
        """What `fn` returns; it is called again while Google Cloud is away.

        `settled` is asked before each further try whether an earlier one took effect
        though its answer was lost. `missing` says what to do where a thing is not there.
        Raises CloudError.
        """
        began, pause = time.monotonic(), self.patience.first_secs
        while True:
            try:
                return fn()
            except CloudError:
                raise
            except Exception as error:
                if not _is_of_the_cloud(error):
                    raise
                is_late = time.monotonic() - began + pause > self.patience.total_secs
                if is_transient(error) and not is_late:
                    cli.say(f"{what}: {_short(error)}; again in {pause:.0f} s")
                else:
                    raise self._refusal(what, error, missing) from error
            time.sleep(pause * random.uniform(1.0, 2.0))
            pause = min(2 * pause, self.patience.most_secs)
            found = self.call(f"{what}, looked up", settled)
            if found is not None:
                return found

    def _refusal(self, what: str, error: Exception, missing: str) -> CloudError:
        from google.api_core.exceptions import NotFound

        role = next((r for start, r in _ROLES.items() if what.startswith(start)), None)
        line = explain(error, self.project, self.region, role)
        if isinstance(error, NotFound) and missing:
            line = f"{line}; {missing}"
        refusal = CloudError(f"{what}: {line}")
        refusal.is_met_at_work = is_transient(error)  # all else the user can mend
        return refusal

    def _rest(self, client: Any, name: str, host: str | None) -> Any:
        from google.api_core.client_options import ClientOptions

        address = override(name) or host
        options = ClientOptions(
            api_endpoint=address, quota_project_id=None if address else self.project
        )
        return self.call(
            f"login to {_NAMES[name]}",
            lambda: client(
                transport="rest",
                client_options=options,
                credentials=credentials(address),
            ),
        )

    def _plain(self, client: Any, address: str | None, **more: Any) -> Any:
        options = {"api_endpoint": address} if address else None
        return self.call(
            "login to Google Cloud",
            lambda: client(
                project=self.project,
                client_options=options,
                credentials=credentials(address),
                **more,
            ),
        )


class installed:
    """An import that fails in here names the extra."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, ImportError):
            raise ConfigError(
                f"{error}: Google's clients are not installed; uv sync --extra vertex"
            ) from error


def _is_of_the_cloud(error: Exception) -> bool:
    """Said by a service or met on the way to it; anything else is a fault of ours."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    return isinstance(error, GoogleAPIError | GoogleAuthError | RequestException)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {said(error, 120).rstrip('.')}"
