"""The fault campaign with real processes, disks and sockets: after recovery no chunk is missing.

Each row recovers from its fault and compares the server's chunks with the accepted ones (or with the durable ones,
if the process died), byte by byte; see fault_table.py. ``python -m benchmarks.campaign`` prints the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_helpers import Film, StepLog, StoredStream, Tally
from tests.faults.fault_rig import Rig
from tests.faults.fault_table import ROWS, Row
from tests.faults.short_retries import short_retries

NAMED = {row.name: row for row in ROWS}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("faults") / "rig") as made, short_retries():
        yield made


def passes(row: Row, tally: Tally) -> None:
    assert tally.clean, f"{row.name}: {tally.notes}"


def needed(row: Row) -> None:
    if reason := row.why_not():
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMED)
def test_fault(rig: Rig, name: str) -> None:
    """After each fault all required chunks arrive, unchanged and once (P5 to P22)."""
    needed(NAMED[name])
    passes(NAMED[name], NAMED[name].quick(rig))


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", NAMED)
def test_fault_in_full(rig: Rig, name: str) -> None:
    """The same with the full number of tries: 200 kills, each system call, each byte of a record."""
    needed(NAMED[name])
    passes(NAMED[name], NAMED[name].full(rig))


def test_the_check_detects_missing_chunks(rig: Rig, tmp_path: Path) -> None:
    """The check detects a missing chunk, a chunk with other content, and an unknown chunk."""
    film = Film(7)
    steps = rig.leave(film, tmp_path / "spool", 3)
    rig.recover(tmp_path / "spool", steps.data_id)
    stored_stream, tally = rig.server.stored_stream(steps.data_id), Tally("oracle")
    tally.check_stream(stored_stream, {0, 1, 2}, {0, 1, 2}, film)
    assert tally.clean
    tally.check_stream(stored_stream, {0, 1, 2, 3}, {0, 1, 2, 3}, film)
    tally.check_stream(stored_stream, {0, 1, 2}, {0, 1, 2}, Film(8))
    tally.check_stream(stored_stream, {0, 1}, {0, 1}, film)
    assert (tally.lost, tally.corrupted, tally.duplicated) == (1, 3, 1)


def test_incomplete_lines_are_ignored(tmp_path: Path) -> None:
    """An incomplete line, cut off by a kill, is ignored."""
    side = tmp_path / "side"
    side.write_text("accepted 1\naccepted 12")
    assert StepLog.read(side).indices("accepted") == {1}
    assert StoredStream(tmp_path / "nothing").chunks == {}
