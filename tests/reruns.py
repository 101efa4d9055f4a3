"""In CI a test that fails is run once more (``--reruns 1``): what failed is printed, and only a few may pass so."""

from __future__ import annotations

from typing import Any, Final

import pytest

MOST: Final = 5
"""Most tests of a run that may pass at the second try; with more of them the run fails."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print why tests failed at their first try: the cause may be a race in the product."""
    reports = terminalreporter.stats.get("rerun", [])
    if reports:
        terminalreporter.section("failed at the first try")
    for report in reports:
        terminalreporter.section(report.nodeid, "-")
        terminalreporter.write_line(report.longreprtext)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if too many tests failed at their first try."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and len(reporter.stats.get("rerun", [])) > MOST:
        reporter.write_line(f"more than {MOST} tests failed at their first try", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
