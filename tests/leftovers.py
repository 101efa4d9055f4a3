"""Fixtures that fail a test which leaves asyncio tasks, threads, sockets or changed logging behind."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

GRACE_S = 5.0
"""Longest wait for tasks, threads and sockets that are just closing, in s."""

FILES = Path("/proc/self/fd")
"""Linux: a link for each open file of this process."""

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


NUMBER = re.compile(r"(_|(?<=^asyncio-waitpid)-)\d+$")


@pytest.fixture(autouse=True)
def no_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves asyncio tasks, threads, sockets or changed logging behind."""
    threads, sockets, logs = set(threading.enumerate()), open_sockets(), log_settings()
    if runs_in_loop(request):
        request.getfixturevalue("no_tasks_left")
    yield
    left = wait_until_empty(lambda: left_threads(threads) + left_sockets(sockets))
    changed = sorted(name for name, settings in log_settings().items() if settings != logs.get(name, UNSET))
    restore_logging(logs)
    if left:
        pytest.fail(f"the test left running: {', '.join(left)}")
    if changed:
        pytest.fail(f"the test left loggers with other levels, handlers or filters: {', '.join(changed)}")


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Restore the loggers and ``warnings.showwarning`` after a test that runs a whole command in this process."""
    logs, shown = log_settings(), warnings.showwarning
    yield
    restore_logging(logs)
    warnings.showwarning = shown


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


LogSettings = tuple[int, bool, tuple[logging.Handler, ...]]
"""Level, disabled, and handlers of one logger."""

UNSET: LogSettings = (logging.NOTSET, False, ())


def log_settings() -> dict[str, LogSettings]:
    """The settings of the package's loggers by name; a changed one hides the messages of all later tests."""
    names = (
        "atomstream",
        *(name for name in logging.root.manager.loggerDict if name.startswith("atomstream.")),
    )
    loggers = ((name, logging.getLogger(name)) for name in names)
    return {name: (log.level, log.disabled, tuple(log.handlers)) for name, log in loggers}


def restore_logging(before: dict[str, LogSettings]) -> None:
    """Give the package's loggers the settings of ``before``; those made since then, the initial ones."""
    for name, settings in log_settings().items():
        if settings == before.get(name, UNSET):  # to set a level would clear a cache of every logger
            continue
        log = logging.getLogger(name)
        level, log.disabled, handlers = before.get(name, UNSET)
        log.setLevel(level)
        log.handlers[:] = handlers


def left_threads(before: set[threading.Thread]) -> list[str]:
    """The threads that a test started and that still run, as text.

    A further thread of a pool that had one before is not reported: the pool belongs to a server of the whole module.
    The same holds for the threads that wait for such a server's child processes.
    """
    pools = {_pool(thread) for thread in before} - {""}
    new = [thread for thread in threading.enumerate() if thread not in before]
    return [
        f"thread {thread.name!r}"
        for thread in new
        if not thread.name.startswith(LASTING_THREADS) and _pool(thread) not in pools
    ]


def _pool(thread: threading.Thread) -> str:
    """The name of a thread without its number; empty if it has none."""
    return NUMBER.sub("", thread.name) if NUMBER.search(thread.name) else ""


def open_sockets() -> dict[int, str]:
    """The identity of each socket of this process, by its file descriptor.

    On Linux it is the inode, which costs a hundredth of a list of all connections of the computer.
    """
    if not FILES.is_dir():
        return {c.fd: f"{c.laddr} {c.raddr}" for c in psutil.Process().net_connections(kind="inet")}
    found, folder = (
        {},
        f"{FILES}/",
    )  # text: this runs three times in each test, and a Path would take half of its time
    for number in os.listdir(FILES):
        with suppress(OSError):  # the file of the list itself is closed by now
            if (link := os.readlink(folder + number)).startswith("socket:"):
                found[int(number)] = link
    return found


def left_sockets(before: dict[int, str]) -> list[str]:
    """The internet sockets that a test opened and that are still open, as text."""
    known = set(before.values())
    new = {number for number, name in open_sockets().items() if name not in known}
    if FILES.is_dir():
        new = {number for number in new if is_internet(number)}
    if not new:
        return []
    found = psutil.Process().net_connections(kind="inet")
    return sorted(
        f"socket {c.fd} {c.laddr}->{c.raddr} {c.status}" for c in found if c.fd in new and c.status != "CLOSE"
    )


def is_internet(number: int) -> bool:
    """True if the file descriptor is an open internet socket. Each event loop has a pair of Unix sockets.

    The system's list of connections, which states this too, takes 10 ms.
    """
    try:
        found = socket.socket(fileno=number)
    except OSError:  # it is closed by now
        return False
    try:
        return found.family in (socket.AF_INET, socket.AF_INET6)
    finally:
        found.detach()


def wait_until_empty(leftovers: Callable[[], list[str]]) -> list[str]:
    """Wait until ``leftovers()`` is empty, at most ``GRACE_S``; return what remains."""
    deadline = time.monotonic() + GRACE_S
    while (left := leftovers()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
