"""Encoder threads tell the system that they compute; nobody else's scheduling is touched."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from atomstream.pipeline.scheduling import compute_in_batches


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


def test_a_computing_thread_is_a_batch_thread() -> None:
    """That thread is scheduled as a batch, and the one that started it as before."""
    before = policy()
    assert policies(compute_in_batches) == [on_linux("batch")]
    assert policy() == before


def test_a_chosen_policy_stays() -> None:
    """Who runs a process as idle, or in real time, keeps that."""
    assert policies(be_idle, compute_in_batches) == 2 * [on_linux("idle")]
