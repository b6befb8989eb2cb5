# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A metadata server on this machine says that the host goes."""

import contextlib
import http.server
import signal
import threading
import time
import urllib.parse

import pytest

from podium.trainer import maintenance
from podium.trainer.events import Events, read_events
from podium.trainer.stopping import Stopping


class Server(http.server.ThreadingHTTPServer):
    """As Google's: waits for a change where it is asked to."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.values = {"maintenance-event": "NONE", "preempted": "FALSE"}
        self.asked, self.failures = [], 0


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        key = url.path.removeprefix("/computeMetadata/v1/instance/")
        [etag] = urllib.parse.parse_qs(url.query)["last_etag"]
        server = self.server
        server.asked.append((key, etag))
        if self.headers["Metadata-Flavor"] != "Google" or server.failures > 0:
            server.failures -= 1
            self.send_error(503)
            return
        until = time.monotonic() + 0.3  # instead of a minute
        while server.values[key] == etag and time.monotonic() < until:
            time.sleep(0.01)
        self.send_response(200)
        self.send_header("ETag", server.values[key])
        self.end_headers()
        self.wfile.write(server.values[key].encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    with Server() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def server(monkeypatch):
    with serving() as found:
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{found.server_port}")
        yield found


def wait_for(ready):
    until = time.monotonic() + 30
    while not ready() and time.monotonic() < until:
        time.sleep(0.02)
    assert ready()


@pytest.mark.parametrize("key", maintenance.NOTICES)
def test_a_notice_asks_the_run_to_stop(server, tmp_path, key):
    said, asked = [], server.asked
    server.failures = 1  # it is asked again
    moves = ("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    with (
        Events(tmp_path) as events,
        Stopping(said.append) as stopping,
        maintenance.Maintenance(events, said.append, stopping.ask),
    ):
        wait_for(lambda: len({key for key, etag in asked if etag != "0"}) == 2)
        server.values[moves[0]] = moves[1]
        wait_for(lambda: moves in asked)
        assert not stopping.reached(1)  # a machine that moves goes on
        server.values[key] = maintenance.NOTICES[key]
        wait_for(lambda: stopping.reached(2))
        signal.raise_signal(signal.SIGTERM)  # the machine's own, later: not a second
    assert f"this host is about to go ({key})" in said[0]
    [event] = read_events(tmp_path)
    assert (event["event"], event["what"]) == ("maintenance", key)


def test_a_notice_after_the_end_asks_nothing(server, tmp_path):
    asked = []
    with Events(tmp_path) as events:
        watching = maintenance.Maintenance(events, print, lambda: asked.append(1))
        with watching:
            wait_for(lambda: len({key for key, etag in server.asked}) == 2)
        server.values["preempted"] = "TRUE"
        for thread in threading.enumerate():
            if thread.name.startswith("podium-"):
                thread.join(10)
    assert not asked


def test_elsewhere_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    monkeypatch.setattr(maintenance, "_PRODUCT", tmp_path / "none")
    assert maintenance.metadata_host() is None
    (tmp_path / "some").write_text("Google Compute Engine\n")
    monkeypatch.setattr(maintenance, "_PRODUCT", tmp_path / "some")
    assert maintenance.metadata_host() == "metadata.google.internal"
