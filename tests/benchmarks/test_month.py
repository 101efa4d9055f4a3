"""``benchmarks.month`` in its shortest form: kills of the server lose nothing that it has acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.month import arguments, report, run


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_short_month(memory_path: Path) -> None:
    """Streams, pages, deletions, streams that nobody ends, and two kills: lost 0, and the table is printed."""
    asked = arguments(["--streams", "12", "--abandoned", "6", "--watchers", "3", "--kills", "2"])
    month, lost, seconds = run(asked, memory_path)
    assert lost == []
    assert (month.created, len(month.ended), len(month.starts_s)) == (18, 12, 3)
    assert month.answered == 30
    assert "Lost: 0" in report(month, lost, seconds)
