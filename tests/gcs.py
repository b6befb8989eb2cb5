# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A bucket on this machine: gcp-storage-emulator over loopback, which can refuse.

The emulator lacks what tensorstore reads in an answer, the object's generation; it is
added here.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from unittest import mock

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

BUCKET = "podium-tests"


class Refusals:
    """How many of the next requests are refused, and with which status."""

    def __init__(self) -> None:
        self.left, self.status = 0, 503

    def next(self, num: int, status: int) -> None:
        self.left, self.status = num, status


@contextlib.contextmanager
def bucket(folder: os.PathLike) -> Iterator[Refusals]:
    """Serves gs://podium-tests out of a folder while it is entered."""
    refusals, download = Refusals(), objects.download

    def with_generation(request, response, storage, *args, **kwargs):
        download(request, response, storage, *args, **kwargs)
        with contextlib.suppress(Exception):
            name = (request.params["bucket_name"], request.params["object_id"])
            response["x-goog-generation"] = storage.get_file_obj(*name)["generation"]

    def handle(router, method, handle=server.Router.handle):
        if refusals.left > 0:
            refusals.left -= 1
            server.Request(router._request_handler, method).data  # noqa: B018
            response = server.Response(router._request_handler)
            response.status = server.HTTPStatus(refusals.status)
            response.json({"error": {"code": refusals.status, "message": "refused"}})
            response.close()
            return
        handle(router, method)

    def exact(handler, query, read_data=server._read_data):
        """The emulator parses an upload as mail, and takes a last byte that is a carriage
        return for a part of the line's end."""
        kind = handler.headers.get("Content-Type") or ""
        if not kind.startswith("multipart/related"):
            return read_data(handler, query)
        boundary = kind.partition("boundary=")[2].strip("\"'").encode()
        raw = server._decode_raw_data(server._read_raw_data(handler), handler)
        _, meta, content, _ = raw.split(b"--" + boundary)
        end = b"\r\n" if content.startswith(b"\r\n") else b"\n"
        head, _, data = content.removeprefix(end).partition(end + end)
        return {
            "meta": json.loads(meta.partition(end + end)[2]),
            "content": data.removesuffix(end),
            "content-type": head.decode().partition(":")[2].strip(),
        }

    handlers = tuple(
        (path, {m: with_generation if h is download else h for m, h in verbs.items()})
        for path, verbs in server.HANDLERS
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    settings = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "EPATH_USE_TF": "false",
        "NO_GCE_CHECK": "true",
        "GCE_METADATA_HOST": "127.0.0.1:1",  # nobody: no credentials are looked for
    }
    with (
        mock.patch.object(objects, "download", with_generation),
        mock.patch.object(server, "HANDLERS", handlers),
        mock.patch.object(server, "_read_data", exact),
        mock.patch.object(server.Router, "handle", handle),
        mock.patch.dict(os.environ, settings),
    ):
        running = server.create_server(
            "127.0.0.1", port, data_dir=str(folder), default_bucket=BUCKET
        )
        running.start()
        try:
            yield refusals
        finally:
            running.stop()
