"""Rows of the fault campaign: disks that fail, are full or read-only (P7, P13)."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.faults.fault_deaths import after_death, finished
from tests.faults.fault_helpers import Film, StepLog, Tally
from tests.faults.fault_kernel import injected, on_a_disk_of
from tests.faults.fault_rig import Pusher, Rig

FAILURES = (
    ("fdatasync", "EIO"),
    ("fsync", "EIO"),
    ("rename", "EROFS"),
    ("writev", "ENOSPC"),
    ("writev", "EIO"),
    ("unlink", "EIO"),
)


def failing_disk(rig: Rig, moments: Sequence[tuple[str, str, str]]) -> Tally:
    """A system call of the spool fails at these times: the stream continues from memory, and all chunks arrive."""
    tally = Tally("disk: EIO, ENOSPC, read-only, failed fsync; the client goes on")
    for k, (call, code, when) in enumerate(moments):
        film, before = Film(k), injected(f"{call}:error={code}:when={when}")
        pusher = rig.push(film, rig.new_spool(), before=before, count=20, end="finalize")
        finished(rig, pusher, film, tally)
        if "The spool could not" not in pusher.errors:
            tally.count_failure("lost", f"{call} did not fail, or no error was reported")
    return tally


def failing_disk_then_death(rig: Rig, moments: Sequence[tuple[str, str, str]]) -> Tally:
    """The same with a server that does not respond, and the client is killed: durable chunks exist."""
    tally = Tally("disk: EIO, ENOSPC, failed fsync, then SIGKILL; pushed as durable")
    for k, (call, code, when) in enumerate(moments):
        film, spool = Film(k), rig.new_spool()
        pusher = rig.push(
            film, spool, before=injected(f"{call}:error={code}:when={when}"), count=12, pause_at=0, end="hold",
            settings={"durability": "disk"},
        )  # fmt: skip
        pusher.read("paused")
        rig.server.pause()
        pusher.send_line()
        pusher.read("held")
        steps = pusher.kill_traced()
        rig.server.go_on()
        after_death(rig, spool, steps, film, tally, durable=True)
    return tally


def full_disk(rig: Rig, tries: int) -> Tally:
    """A disk of 1 MB and a server that does not respond: the rest stays in memory, and all chunks arrive."""
    tally = Tally("disk: full (1 MB tmpfs) in an outage; the client goes on")
    for k in range(tries):
        film, spool = Film(k, height=64, width=80), rig.new_spool()
        pusher = rig.push(
            film, spool, before=on_a_disk_of("1m", spool), count=90, pause_at=5, end="finalize",
            settings={"spool_max_bytes": 10**9},
        )  # fmt: skip
        pusher.read("paused")
        rig.server.pause()
        pusher.send_line()
        pusher.read("accepted 80")
        rig.server.go_on()
        finished(rig, pusher, film, tally)
    return tally


def full_disk_then_death(rig: Rig, tries: int) -> Tally:
    """The same with durable pushes; the client is killed when the disk is full, and the next process delivers them."""
    tally = Tally("disk: full in an outage, then SIGKILL; pushed as durable")
    for k in range(tries):
        film, spool, side = Film(k, height=64, width=80), rig.new_spool(), rig.folder / f"next-{k}"
        before = on_a_disk_of("1m", spool)
        pusher = rig.push(
            film, spool, before=_then(before, rig.recovery_command(film, spool, side)), count=200, pause_at=1,
            settings={"durability": "disk", "spool_max_bytes": 10**9}, end="hold",
        )  # fmt: skip
        pusher.read("paused")
        rig.server.pause()
        pusher.send_line()
        steps = _killed_when_full(rig, pusher)
        tally.check_stream(
            rig.server.stored_stream(steps.data_id), steps.indices("accepted"), steps.indices("pushing"), film
        )
        if not StepLog.read(side).words("report"):
            tally.count_failure("lost", f"the next process failed: {pusher.errors[-500:]}")
    return tally


def _then(before: list[str], then: list[str]) -> list[str]:
    """Run another command in the same namespace after the first one has ended."""
    *head, script, folder = before
    return [*head, script.replace('exec "$@"', f'{{ "$@"; {shlex.join(then)}; }}'), folder]


def _killed_when_full(rig: Rig, pusher: Pusher) -> StepLog:
    assert pusher.process.stderr is not None
    while "continues from memory" not in pusher.process.stderr.readline():
        pass
    os.kill(pusher.own_pid(), signal.SIGKILL)
    rig.server.go_on()
    return pusher.ended()


def read_only_disk(rig: Rig, tries: int) -> Tally:
    """A spool on a read-only disk: frames are kept in memory only, and all chunks arrive."""
    tally = Tally("disk: read-only from the start")
    for k in range(tries):
        film, spool = Film(k), rig.new_spool()
        before = on_a_disk_of("1m", spool, more='mount -o remount,ro "$0"')
        finished(rig, rig.push(film, spool, before=before, count=20, end="finalize"), film, tally)
    return tally


def no_folder(rig: Rig, tries: int) -> Tally:
    """A spool folder that can't be created because a file has its name."""
    tally = Tally("disk: the spool's folder can't be made")
    for k in range(tries):
        film, spool = Film(k), rig.new_spool()
        spool.write_text("in the way")
        finished(rig, rig.push(film, Path(spool / "spool"), count=20, end="finalize"), film, tally)
    return tally
