"""Scheduling policy of encoder threads; other threads keep theirs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from atomstream.system.scheduling import use_batch_policy
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
