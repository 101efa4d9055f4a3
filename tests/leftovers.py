"""Fixtures that fail a test which leaves asyncio tasks, threads or sockets behind."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import psutil
import pytest

GRACE_S = 5.0
"""Longest wait for tasks, threads and sockets that are just closing, in s."""

# Threads that outlive a test by design, by the prefix of their names: zarr's event loop and pool live as long as the
# interpreter, the event loop's default executor as long as the loop, anyio's until the loop is idle. Those of p4p's
# servers have no name and live as long as the interpreter, as do threads of C libraries that call Python (Dummy).
LASTING_THREADS = (
    "zarr",
    "asyncio_",
    "AnyIO worker thread",
    "pytest_timeout",
    "ThreadPoolExecutor-",
    "None[",
    "Dummy-",
)


@pytest.fixture(autouse=True)
def no_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves asyncio tasks, threads or sockets behind."""
    threads, sockets = set(threading.enumerate()), open_sockets()
    if runs_in_loop(request):
        request.getfixturevalue("no_tasks_left")
    yield
    left = wait_until_empty(lambda: left_threads(threads) + sorted(open_sockets() - sockets))
    if left:
        pytest.fail(f"the test left running: {', '.join(left)}")


@pytest.fixture
async def no_tasks_left() -> AsyncIterator[None]:
    """Fail a test whose event loop still has tasks at its end."""
    async with no_new_tasks():
        yield


@asynccontextmanager
async def no_new_tasks() -> AsyncIterator[None]:
    """Fail the test if tasks that began in the block still run at its end."""
    before = asyncio.all_tasks()
    yield
    tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
    pending = (await asyncio.wait(tasks, timeout=GRACE_S))[1] if tasks else set()
    if pending:
        pytest.fail(f"the test left asyncio tasks: {', '.join(map(repr, pending))}")


def runs_in_loop(request: pytest.FixtureRequest) -> bool:
    """True if the test is a coroutine; hypothesis wraps it in another function."""
    function = getattr(request, "function", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return inspect.iscoroutinefunction(inner)


def left_threads(before: set[threading.Thread]) -> list[str]:
    """The threads that a test started and that still run, as text."""
    new = [thread for thread in threading.enumerate() if thread not in before]
    return [f"thread {thread.name!r}" for thread in new if not thread.name.startswith(LASTING_THREADS)]


def open_sockets() -> set[str]:
    """This process's internet sockets, each as a unique text."""
    found = psutil.Process().net_connections(kind="inet")
    return {f"socket {c.fd} {c.laddr}->{c.raddr} {c.status}" for c in found if c.status != "CLOSE"}


def wait_until_empty(leftovers: Callable[[], list[str]]) -> list[str]:
    """Wait until ``leftovers()`` is empty, at most ``GRACE_S``; return what remains."""
    deadline = time.monotonic() + GRACE_S
    while (left := leftovers()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
