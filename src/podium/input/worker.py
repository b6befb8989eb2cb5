# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The input process: python -m podium.input.worker FD PARENT ENGINE, run by server.py.

It reads batches and puts them into shared memory, one thread a stream. Engine "direct"
is ready in a fraction of a second; "tf.data" imports TensorFlow first. It imports no
jax. It ends when the trainer closes its socket, which the system does for a trainer
that was killed.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
import threading
import traceback

from podium.errors import DataError
from podium.input import pipeline, wire
from podium.input.loader import Loader
from podium.input.spec import StreamSpec

_PARENT_CHECK_SECS = 1.0


def main(argv: list[str]) -> None:
    """Serves streams until the trainer is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to answer
    control, parent = socket.socket(fileno=int(argv[0])), int(argv[1])
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    engine: pipeline.Engine = pipeline.direct
    if argv[2] == "tf.data":
        engine = pipeline.tf_data
        threading.Thread(target=_get_ready, args=(control,), daemon=True).start()
    # A forked child of the trainer may hold the socket open after the trainer's death.
    control.settimeout(_PARENT_CHECK_SECS)
    while os.getppid() == parent:
        try:
            request = wire.receive_request(control)
        except TimeoutError:
            continue
        except (OSError, EOFError):
            break
        if request is None:
            break
        spec, fds = request
        threading.Thread(target=_serve, args=(spec, *fds, engine), daemon=True).start()
    os._exit(0)  # streams may be in the middle of a read; there is nothing to save


def _get_ready(control: socket.socket) -> None:
    try:
        pipeline.import_tensorflow()
        control.sendall(wire.READY)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _serve(
    spec: StreamSpec, stream_fd: int, memory_fd: int, engine: pipeline.Engine
) -> None:
    """Fills one stream's ring until it ends or the trainer closes it."""
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
        socket.socket(fileno=stream_fd) as sock,
    ):
        try:
            _fill(spec, sock, memory_fd, engine)
        except DataError as e:
            wire.send_message(sock, wire.Kind.ERROR, body=str(e).encode())
        except (BrokenPipeError, ConnectionResetError):
            raise
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # a bug; the trainer reports its last line
    os.close(memory_fd)


def _fill(
    spec: StreamSpec, sock: socket.socket, memory_fd: int, engine: pipeline.Engine
) -> None:
    loader = Loader(spec)
    wire.send_message(sock, wire.Kind.INFO, body=wire.pack_info(loader.info()))
    num_slots = spec.data.prefetch_batches
    ring = wire.map_ring(memory_fd, (num_slots, *loader.shape))
    credits = num_slots
    for number, (step, fill) in enumerate(engine(loader)):
        if not credits:
            credits = len(sock.recv(num_slots))
            if not credits:
                return
        credits -= 1
        fill(ring[number % num_slots])
        if damaged := loader.take_damaged(step):
            wire.send_message(sock, wire.Kind.DAMAGED, step, wire.pack_damaged(damaged))
        wire.send_message(sock, wire.Kind.BATCH, step)
    wire.send_message(sock, wire.Kind.END)


if __name__ == "__main__":
    main(sys.argv[1:])
