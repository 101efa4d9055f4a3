"""Each benchmark runs. Its figures are not checked: they need a quiet machine."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import machine, runner
from benchmarks.report import Goal, Row, table
from benchmarks.runner import Plan
from tests.cells import grid
from tests.paths import REPO

# Read here, because the environment of each test is cleaned. Empty omits the other program: a test installs nothing.
RIVALS = {name: os.environ.get(name, "") for name in ("ATOMSTREAM_PEER_PYTHON", "ATOMSTREAM_ACQUIRE_PYTHON")}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def plan() -> Iterator[Plan]:
    """The plan of ``--quick``, one for all benchmarks: runs that several of them share are then done once."""
    with runner.planned(["--quick"]) as made:
        yield made


NAMES = (
    "push_latency", "push_frame_jitter", "cameras", "cpu_per_gb", "throughput", "memory_ceiling", "import_time",
    "host_gaps", "loop_stall", "soak_120fps", "many_streams", "server_ingest", "slow_uplink", "charts", "spool_cost",
    "live_latency", "files",
)  # fmt: skip
SLOW = ("push_frame_jitter", "many_streams", "slow_uplink", "spool_cost", "live_latency")


@pytest.mark.parametrize("name", grid(NAMES, always=set(NAMES) - set(SLOW)))
def test_it_runs(
    name: str, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``python -m benchmarks.<name> --quick`` ends without an error and prints a table."""

    @contextmanager
    def the_plan(_arguments: list[str] | None = None) -> Iterator[Plan]:
        yield plan

    for variable, python in RIVALS.items():
        monkeypatch.setenv(variable, python)
    monkeypatch.setattr(runner, "planned", the_plan)
    module = f"benchmarks.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)  # imported by another one: runpy would warn
    runpy.run_module(module, run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_the_command_line() -> None:
    """``--quick`` is accepted by the command, and makes a small plan whose folders are deleted at the end.

    The command is that of a benchmark which :func:`test_it_runs` leaves out.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.analysis_cpu", "--quick"],
        cwd=REPO, capture_output=True, text=True, check=False, timeout=170,
        env={**os.environ, **RIVALS},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "analysis of 48x64" in done.stdout
    with runner.planned(["--quick"]) as made:
        assert (made.quick, made.sizes()) == (True, [(48, 64)])
        assert made.shm.is_dir()
        assert made.disk.is_dir()
    assert not made.shm.exists()
    assert not made.disk.exists()


def test_a_row_shows_whether_its_goal_is_reached() -> None:
    """Ratios are computed per run and the median decides; without the other program there is no result."""
    row = Row("push", "ms", {"ours": [10.0, 30.0, 12.0], "bare": [10.0, 10.0, 10.0]}, [Goal(1.5, "bare")])
    assert row.ratios(row.goals[0]) == [1.0, 3.0, 1.2]
    assert row.reached(row.goals[0]) is True
    assert row.reached(Goal(6.0, "peer", at_least=True)) is None
    assert row.reached(Goal(20.0, at_least=True)) is False
    assert "12 (10 .. 30)" in table([row])
    assert "1.2 (1 .. 3)" in table([row])


@pytest.mark.parametrize(("bare", "verdict"), [([7.0], "| NO (nor bare) |"), ([2.0], "| NO |")])
def test_a_goal_that_bare_misses_too_is_marked(bare: list[float], verdict: str) -> None:
    """If the bare limit misses an absolute goal too, the table shows that."""
    row = Row("held", "ms", {"ours": [9.0], "bare": bare}, [Goal(5.0)])
    assert verdict in table([row])
    assert "nor bare" not in table([Row("push", "ms", {"ours": [9.0], "bare": bare}, [Goal(1.1, "bare")])])


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [((5, 1000), (25, 2000), "2.0% of their time"), ((0, 1000), (0, 2000), "nothing is reported")],
)
def test_steal_time_is_reported(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: tuple[int, int], line: str
) -> None:
    """Steal time is a share of the time since the start; without a report of the host it is unknown."""
    times = iter([before, after])
    monkeypatch.setattr(machine, "_processor_times", lambda: next(times))
    assert line in machine.Host().line()
