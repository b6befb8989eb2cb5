# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What Google Cloud answered, in one line that ends with what to do about it."""

import re

# Prefix of a permission -> the smallest predefined role with it.
_ROLES = {
    "aiplatform.": "roles/aiplatform.user",
    "cloudbuild.": "roles/cloudbuild.builds.editor",
    "artifactregistry.": "roles/artifactregistry.writer",
    "storage.buckets.": "roles/storage.admin",
    "storage.": "roles/storage.objectAdmin",
    "logging.": "roles/logging.viewer",
    "secretmanager.": "roles/secretmanager.secretAccessor",
    "iam.serviceAccounts.actAs": "roles/iam.serviceAccountUser",
    "serviceusage.": "roles/serviceusage.serviceUsageConsumer",
}
_PERMISSION = re.compile(rf"\b((?:{'|'.join(map(re.escape, _ROLES))})[A-Za-z.]*)")
_QUOTA = re.compile(r"\b([a-z]+\.googleapis\.com/[A-Za-z0-9_/]+)")
_MOST = 400  # characters of an answer


def is_transient(error: BaseException) -> bool:
    """Whether the same request may go through in a while."""
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from requests import exceptions as web

    if isinstance(error, api.TooManyRequests):
        return not _is_quota(str(error)) or _is_rate(str(error))
    passing = (
        *(api.ServiceUnavailable, api.GatewayTimeout, api.InternalServerError),
        *(api.BadGateway, api.Aborted, api.RetryError),
        *(web.ConnectionError, web.Timeout, web.ChunkedEncodingError),
    )
    # No credentials at all is no passing thing; a token server that is silent is one.
    return isinstance(error, (*passing, auth.TransportError))


def explain(
    error: BaseException, project: str, region: str, role: str | None = None
) -> str:
    """One line for a person. `role` is one that suffices, if the answer names none."""
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    text = said(error).rstrip(".")
    if isinstance(error, auth.TransportError):
        return f"{text}; Google's servers are not reached: is there a network?"
    if isinstance(error, auth.GoogleAuthError | api.Unauthorized):
        return (
            f"no valid credentials ({text}); run: gcloud auth application-default login"
        )
    if isinstance(error, api.Forbidden):
        return f"{text}; {_permission_fix(text, project, role)}"
    is_quota = isinstance(error, api.TooManyRequests) or _is_quota(text)
    if is_quota and not _is_rate(text):
        return f"{text}; {_quota_fix(text, project, region)}"
    if is_transient(error):
        return (
            f"{text}; Google Cloud did not recover in time: try the same command again"
        )
    return text


def said(error: BaseException, most: int = _MOST) -> str:
    """What an error says, on one line, without the address that was asked."""
    text = " ".join((getattr(error, "message", "") or str(error)).split())
    text = re.sub(r"^[A-Z]+ https?://\S+: ", "", text)
    return text if len(text) <= most else text[:most] + " …"


def _is_quota(text: str) -> bool:
    return "quota metric" in text.lower() or "quota exceeded" in text.lower()


def _is_rate(text: str) -> bool:
    """A quota of requests, which is there again in a minute."""
    return bool(re.search(r"\bper (minute|second|\d+ seconds)\b", text.lower()))


def _permission_fix(text: str, project: str, role: str | None) -> str:
    if "has not been used" in text or "SERVICE_DISABLED" in text or "disabled" in text:
        found = re.search(r"\b[a-z]+\.googleapis\.com", text)
        api = found[0] if found else "aiplatform.googleapis.com"
        return (
            f"enable it, and repeat a minute later: gcloud services enable {api} "
            f"--project={project}"
        )
    if "billing" in text.lower():
        return (
            "link a billing account: https://console.cloud.google.com/billing/"
            f"linkedaccount?project={project}"
        )
    found = _PERMISSION.search(text)
    if found:
        role = next(r for prefix, r in _ROLES.items() if found[1].startswith(prefix))
    if not role:
        return f"ask an owner of project {project} for access"
    return (
        f"an owner of the project can give it: gcloud projects add-iam-policy-binding "
        f"{project} --member=user:YOUR_ACCOUNT --role={role}"
    )


def _quota_fix(text: str, project: str, region: str) -> str:
    found = _QUOTA.search(text)
    metric = f"the quota {found[1]}" if found else "a quota"
    return (
        f"{metric} of project {project} in {region} does not suffice: ask for more at "
        f"https://console.cloud.google.com/iam-admin/quotas?project={project}, or take "
        "fewer machines or another region"
    )
