"""The fixtures that all tests use report tasks, threads and sockets that a test leaves open."""

from __future__ import annotations

import gc
import sys

import numpy  # noqa: F401
import pytest

from tests.paths import REPO

pytest_plugins = ["pytester"]

CONFTEST = """
from tests import leftovers
from tests.leftovers import no_leftovers, no_tasks_left
leftovers.GRACE_S = 0.1
"""
LEAKY = """
import asyncio, socket, threading

kept = []

async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(9)))

def test_thread():
    threading.Thread(target=threading.Event().wait, args=[9], daemon=True, name="leak").start()

def test_socket():
    kept.append(socket.create_server(("127.0.0.1", 0)))

def test_nothing():
    pass
"""


@pytest.mark.slow
def test_leftovers_fail(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that leaves a task, a thread or a socket is reported as failed; one that leaves nothing is not."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(LEAKY)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, errors=3)
    for left in ("asyncio tasks", "running: thread 'leak'", "running: socket"):
        result.stdout.fnmatch_lines([f"*the test left {left}*"])


def test_threads_are_limited_before_numpy_is_imported() -> None:
    """numpy reads the limits of ``tests/__init__.py`` at its import, so no plugin of pytest may import it earlier."""
    modules = list(sys.modules)
    assert modules.index("tests") < modules.index("numpy")


def test_collected_tests_are_no_work_for_the_garbage_collector(request: pytest.FixtureRequest) -> None:
    """The tests and imported modules are frozen; what a test makes is collected as usual."""
    assert gc.get_freeze_count() > len(request.session.items)
    assert not any(found is request.node for found in gc.get_objects())
