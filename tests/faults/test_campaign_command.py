"""The campaign's command: a table, and an exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.paths import REPO


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_table_is_printed() -> None:
    """``python -m benchmarks.campaign --quick ROW`` prints the header, the row and the sum, and exits with 0."""
    command = [sys.executable, "-m", "benchmarks.campaign", "--quick", "no_folder"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    head, _, row, *_ = done.stdout.splitlines()
    names = [cell.strip() for cell in head.split("|")[1:-1]]
    cells = dict(zip(names, (cell.strip() for cell in row.split("|")[1:-1]), strict=True))
    assert (cells["chunks"], cells["stored"]) == ("20", "20")
    assert [cells[name] for name in ("lost", "corrupted", "duplicated")] == ["0", "0", "0"]
    assert "1 faults, 1 tries, 0 not clean" in done.stdout
