"""Encoder threads tell the system that they compute; nobody else's scheduling is touched."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from atomstream.pipeline.scheduling import compute_in_batches


def policies(*calls: object) -> list[int]:
    """The policy of a thread of its own after each of the calls."""
    seen: list[int] = []

    def work() -> None:
        for call in calls:
            assert callable(call)
            call()
            seen.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="a policy of Linux")
def test_a_computing_thread_is_a_batch_thread() -> None:
    """That thread is scheduled as a batch, and the one that started it as before."""
    assert policies(compute_in_batches) == [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.skipif(sys.platform != "linux", reason="a policy of Linux")
def test_a_chosen_policy_stays() -> None:
    """Who runs a process as idle, or in real time, keeps that."""
    idle = lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # noqa: E731
    assert policies(idle, compute_in_batches) == [os.SCHED_IDLE, os.SCHED_IDLE]
