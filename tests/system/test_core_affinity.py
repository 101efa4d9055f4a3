"""Encoder threads tell the system that they compute, and where; nobody else's scheduling is touched."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from atomstream.system.scheduling import CoreAffinity, use_batch_policy
from tests.system.tuning_marks import needs


def policy() -> str:
    """Of the calling thread; Linux alone has more than one."""
    if sys.platform != "linux":
        return "the only one"
    names = {os.SCHED_OTHER: "other", os.SCHED_BATCH: "batch", os.SCHED_IDLE: "idle"}
    return names[os.sched_getscheduler(0)]


def be_idle() -> None:
    """As under ``chrt --idle``."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def policies(*calls: Callable[[], None]) -> list[str]:
    """The policy of a thread of its own after each of the calls."""
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
    """The policy expected there."""
    return name if sys.platform == "linux" else "the only one"


@needs("batch")
def test_a_computing_thread_is_a_batch_thread() -> None:
    """That thread is scheduled as a batch, and the one that started it as before."""
    before = policy()
    assert policies(use_batch_policy) == [on_linux("batch")]
    assert policy() == before


def test_a_chosen_policy_stays() -> None:
    """Who runs a process as idle, or in real time, keeps that."""
    assert policies(be_idle, use_batch_policy) == 2 * [on_linux("idle")]


def cores_of_threads(threads: int, usable: set[int]) -> list[tuple[set[int], set[int]]]:
    """Where each of ``threads`` may run in the midst of much work, and after a rest, of a process on ``usable``."""
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
def test_as_many_encoders_as_cores_keep_to_one_each() -> None:
    """Each of them has a core of its own, among those that the process may use, until it has a rest."""
    usable = os.sched_getaffinity(0)
    seen = cores_of_threads(len(usable), usable)
    assert sorted(len(kept) for kept, _ in seen) == [1] * len(usable)
    assert set().union(*(kept for kept, _ in seen)) == usable
    assert [after for _, after in seen] == [usable] * len(usable)
    assert os.sched_getaffinity(0) == usable


@linux
def test_other_numbers_of_encoders_go_where_there_is_room() -> None:
    """With fewer or more encoders than cores the system places them."""
    usable = os.sched_getaffinity(0)
    for threads in {1, len(usable) + 1} - {len(usable)}:
        assert cores_of_threads(threads, usable) == [(usable, usable)] * threads
