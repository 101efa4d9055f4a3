"""The check for threads that a test leaves behind knows the pools of servers that run longer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.leftovers import left_threads


def test_a_further_thread_of_an_older_pool_is_no_leftover() -> None:
    """A new pool and a new thread are reported; the second thread of a pool that had one before is not."""
    release = threading.Event()
    with ThreadPoolExecutor(2, "a-pool") as older, ThreadPoolExecutor(1, "b-pool") as newer:
        older.submit(release.wait)
        before = set(threading.enumerate())
        older.submit(release.wait)
        newer.submit(release.wait)
        alone = threading.Thread(target=release.wait, name="alone")
        alone.start()
        try:
            assert sorted(left_threads(before)) == ["thread 'alone'", "thread 'b-pool_0'"]
        finally:
            release.set()
            alone.join()


@pytest.mark.parametrize(("name", "left"), [("asyncio-waitpid-{}", []), ("Thread-{}", ["thread 'Thread-8'"])])
def test_a_further_wait_for_a_child_is_no_leftover(name: str, left: list[str]) -> None:
    """The module's server may start another child process; other threads with a number are reported."""
    release = threading.Event()
    threads = [threading.Thread(target=release.wait, name=name.format(number)) for number in (7, 8)]
    threads[0].start()
    before = set(threading.enumerate())
    threads[1].start()
    try:
        assert left_threads(before) == left
    finally:
        release.set()
        for thread in threads:
            thread.join()
