"""The fault campaign: real processes, disks and sockets; after healing and a restart nothing is missing.

Each row heals what its fault left and holds the server against what had been accepted (or acknowledged as
durable, where the process died), byte for byte; see fault_table.py. ``python -m benchmarks.campaign`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_helpers import Film, Found, Tally, Told
from tests.faults.fault_rig import Rig
from tests.faults.fault_table import ROWS, Row

NAMED = {row.name: row for row in ROWS}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("faults") / "rig") as made:
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
    """Whatever the fault, all that was promised arrives, equal and once (P5-P22)."""
    needed(NAMED[name])
    passes(NAMED[name], NAMED[name].quick(rig))


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", NAMED)
def test_fault_in_full(rig: Rig, name: str) -> None:
    """The same, with the full number of tries: 200 kills, each system call, each byte of a record."""
    needed(NAMED[name])
    passes(NAMED[name], NAMED[name].full(rig))


def test_the_oracle_sees_what_is_missing(rig: Rig, tmp_path: Path) -> None:
    """The judge is not blind: an owed chunk that is not there, another content and a stranger are counted."""
    film = Film(7)
    told = rig.leave(film, tmp_path / "spool", 3)
    rig.heal(tmp_path / "spool", told.data_id)
    found, tally = rig.server.found(told.data_id), Tally("oracle")
    tally.judge(found, {0, 1, 2}, {0, 1, 2}, film)
    assert tally.clean
    tally.judge(found, {0, 1, 2, 3}, {0, 1, 2, 3}, film)
    tally.judge(found, {0, 1, 2}, {0, 1, 2}, Film(8))
    tally.judge(found, {0, 1}, {0, 1}, film)
    assert (tally.lost, tally.corrupted, tally.duplicated) == (1, 3, 1)


def test_the_oracle_reads_whole_lines_only(tmp_path: Path) -> None:
    """A line that a kill cut short says nothing."""
    side = tmp_path / "side"
    side.write_text("accepted 1\naccepted 12")
    assert Told.read(side).indices("accepted") == {1}
    assert Found(tmp_path / "nothing").chunks == {}
