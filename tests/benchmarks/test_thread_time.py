"""The parts of a callback's duration."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.thread_time import ThreadClock, ThreadTime
from benchmarks.workers.busy_loop import spin

# /proc/<pid>/task/<tid>/schedstat and pinning to a core are Linux's; elsewhere the queue is part of the rest.
QUEUE = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux reports the time in the run queue"
)


def test_the_rest_is_neither_work_nor_a_queue() -> None:
    """The parts add up to the duration, and the rest is never negative."""
    hold = ThreadTime(10.0, 5.0, 2.0).since(ThreadTime(4.0, 3.0, 1.0))
    assert hold == ThreadTime(6.0, 2.0, 1.0)
    assert hold.rest_s == 3.0
    assert hold.milliseconds() == {"wall": 6000.0, "cpu": 2000.0, "queued": 1000.0, "rest": 3000.0}
    assert ThreadTime(1.0, 1.1, 0.0).rest_s == 0.0


def test_sleep_is_rest() -> None:
    """The time of a sleeping thread is neither CPU time nor waiting for a core."""
    clock = ThreadClock()
    before = clock.now()
    threading.Event().wait(0.2)
    hold = clock.now().since(before)
    clock.close()
    assert hold.wall_s >= 0.19
    assert hold.rest_s > hold.wall_s / 2


@QUEUE
def test_waiting_for_a_busy_core_is_queued_time() -> None:
    """A thread that shares its core with a busy process reports how long it waited."""
    with shared_core():
        hold = at_work(cpu_s=0.5)
    assert hold.queued_s > 0.05
    assert hold.cpu_s == pytest.approx(0.5, abs=0.1)


@QUEUE
def test_time_of_another_process_is_not_a_gap() -> None:
    """The time in which another process had the core is not counted as a gap."""
    with shared_core():
        _, total = spin(1.0)
    assert total < 0.25


@contextmanager
def shared_core() -> Iterator[None]:
    """Pin this thread to one core, together with a busy process."""
    cores = os.sched_getaffinity(0)
    core = min(cores)
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); print(flush=True)\nwhile 1: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()  # it is running from here on
            os.sched_setaffinity(0, {core})
            yield
        finally:
            os.sched_setaffinity(0, cores)
            busy.kill()


def at_work(cpu_s: float) -> ThreadTime:
    """Use ``cpu_s`` of CPU time and return the times of the thread."""
    clock, begun = ThreadClock(), time.thread_time()
    before = clock.now()
    while time.thread_time() - begun < cpu_s:
        pass
    hold = clock.now().since(before)
    clock.close()
    return hold
