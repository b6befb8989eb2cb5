# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Where Google Cloud's services are, if not at their public addresses.

gcloud's own variables say so, see `gcloud topic configurations`:
CLOUDSDK_API_ENDPOINT_OVERRIDES_{AIPLATFORM,CLOUDBUILD,…}, for private endpoints. One on
plain http:// is asked without credentials.
"""

import os
from typing import Any


def override(name: str) -> str | None:
    """The address that a variable gives."""
    found = os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}")
    return found.rstrip("/") if found else None


def credentials(address: str | None) -> Any:
    """None: those of gcloud or of the machine."""
    if not (address or "").startswith("http://"):
        return None
    from google.auth.credentials import AnonymousCredentials

    return AnonymousCredentials()
