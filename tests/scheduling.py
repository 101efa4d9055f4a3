"""How a parallel run distributes the tests: one by one, except those that use several cores, which share one process.

pytest-xdist's ``--dist loadgroup`` does not group them: it appends the group to a private attribute of the test, which
pytest 9 does not use for the name of the test.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

HEAVY = ("tests/browser/", "tests/benchmarks/")
"""Folders whose tests use several processor cores each: one of their tests runs at a time."""


class Scheduling(LoadScopeScheduling):
    """All tests of the folders ``HEAVY`` are one unit of work, which starts first; every other test is one unit."""

    def _split_scope(self, nodeid: str) -> str:
        return "heavy" if nodeid.startswith(HEAVY) else nodeid


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling | None:
    """Use this scheduler, unless the command line selects another one by ``--dist``."""
    return Scheduling(config, log) if config.getoption("dist") == "load" else None
