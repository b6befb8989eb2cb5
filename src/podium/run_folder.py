# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: it may be new, empty or a run's own, and one process trains it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from podium.errors import ConfigError, PodiumError
from podium.storage import is_remote, open_folder

_LOCK_FILE = "run.lock"


def check_folder(workdir: str | Path) -> None:
    """A run may live in a new, an empty or a run's own folder. Raises ConfigError."""
    workdir = Path(workdir)
    above = next((p for p in workdir.parents if os.path.lexists(p)), workdir.parent)
    if not above.is_dir():
        raise ConfigError(
            f"--workdir={workdir} lies under {above}, which is no folder; choose another"
        )
    if not os.path.lexists(workdir):
        return
    if not workdir.is_dir():
        raise ConfigError(f"--workdir={workdir} is no folder; choose another name")
    names = {entry.name for entry in workdir.iterdir()}
    if names & {"config.json", "checkpoints", _LOCK_FILE}:
        return
    if found := sorted(n for n in names - {"lost+found"} if not n.startswith(".")):
        more = " …" if len(found) > 3 else ""
        raise ConfigError(
            f"--workdir={workdir} holds other things ({', '.join(found[:3])}{more}) and "
            f"no run; choose an empty or a new folder, e.g. {workdir / 'run'}"
        )


def check_checkpoint_folder(folder: str | None) -> None:
    """Checkpoints can lie in `checkpoint.folder`, as far as a look can tell: training
    would go on for a while without any. Raises ConfigError."""
    if folder is None:
        return
    try:
        is_local = not is_remote(open_folder(folder).path)
    except PodiumError as error:
        raise ConfigError(f"checkpoint.folder: {error}") from error
    if not is_local:
        return
    path = Path(folder).absolute()
    there = next(p for p in (path, *path.parents) if os.path.lexists(p))
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "cannot be written" if there.is_dir() else "is no folder"
        raise ConfigError(
            f"checkpoint.folder={folder}: {there} {what}; choose another folder"
        )


def make_folder(workdir: str | Path) -> None:
    """Makes the run folder and marks it as one. Raises ConfigError."""
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        (Path(workdir) / _LOCK_FILE).touch()
    except OSError as error:
        raise ConfigError(
            f"--workdir={workdir} cannot be written: {error.strerror}; choose another "
            "folder"
        ) from error


@contextlib.contextmanager
def tidy(workdir: str | Path) -> Iterator[None]:
    """A start that fails takes away what `make_folder` made, if that is all there is."""
    workdir = Path(workdir)
    mark = workdir / _LOCK_FILE
    is_marked = mark.exists()
    new = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if not is_marked and list(workdir.iterdir()) == [mark]:
                mark.unlink()
            for folder in new:
                folder.rmdir()  # fails, and ends this, where something is in it
        raise


@contextlib.contextmanager
def lock(workdir: str | Path) -> Iterator[None]:
    """Held while a run trains, by its first process; a killed process lets go of it.

    Raises ConfigError where another process holds it. File systems without locks are
    trusted.
    """
    with (Path(workdir) / _LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{workdir} is being trained by {file.read() or 'another process'}; "
                "stop it, or use another --workdir"
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"pid {os.getpid()} on host {socket.gethostname()}")
        file.flush()
        yield


def is_being_trained(workdir: str | Path) -> bool | None:
    """Whether a process holds the lock; None where this host cannot know."""
    try:
        with (Path(workdir) / _LOCK_FILE).open() as file:
            if not file.read().endswith(f" on host {socket.gethostname()}"):
                return None
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
