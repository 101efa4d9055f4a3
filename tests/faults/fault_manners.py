"""Rows of the fault campaign: signals, exits, forks, and processes that share a spool (P5, P14, P20, P22)."""

from __future__ import annotations

import signal
from random import Random

from tests.faults.fault_deaths import after_death, finished
from tests.faults.fault_helpers import Film, Tally
from tests.faults.fault_rig import Rig


def signalled(rig: Rig, number: signal.Signals, tries: int, draw: Random) -> Tally:
    """A signal while chunks are pushed during an outage: SIGINT as by Ctrl-C, or SIGTERM.

    After SIGINT all accepted chunks are on disk; after SIGTERM the durable ones.
    """
    tally = Tally(f"client: {number.name} while it pushes in an outage")
    interrupt = number == signal.SIGINT
    for _ in range(tries):
        film, spool = Film(draw.randrange(2**31)), rig.new_spool()
        durability = "memory" if interrupt else "disk"
        pusher = rig.push(
            film, spool, count=10_000, pause_at=0, end="hold", settings={"durability": durability}
        )
        pusher.read("paused")
        rig.server.pause()
        pusher.send_line()
        for _ in range(draw.randrange(60)):
            pusher.read("")
        pusher.process.send_signal(number)
        steps = pusher.ended()
        rig.server.go_on()
        after_death(rig, spool, steps, film, tally, durable=True)
    return tally


def exit_without_close(rig: Rig, tries: int) -> Tally:
    """A script that ends without close(), during an outage and when the server returns: no chunk is lost.

    The buffer is small, so most chunks are read back from disk while the interpreter exits.
    """
    tally = Tally("client: the interpreter exits without close()")
    for k in range(tries):
        film, spool = Film(k), rig.new_spool()
        pusher = rig.push(
            film, spool, count=80, pause_at=79, end="exit",
            settings={"buffer_bytes": 60_000, "request_timeout_s": 1.0},
        )  # fmt: skip
        pusher.read("stream")
        rig.server.pause()
        pusher.read("paused")
        if k % 2:
            rig.server.go_on()
        pusher.send_line()
        steps = pusher.ended()
        rig.server.go_on()
        if pusher.process.returncode or "at exit" in pusher.errors or "CRITICAL" in pusher.errors:
            tally.count_failure("lost", f"the exit was not clean: {pusher.errors[-500:]}")
        after_death(rig, spool, steps, film, tally, durable=True)
    return tally


def forked(rig: Rig, tries: int) -> Tally:
    """A script that forks during uploads: calls in the child fail, the parent continues."""
    tally = Tally("client: fork in the middle of a stream")
    for k in range(tries):
        film = Film(k)
        pusher = rig.push(film, rig.new_spool(), count=40, fork_at=10 + k, end="finalize")
        steps = pusher.ended()
        if steps.words("child_got") != ["ClosedError"] or steps.words("child_left_with") != ["0"]:
            tally.count_failure(
                "lost", f"the child: {steps.words('child_got')}, {steps.words('child_left_with')}"
            )
        finished(rig, pusher, film, tally)
    return tally


def shared_spool(rig: Rig, processes: int) -> Tally:
    """Processes with one stream each share a spool, and one is killed: the others continue, and all chunks arrive."""
    tally = Tally("two and more processes on one spool, one killed")
    spool, films = rig.new_spool(), [Film(k) for k in range(processes)]
    first = rig.push(films[0], spool, count=60, pause_at=30, end="hold", settings={"durability": "disk"})
    first.read("paused")
    others = [rig.push(film, spool, count=60, end="finalize") for film in films[1:]]
    steps = first.kill()
    for pusher, film in zip(others, films[1:], strict=True):
        finished(rig, pusher, film, tally)
    after_death(rig, spool, steps, films[0], tally, durable=True)
    return tally


def contested_stream(rig: Rig, tries: int) -> Tally:
    """A second process opens a stream that the first one holds: it is refused, and the first one finishes."""
    tally = Tally("two processes want one stream")
    for k in range(tries):
        film, spool = Film(k), rig.new_spool()
        first = rig.push(film, spool, count=20, pause_at=10, end="finalize")
        data_id = first.read("stream").split()[1]
        first.read("paused")
        second = rig.push(film, spool, data_id=data_id, count=5)
        second.ended()
        if second.process.returncode == 0 or "SpoolLockedError" not in second.errors:
            tally.count_failure("duplicated", "a second process could open the stream")
        first.send_line()
        finished(rig, first, film, tally)
    return tally


def pushed_twice(rig: Rig, tries: int) -> Tally:
    """Each chunk is pushed twice, and again by the next process: each one is stored once."""
    tally = Tally("client: the same chunks pushed again, after a crash too")
    for k in range(tries):
        film, spool = Film(k), rig.new_spool()
        settings = {"durability": "disk"}
        steps = rig.push(film, spool, count=20, repeat=True, end="hold", settings=settings)
        steps.read("held")
        lines = steps.kill()
        again = rig.push(
            film, spool, data_id=lines.data_id, count=30, from_start=True, repeat=True, end="finalize"
        )
        finished(rig, again, film, tally)
    return tally
