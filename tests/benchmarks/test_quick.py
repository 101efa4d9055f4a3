"""Each benchmark runs. Its figures are not checked: they need a quiet machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks import machine
from benchmarks.report import Goal, Row, table
from tests.paths import REPO

# Read here, because the environment of each test is cleaned. Empty omits the other program: a test installs nothing.
RIVALS = {name: os.environ.get(name, "") for name in ("ATOMSTREAM_PEER_PYTHON", "ATOMSTREAM_ACQUIRE_PYTHON")}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    "name",
    [
        "push_latency", "push_frame_jitter", "cpu_per_gb", "throughput", "memory_ceiling", "import_time",
        "host_gaps", "loop_stall", "soak_120fps", "many_streams", "server_ingest", "slow_uplink", "charts",
        "spool_cost", "live_latency", "analysis_cpu",
    ],
)  # fmt: skip
def test_it_runs(name: str) -> None:
    """``python -m benchmarks.<name> --quick`` exits with 0 and prints a table."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"],
        cwd=REPO, capture_output=True, text=True, check=False, timeout=170,
        env={**os.environ, **RIVALS},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip()


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
