# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The faults of a drill: one function each plays it, and says what it saw.

Each raises Failed where the run does not do what docs/reliability.md promises. What a
person would do after the fault is done here too: put a good copy of a shard back, make
room on the disk. All else is the same command, again.
"""

import dataclasses
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from podium.cli import EXIT_FAILED, EXIT_RUN_AGAIN
from podium.input.records import HEADER_BYTES
from profiling.drill_hosts import Network, Proxy, SmallDisk, can_make_network, can_mount
from profiling.drill_run import Drill, Failed, Row

PEER_SECS = 60.0  # in which all others must have left
DISK_BYTES = 96 << 20
CLOCK_JUMP_SECS = 86_400
_SHIM = Path(__file__).parent / "drill_shim"


@dataclasses.dataclass(frozen=True)
class Played:
    """What a row saw: the run folders whose ledgers count, and a few words."""

    workdirs: list[Path]
    words: str


def sigkill(drill: Drill) -> Played:
    """SIGKILL at random instants: while it starts, steps and saves."""
    laps = [Row(drill, "kill-01")]
    kills = during_save = 0
    newest = 0
    while kills < drill.kills:
        row = laps[-1]
        row.start()
        if not _reach_an_instant(drill, row):
            row.ends(0)
            row.compare()
            laps.append(Row(drill, f"kill-{len(laps) + 1:02}"))
            newest = 0
            continue
        row.running[0].send_signal(signal.SIGKILL)
        row.running[0].wait()
        kills += 1
        during_save += row.is_saving()
        saved = max(row.saved(), default=0)
        if saved < newest:
            raise Failed(
                f"kill {kills} took checkpoint {newest}, {saved} is the newest"
            )
        newest = saved
        drill.say(f"kill {kills} of {drill.kills}, {during_save} in a save")
    laps[-1].finish()
    words = f"{kills} kills, {during_save} of them in a save; {len(laps)} runs"
    return Played([lap.workdir for lap in laps], words)


def _reach_an_instant(drill: Drill, row: Row) -> bool:
    """Waits until a random instant of a start; False where the run ended before it."""
    rng, pace = drill.rng, drill.pace
    [where] = rng.choices(("start", "loop", "save"), (1, 4, 5))
    if where == "start":
        time.sleep(rng.uniform(0, pace.start))
        return row.running[0].poll() is None
    delay = rng.uniform(0, pace.loop / 3 if where == "loop" else 1.2 * pace.save)
    saves = rng.randint(1, 3)
    try:
        row.until_stepping()
        for _ in range(saves if where == "save" else 0):
            row.until(lambda: not row.is_saving(), "the end of a save")
            row.until(row.is_saving, "a save")
    except Failed:
        if row.running[0].poll() == 0:
            return False
        raise
    time.sleep(delay)
    return row.running[0].poll() is None


def sigterm(drill: Drill) -> Played:
    """SIGTERM at a random instant: saved, and nothing lost."""
    row = Row(drill, "term")
    row.start()
    row.until_stepping()
    time.sleep(drill.rng.uniform(0, drill.pace.loop / 2))
    row.running[0].send_signal(signal.SIGTERM)
    secs = row.ends(EXIT_RUN_AGAIN, within=60)
    stopped = next(e["step"] for e in reversed(row.events()) if e["event"] == "stop")
    if stopped not in row.saved():
        raise Failed(f"stopped at step {stopped}, but saved are {row.saved()}")
    row.finish()
    return Played(
        [row.workdir], f"left with 75 after {secs:.1f} s, step {stopped} saved"
    )


def damaged_checkpoint(drill: Drill) -> Played:
    """A bit flips in the newest checkpoint: the one before is used, and it is said."""
    row = Row(drill, "bit")
    row.start()
    row.until(lambda: len(row.saved()) >= 2, "two checkpoints")
    row.running[0].send_signal(signal.SIGKILL)
    row.running[0].wait()
    newest = max(row.saved())
    files = [p for p in (row.seen / "checkpoints" / str(newest)).rglob("*")]
    files = sorted(p for p in files if p.is_file() and p.name != "checksums.json")
    largest = max(files, key=lambda p: p.stat().st_size)
    _flip(largest, drill.rng.randrange(largest.stat().st_size))
    row.finish()
    if f"checkpoint {newest} is damaged" not in row.said():
        raise Failed(f"{largest} has another bit, and nothing was said")
    return Played([row.workdir], f"checkpoint {newest} was passed over, and named")


def lost_peer(drill: Drill) -> Played:
    """SIGKILL to one of four processes: the others leave."""
    row, victim, secs = _lose(drill, "peer-killed", signal.SIGKILL)
    row.finish()
    return Played(
        [row.workdir], f"process {victim} of 4; the others left in {secs:.0f} s"
    )


def stopped_peer(drill: Drill) -> Played:
    """SIGSTOP to one of four: the others leave; so does it when it wakes up."""
    row, victim, secs = _lose(drill, "peer-stopped", signal.SIGSTOP)
    row.running[victim].send_signal(signal.SIGCONT)
    woken = row.ends(EXIT_RUN_AGAIN, of=[victim], within=PEER_SECS)
    row.finish()
    words = f"process {victim} of 4; the others left in {secs:.0f} s, it {woken:.0f} s"
    return Played([row.workdir], f"{words} after it was woken")


def _lose(drill: Drill, name: str, number: int) -> tuple[Row, int, float]:
    row = Row(drill, name, num_processes=4)
    victim = drill.rng.randrange(4)
    row.start_until(lambda: _reach_a_checkpoint(drill, row))
    row.running[victim].send_signal(number)
    others = [i for i in range(4) if i != victim]
    secs = row.ends(EXIT_RUN_AGAIN, within=PEER_SECS, of=others)
    if number == signal.SIGKILL:
        row.running[victim].wait()
    return row, victim, secs


def partitioned_peer(drill: Drill) -> Played:
    """The network of one of four is cut: all leave, it too."""
    victim = drill.rng.randrange(1, 4)
    if can_make_network():
        folder = drill.folder / "peer-cut-off-hosts"
        folder.mkdir()
        with Network(4, folder) as network:
            row = Row(
                *(drill, "peer-cut-off"),
                num_processes=4,
                wrap=network.on,
                coordinator=network.address(0),
            )
            row.start_until(lambda: _reach_a_checkpoint(drill, row))
            network.plug(victim, is_in=False)
            secs = row.ends(EXIT_RUN_AGAIN, within=PEER_SECS)
            network.plug(victim, is_in=True)
            row.finish()
        how = "cable of its host pulled, in network namespaces"
    else:
        drill.say("no network namespaces here: a severed proxy to process 0 instead")
        proxy = Proxy()
        try:
            row = Row(drill, "peer-cut-off", num_processes=4)
            row.start(coordinators={victim: proxy.address})
            proxy.lead_to("127.0.0.1", row.port)
            _reach_a_checkpoint(drill, row)
            proxy.sever()
            secs = row.ends(EXIT_RUN_AGAIN, within=PEER_SECS)
            row.finish()
        finally:
            proxy.close()
        how = "its connection to process 0 severed in a proxy"
    return Played(
        [row.workdir], f"process {victim} of 4, {how}; all left in {secs:.0f} s"
    )


def _reach_a_checkpoint(drill: Drill, row: Row) -> None:
    """And a little more, at random."""
    row.until(lambda: row.saved(), "a checkpoint")
    time.sleep(drill.rng.uniform(0, 1))


def damaged_shard(drill: Drill) -> Played:
    """Bytes of a shard change while it is read: the run ends, and names the record."""
    folder = drill.folder / "shard-data"
    shutil.copytree(drill.gold, folder)
    row = Row(drill, "shard", flags=[f"--config.data.paths={folder}"])
    row.start()
    row.until_stepping()
    time.sleep(drill.rng.uniform(0, drill.pace.loop / 4))
    shard = sorted(folder.glob("train-*.tfrecord"))[0]
    _damage(shard)
    row.ends(EXIT_FAILED, within=60)
    last = row.said().strip().splitlines()[-1]
    if str(shard) not in last or "record" not in last or "is damaged" not in last:
        raise Failed(f"the last line does not name the record: {last}")
    shutil.copyfile(drill.gold / shard.name, shard)
    row.finish()
    return Played(
        [row.workdir], "ended with 1 and the record's name; mended, continued"
    )


def full_disk(drill: Drill) -> Played:
    """The disk is full in mid-run, and stays so to the end; then there is room."""
    if can_mount():
        folder = drill.folder / "disk-mount"
        with SmallDisk(folder, DISK_BYTES) as disk:
            row = Row(drill, "disk", wrap=lambda _: disk.on)
            row.workdir, row.seen = folder / "run", disk.seen / "run"
            row.start()
            _reach_a_checkpoint(drill, row)
            with disk.full():
                _expect_full(row, "No space left on device")
            row.finish()
            kept = row.folder / "run"
            shutil.copytree(row.seen, kept)  # the disk is gone after this
        return Played(
            [kept], "a full tmpfs: ended with 1, said why; room made, continued"
        )
    drill.say("no mounts here: a limit on the size of files instead of a full disk")
    row = Row(drill, "disk")
    row.start()
    _reach_a_checkpoint(drill, row)
    pid, (_, hard) = row.running[0].pid, resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (row.seen / "metrics.jsonl").stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    _expect_full(row, "File too large")
    row.finish()
    return Played([row.workdir], "RLIMIT_FSIZE: ended with 1, said why; continued")


def _expect_full(row: Row, why: str) -> None:
    """It trains on as long as it can, ends with 1, and keeps what it had saved."""
    before = row.saved()
    row.ends(EXIT_FAILED)
    last = row.said().strip().splitlines()[-1]
    if why not in last or not last.startswith("StorageError: "):
        raise Failed(f"the last line is not of a StorageError with {why!r}: {last}")
    if max(row.saved(), default=0) < max(before):
        raise Failed(f"checkpoint {max(before)} is gone")


def nan(drill: Drill) -> Played:
    """A weight becomes no number, in memory: the run ends, no checkpoint has it."""
    row = Row(drill, "nan")
    step = drill.rng.randint(25, 150)
    row.start(env={"PYTHONPATH": str(_SHIM), "PODIUM_DRILL_NAN_STEP": str(step)})
    row.ends(EXIT_FAILED)
    last = row.said().strip().splitlines()[-1]
    if "DivergedError" not in last or f"step {step}" not in last:
        raise Failed(f"expected an end at step {step}, found: {last}")
    if max(row.saved()) >= step:
        raise Failed(f"checkpoint {max(row.saved())} was saved with the NaN of {step}")
    row.finish()
    return Played([row.workdir], f"at step {step}: ended with 1 there; continued")


def clock(drill: Drill) -> Played:
    """The wall clock jumps a day ahead in mid-run, and back for the next start."""
    row = Row(drill, "clock")
    offset = row.folder / "clock"
    offset.write_text("0")
    env = {"PYTHONPATH": str(_SHIM), "PODIUM_DRILL_CLOCK": str(offset)}
    row.start(env=env)
    row.until_stepping()
    time.sleep(drill.rng.uniform(0, drill.pace.loop / 4))
    offset.write_text(str(CLOCK_JUMP_SECS))
    _reach_a_checkpoint(drill, row)
    row.running[0].send_signal(signal.SIGKILL)
    row.running[0].wait()
    offset.write_text(str(-CLOCK_JUMP_SECS))
    row.start(env=env)
    row.until_stepping()
    offset.write_text("0")
    row.ends(0)
    row.compare()
    return Played([row.workdir], "time.time a day ahead, then a day back")


FAULTS: dict[str, Callable[[Drill], Played]] = {
    "kill": sigkill,
    "term": sigterm,
    "bit": damaged_checkpoint,
    "shard": damaged_shard,
    "disk": full_disk,
    "nan": nan,
    "clock": clock,
    "peer-killed": lost_peer,
    "peer-stopped": stopped_peer,
    "peer-cut-off": partitioned_peer,
}
FOUR = {"peer-killed", "peer-stopped", "peer-cut-off"}


def _flip(path: Path, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        [old] = file.read(1)
        file.seek(byte)
        file.write(bytes([old ^ 1]))


def _damage(shard: Path) -> None:
    """A bit of every record: whichever is read next."""
    import numpy as np

    for offset in np.load(shard.with_suffix(".index.npy"))["offset"]:
        _flip(shard, int(offset) + HEADER_BYTES + 40)
