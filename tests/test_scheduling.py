"""The parallel test run: tests that use several cores run one at a time; all others are distributed freely."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.paths import REPO
from tests.scheduling import (
    HEAVY,
    Scheduling,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
    with_shared_setup,
)


def test_heavy_tests_are_one_unit_of_work() -> None:
    """All tests of the heavy folders go to one process; any two others may go to different ones."""
    scope_of = Scheduling.__new__(Scheduling)._split_scope
    names = [f"{folder}{file.name}::test" for folder in HEAVY for file in (REPO / folder).glob("test_*.py")]
    assert len(names) > 5
    assert {scope_of(name) for name in names} == {"heavy"}
    others = [f"tests/shard/test_shard.py::test[{number}]" for number in range(3)]
    assert len({scope_of(name) for name in [*others, names[0]]}) == 4


def test_files_with_a_shared_setup_are_one_unit_each() -> None:
    """All tests of such a file go to one process, which makes the set-up once."""
    scope_of = Scheduling.__new__(Scheduling)._split_scope
    files = {file for file in with_shared_setup() if not file.startswith(HEAVY)}
    assert "tests/faults/test_campaign.py" in files
    assert "tests/shard/test_shard.py" not in files
    for file in files:
        assert {scope_of(f"{file}::test[a::b]"), scope_of(f"{file}::other")} == {file}


@pytest.mark.parametrize("dist", ["worksteal", "loadfile", "no"])
def test_another_distribution_can_be_selected(dist: str) -> None:
    """``--dist`` on the command line selects one of pytest-xdist's schedulers."""
    config: Any = SimpleNamespace(getoption=lambda _: dist)
    assert pytest_xdist_make_scheduler(config, None) is None


def test_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than cores, unless the user has set the variable of pytest-xdist."""
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
    assert pytest_xdist_auto_num_workers() == (psutil.cpu_count(logical=False) or psutil.cpu_count()) + 1
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "5")
    assert pytest_xdist_auto_num_workers() is None
