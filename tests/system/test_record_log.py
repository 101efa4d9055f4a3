"""The append-only log: numbered records that survive whatever tears its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomstream.system.record_log import RecordLog


def filled(path: Path, count: int = 3) -> Path:
    """A closed log of ``count`` records."""
    log = RecordLog(path)
    assert [log.append({"n": n, "text": "x" * n}) for n in range(1, count + 1)] == list(range(1, count + 1))
    log.close()
    return path


def reopened(path: Path) -> list[int]:
    """What a log holds, opened again, and that it takes more after it."""
    log = RecordLog(path)
    found = [log.read(number)["n"] for number in range(1, len(log) + 1)]
    assert log.append({"n": 99}) == len(found) + 1
    assert log.read(len(found) + 1) == {"n": 99}
    log.close()
    return found


def test_records_are_read_by_number(tmp_path: Path) -> None:
    """What was appended is there by its number, after a reopening too; another number is an IndexError."""
    path = filled(tmp_path / "a" / "results.log")
    log = RecordLog(path)
    assert log.read(2) == {"n": 2, "text": "xx"}
    for number in (0, 4):
        with pytest.raises(IndexError):
            log.read(number)
    log.close()
    assert reopened(path) == [1, 2, 3]


@pytest.mark.parametrize("lost", [1, 5, 9])
def test_a_torn_end_costs_one_record(tmp_path: Path, lost: int) -> None:
    """A file cut within its last record opens without that record, and goes on."""
    path = filled(tmp_path / "log")
    path.write_bytes(path.read_bytes()[:-lost])
    assert reopened(path) == [1, 2]


def test_a_flipped_bit_ends_the_log_before_it(tmp_path: Path) -> None:
    """A damaged record and all behind it, whose beginning can't be trusted, are cut off."""
    path = filled(tmp_path / "log")
    raw = bytearray(path.read_bytes())
    raw[-12] ^= 1
    path.write_bytes(raw)
    assert reopened(path) == [1, 2]


def test_a_foreign_file_is_kept_aside(tmp_path: Path) -> None:
    """A file that is no log is not overwritten: it is kept under another name."""
    path = tmp_path / "log"
    path.write_bytes(b"somebody's notes, longer than a header")
    assert reopened(path) == []
    (aside,) = [other for other in tmp_path.iterdir() if other != path]
    assert aside.read_bytes().startswith(b"somebody's notes")
