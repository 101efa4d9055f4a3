"""Scheduling policy and core affinity of encoder threads; other threads keep theirs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from atomstream.system.scheduling import CoreAffinity, use_batch_policy
from tests.system.tuning_marks import needs


def policy() -> str:
    """The scheduling policy of the calling thread; only Linux has several."""
    if sys.platform != "linux":
        return "the only one"
    names = {os.SCHED_OTHER: "other", os.SCHED_BATCH: "batch", os.SCHED_IDLE: "idle"}
    return names[os.sched_getscheduler(0)]


def be_idle() -> None:
    """Set the policy of ``chrt --idle``."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def policies(*calls: Callable[[], None]) -> list[str]:
    """The policy of a new thread after each of the calls."""
    seen: list[str] = []

    def work() -> None:
        for call in calls:
            call()
            seen.append(policy())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return seen


def on_linux(name: str) -> str:
    """The expected policy: ``name`` on Linux."""
    return name if sys.platform == "linux" else "the only one"


@needs("batch")
def test_a_computing_thread_is_a_batch_thread() -> None:
    """The calling thread gets SCHED_BATCH; the thread that started it keeps its policy."""
    before = policy()
    assert policies(use_batch_policy) == [on_linux("batch")]
    assert policy() == before


def test_a_chosen_policy_stays() -> None:
    """A process that the user runs as idle or real-time keeps that policy."""
    assert policies(be_idle, use_batch_policy) == 2 * [on_linux("idle")]


def cores_of_threads(threads: int, usable: set[int]) -> list[tuple[set[int], set[int]]]:
    """The cores of each of ``threads``: while it is busy, and after it was idle, in a process with ``usable`` cores."""
    seen: list[tuple[set[int], set[int]]] = []

    def work(number: int) -> None:
        if sys.platform == "linux":
            core = CoreAffinity(number, threads, patience=2)
            for _ in range(3):
                core.pin_if_busy()
            kept = os.sched_getaffinity(0)
            core.unpin()
            core.pin_if_busy()  # a chunk now and then
            seen.append((kept, os.sched_getaffinity(0)))

    for number in range(threads):
        thread = threading.Thread(target=work, args=(number,))
        thread.start()
        thread.join()
    return seen


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a thread choose its cores")


@linux
@needs("affinity")
def test_as_many_busy_threads_as_cores_are_pinned_to_one_each() -> None:
    """Each busy thread is pinned to a different core of the process; an idle one to none."""
    usable = os.sched_getaffinity(0)
    seen = cores_of_threads(len(usable), usable)
    assert sorted(len(kept) for kept, _ in seen) == [1] * len(usable)
    assert set().union(*(kept for kept, _ in seen)) == usable
    assert [after for _, after in seen] == [usable] * len(usable)
    assert os.sched_getaffinity(0) == usable


@linux
def test_other_numbers_of_threads_are_not_pinned() -> None:
    """With fewer or more threads than cores the system places them."""
    usable = os.sched_getaffinity(0)
    for threads in {1, len(usable) + 1} - {len(usable)}:
        assert cores_of_threads(threads, usable) == [(usable, usable)] * threads
