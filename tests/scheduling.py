"""How many processes a parallel run has, and how it distributes the tests among them.

The tests are distributed one by one, except those that one process must run.

pytest-xdist's ``--dist loadgroup`` does not group them: it appends the group to a private attribute of the test, which
pytest 9 does not use for the name of the test.
"""

from __future__ import annotations

import os
from functools import cache

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.paths import REPO

HEAVY = ("tests/browser/", "tests/benchmarks/")
"""Folders whose tests use several processor cores each: one of their tests runs at a time."""

SHARED = 'scope="module"'
"""What a file contains whose tests share a set-up: one process runs all of them, and makes it once."""


@cache
def with_shared_setup() -> frozenset[str]:
    """The test files, relative to the repository, that set something up for all their tests."""
    found = (path for path in (REPO / "tests").rglob("test_*.py") if SHARED in path.read_text("utf-8"))
    return frozenset(path.relative_to(REPO).as_posix() for path in found)


class Scheduling(LoadScopeScheduling):
    """The folders ``HEAVY`` are one unit of work; so is each file with a shared set-up, and every other test.

    The scheduler starts with the largest units.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(HEAVY):
            return "heavy"
        file = nodeid.partition("::")[0]
        return file if file in with_shared_setup() else nodeid


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling | None:
    """Use this scheduler, unless the command line selects another one by ``--dist``."""
    return Scheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One process more than cores for ``-n auto``, because tests wait for the disk, timers and other processes.

    In tests of the server and the spool these waits are a third of the time of a process. The variable of
    pytest-xdist for this number is not overridden.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return (psutil.cpu_count(logical=False) or os.cpu_count() or 1) + 1
