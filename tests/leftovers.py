"""The fixtures that fail a test which leaves asyncio tasks, threads or sockets."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import psutil
import pytest

GRACE_S = 5.0
"""How long a test's leftovers may take to go; nothing is measured by it, it only bounds the wait."""

# Threads that outlive a test by design, by the beginning of their names: zarr's loop and pool live as long
# as the interpreter, the loop's default executor as long as the loop, anyio's until the loop goes idle.
LASTING_THREADS = ("zarr", "asyncio_", "AnyIO worker thread", "pytest_timeout", "ThreadPoolExecutor-")


@pytest.fixture(autouse=True)
def no_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves asyncio tasks, threads or sockets fails."""
    threads, sockets = set(threading.enumerate()), open_sockets()
    if runs_in_loop(request):
        request.getfixturevalue("no_tasks_left")
    yield
    left = wait_until_empty(lambda: left_threads(threads) + sorted(open_sockets() - sockets))
    if left:
        pytest.fail(f"the test left running: {', '.join(left)}")


@pytest.fixture
async def no_tasks_left() -> AsyncIterator[None]:
    """At its end no task but its own is alive in the loop of the test."""
    yield
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    pending = (await asyncio.wait(tasks, timeout=GRACE_S))[1] if tasks else set()
    if pending:
        pytest.fail(f"the test left asyncio tasks: {', '.join(map(repr, pending))}")


def runs_in_loop(request: pytest.FixtureRequest) -> bool:
    """Whether the test is a coroutine (hypothesis hides it one level deeper)."""
    function = getattr(request, "function", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return inspect.iscoroutinefunction(inner)


def left_threads(before: set[threading.Thread]) -> list[str]:
    """Threads that a test started and that still run."""
    new = [thread for thread in threading.enumerate() if thread not in before]
    return [f"thread {thread.name!r}" for thread in new if not thread.name.startswith(LASTING_THREADS)]


def open_sockets() -> set[str]:
    """This process's own internet sockets, as text that tells them apart."""
    found = psutil.Process().net_connections(kind="inet")
    return {f"socket {c.fd} {c.laddr}->{c.raddr} {c.status}" for c in found if c.status != "CLOSE"}


def wait_until_empty(leftovers: Callable[[], list[str]]) -> list[str]:
    """Give what is closing the time to close; return what stays."""
    deadline = time.monotonic() + GRACE_S
    while (left := leftovers()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
