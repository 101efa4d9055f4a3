"""The fixtures that every test stands on do notice what is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = "import leftovers\nfrom leftovers import no_leftovers, no_tasks_left\nleftovers.GRACE_S = 0.1\n"


@pytest.fixture
def leaky(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A test session of its own with nothing but the leak fixtures."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (
            "import asyncio\nasync def test_it():\n    global t; t = asyncio.create_task(asyncio.sleep(9))",
            "tasks",
        ),
        (
            "import threading\ndef test_it():\n    threading.Thread(target=threading.Event().wait, args=[9],"
            " daemon=True, name='leak').start()\n",
            "thread 'leak'",
        ),
        (
            "import socket\ndef test_it():\n    global s\n    s = socket.create_server(('127.0.0.1', 0))\n",
            "socket",
        ),
    ],
    ids=["task", "thread", "socket"],
)
def test_leftovers_fail(leaky: pytest.Pytester, body: str, named: str) -> None:
    """A test that leaves a task, a thread or a socket is reported as failed."""
    leaky.makepyfile(body)
    result = leaky.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"*the test left*{named}*"])
