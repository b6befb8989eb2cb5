# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Google Cloud says before it takes a host away; then the run saves and leaves.

The metadata server of every machine there tells of the end of the host, minutes or an
hour ahead (`maintenance-event`), and of a preemption half a minute ahead (`preempted`).
https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice. Either does
what a first SIGTERM does. Elsewhere nothing is asked.
"""

import http.client
import os
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

from podium.trainer.events import Events

_HOST = "GCE_METADATA_HOST"  # as google-auth has it
_PRODUCT = Path("/sys/class/dmi/id/product_name")
_WAIT_SECS = 60  # the server answers after so long where nothing changes
_MOST_PAUSE_SECS = 60.0
# What each key says when the host goes; a host that moves while it runs, goes on.
NOTICES = {
    "maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE",
    "preempted": "TRUE",
}


def metadata_host() -> str | None:
    """Of this machine's metadata server; None where it is none of Google Cloud's."""
    if host := os.environ.get(_HOST):
        return host
    try:
        is_google = _PRODUCT.read_text().startswith("Google")
    except OSError:
        return None
    return "metadata.google.internal" if is_google else None


class Maintenance:
    """Asks while it is entered, in threads of its own."""

    def __init__(
        self, events: Events, say: Callable[[str], None], stop: Callable[[], None]
    ):
        """`stop` asks the run to save and leave."""
        self._events, self._say, self._stop = events, say, stop
        self._host = metadata_host()
        self._closed = threading.Event()
        self._is_told = threading.Lock()  # taken by the first notice

    def __enter__(self) -> "Maintenance":
        for key in NOTICES if self._host else ():
            name = f"podium-{key}"
            threading.Thread(
                target=self._watch, args=(key,), name=name, daemon=True
            ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def _watch(self, key: str) -> None:
        etag, pause = "0", 1.0  # 0: answer at once
        while not self._closed.is_set():
            try:
                value, etag = self._ask(key, etag)
            except (OSError, http.client.HTTPException):
                self._closed.wait(pause)
                pause = min(2 * pause, _MOST_PAUSE_SECS)
                continue
            pause = 1.0
            if value == NOTICES[key]:
                self._tell(key)
                return

    def _ask(self, key: str, etag: str) -> tuple[str, str]:
        """The value when it is another than that of `etag`, or after a minute."""
        request = urllib.request.Request(
            f"http://{self._host}/computeMetadata/v1/instance/{key}"
            f"?wait_for_change=true&timeout_sec={_WAIT_SECS}&last_etag={etag}",
            headers={"Metadata-Flavor": "Google"},
        )
        with urllib.request.urlopen(request, timeout=2 * _WAIT_SECS) as answer:
            return answer.read().decode().strip(), answer.headers.get("ETag", "0")

    def _tell(self, key: str) -> None:
        if self._closed.is_set() or not self._is_told.acquire(blocking=False):
            return
        self._events.add("maintenance", what=key)
        self._say(
            f"this host is about to go ({key}): saving after this step, then leaving"
        )
        self._stop()
