"""The append-only log: damage anywhere loses only the record that it lies in."""

from __future__ import annotations

import bisect
import logging
import os
import random
import re
import tempfile
from pathlib import Path

import google_crc32c
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomstream.system import record_scan
from atomstream.system.files import FileSystem
from atomstream.system.record_log import RecordLog, is_lost

HEADER = 8
"""Bytes before the first record."""


def filled(path: Path, count: int = 3) -> Path:
    """A closed log of ``count`` records."""
    log = RecordLog(path)
    assert [log.append({"n": n, "text": "x" * n}) for n in range(1, count + 1)] == list(range(1, count + 1))
    log.close()
    return path


def reopened(path: Path) -> list[int]:
    """Open a log again and return its records; check that another record can be appended."""
    log = RecordLog(path)
    found = [log.read(number)["n"] for number in range(1, len(log) + 1)]
    assert log.append({"n": 99}) == len(found) + 1
    assert log.read(len(found) + 1) == {"n": 99}
    log.close()
    return found


def test_records_are_read_by_number(tmp_path: Path) -> None:
    """An appended record is read by its number, after a reopening too; another number is an IndexError."""
    path = filled(tmp_path / "a" / "results.log")
    log = RecordLog(path)
    assert log.read(2) == {"n": 2, "text": "xx"}
    for number in (0, 4):
        with pytest.raises(IndexError):
            log.read(number)
    log.close()
    assert reopened(path) == [1, 2, 3]


def survivors(path: Path, content: bytes) -> list[int | None]:
    """Open a log file with this content and return the number ``n`` of each record, None for a lost one. It is also
    checked that a repair has left a copy of the old content, and that the log then opens without a repair.
    """
    for old in path.parent.iterdir():
        old.unlink()
    path.write_bytes(content)
    log = RecordLog(path)
    records = [log.read(number) for number in range(1, len(log) + 1)]
    log.close()
    copies = list(path.parent.glob(f"{path.name}.damaged-*"))
    if path.read_bytes() != content:
        assert [copy.read_bytes() for copy in copies] == [content]
    else:
        assert copies == []
    assert RecordLog(path).close() is None
    assert list(path.parent.glob(f"{path.name}.damaged-*")) == copies
    return [None if is_lost(record) else record["n"] for record in records]


def test_one_flipped_bit_costs_one_record(tmp_path: Path) -> None:
    """Wherever a bit of the log flips, all records but the one it lies in are there, under their numbers."""
    path = filled(tmp_path / "log", 6)
    raw = path.read_bytes()
    starts = [match.start() - 8 for match in re.finditer(rb"\x82\xa1n", raw)]
    assert starts[0] == HEADER
    for at in range(len(raw)):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << at % 8
        hit = bisect.bisect_right(starts, at)  # 0: the file's own header
        found = survivors(path, bytes(damaged))
        expected = [None if number == hit else number for number in range(1, 7)]
        # Only its length shows whether the last record is damaged or incomplete. If the length itself was changed, the
        # record counts as incomplete.
        assert found in (expected, expected[:-1] if hit == 6 else expected), at


@pytest.mark.parametrize(("place", "byte"), [(2, 0xDE), (0, 0xDF)])
def test_a_checksum_that_looks_like_a_map_hides_no_record(tmp_path: Path, place: int, byte: int) -> None:
    """Bytes of the checksum together with the first ones of the payload look like the beginning of a payload."""
    payloads = (msgspec.msgpack.encode({"n": 2, "salt": salt}) for salt in range(1 << 16))
    payload = next(one for one in payloads if google_crc32c.value(one).to_bytes(4, "little")[place] == byte)
    path = tmp_path / "log"
    log = RecordLog(path)
    log.append({"n": 1})
    log.append(msgspec.msgpack.decode(payload))
    log.close()
    raw = bytearray(path.read_bytes())
    raw[HEADER + record_scan.HEAD.size + 1] ^= 1
    path.write_bytes(raw)
    log = RecordLog(path)
    found = [log.read(number) for number in range(1, len(log) + 1)]
    log.close()
    assert [is_lost(record) for record in found] == [True, False]
    assert found[-1]["n"] == 2


def test_any_torn_end_costs_the_last_record_alone(tmp_path: Path) -> None:
    """A log cut off anywhere opens with all whole records, and appends after them."""
    path = filled(tmp_path / "log", 4)
    raw = path.read_bytes()
    ends = [*(match.start() - 8 for match in re.finditer(rb"\x82\xa1n", raw)), len(raw)]
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        for copy in tmp_path.glob("log.damaged-*"):
            copy.unlink()
        assert reopened(path) == list(range(1, sum(end <= size for end in ends[1:]) + 1))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_garbage_in_the_middle_costs_what_it_covers(data: st.DataObject) -> None:
    """Records before and after any garbage are there, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        path = filled(Path(folder) / "log", 8)
        raw = path.read_bytes()
        starts = [match.start() - 8 for match in re.finditer(rb"\x82\xa1n", raw)]
        first = data.draw(st.integers(HEADER, len(raw) - 1))
        last = data.draw(st.integers(first, len(raw)))
        garbage = data.draw(st.one_of(st.binary(max_size=200), st.just(bytes(last - first))))
        found = survivors(path, raw[:first] + garbage + raw[last:])
        ends = [*starts[1:], len(raw)]
        untouched = [n for n in range(1, 9) if ends[n - 1] <= first or starts[n - 1] >= last]
        readable = [n for n in found if n is not None]
        assert set(untouched) <= set(readable)  # random bytes may equal the old ones
        assert readable == sorted(set(readable))


def test_the_damage_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The warning has the file, the position, the number of lost bytes, and the path of the copy."""
    path = filled(tmp_path / "log", 3)
    raw = bytearray(path.read_bytes())
    second = raw.index(b"xx") - 20
    raw[second + 20] ^= 1
    path.write_bytes(raw)
    with caplog.at_level(logging.WARNING, "atomstream.server"):
        RecordLog(path).close()
    (message,) = caplog.messages
    assert str(path) in message
    assert "are lost" in message
    assert "log.damaged-1" in message


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="this system does not name holes")
def test_a_hole_of_a_terabyte_costs_what_it_covers(tmp_path: Path) -> None:
    """In the middle or at the end: the records around it are there, and it is neither read nor copied."""
    whole = filled(tmp_path / "log", 8).read_bytes()
    middle = whole.index(b"xxxx") - 10
    for number, after in enumerate((whole[middle:], b"")):
        path = tmp_path / f"log{number}"
        with path.open("wb") as file:
            file.write(whole[:middle])
            file.seek(1 << 40)
            file.write(after)
            file.truncate()
        os.truncate(path, (1 << 40) + len(after))
        log = RecordLog(path)
        found = [log.read(one).get("n") for one in range(1, len(log) + 1)]
        log.close()
        assert found == ([1, 2, 3, None, 5, 6, 7, 8] if after else [1, 2, 3])
        assert path.stat().st_size < 1000
        assert (tmp_path / f"log{number}.damaged-1").stat().st_size == (1 << 40) + len(after)


def test_noise_is_searched_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records after megabytes of noise are found; if too much would be searched, they are one lost part."""
    whole = filled(tmp_path / "log", 4).read_bytes()
    noise = random.Random(7).randbytes(5 << 20)
    content = whole + noise + whole[HEADER:]
    assert survivors(tmp_path / "log", content) == [1, 2, 3, 4, None, 1, 2, 3, 4]
    monkeypatch.setattr(record_scan, "MAX_SEARCHED", 2 << 20)
    assert survivors(tmp_path / "log", content) == [1, 2, 3, 4, None]


def test_a_repair_that_a_crash_interrupted_is_completed(tmp_path: Path) -> None:
    """The damaged log was moved away, and the repaired one has not got its name yet."""

    class Dies(FileSystem):
        renames = 0

        def rename(self, source: Path, target: Path) -> None:
            self.renames += 1
            if self.renames == 2:
                raise KeyboardInterrupt
            super().rename(source, target)

    path = filled(tmp_path / "log", 4)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"xx")] ^= 1
    path.write_bytes(raw)
    with pytest.raises(KeyboardInterrupt):
        RecordLog(path, file_system=Dies())
    assert not path.exists()
    log = RecordLog(path)
    assert [log.read(number).get("n") for number in (1, 2, 3, 4)] == [1, None, 3, 4]
    log.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "log.damaged-1"]


def test_an_older_copy_is_never_overwritten(tmp_path: Path) -> None:
    """Each damaged file gets a separate copy."""
    path = tmp_path / "log"
    for count in (1, 2):
        path.write_bytes(b"atslog1\nshort" * count)
        RecordLog(path).close()
    assert {copy.read_bytes() for copy in tmp_path.glob("log.damaged-*")} == {
        b"atslog1\nshort",
        b"atslog1\nshort" * 2,
    }


def test_a_copy_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Without disk space for the copy, the damaged log is not changed."""

    class Full(FileSystem):
        def create(self, path: Path) -> int:
            raise OSError(28, "no space left on device")

    path = filled(tmp_path / "log")
    damaged = path.read_bytes()[:-1]
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="no space"):
        RecordLog(path, file_system=Full())
    assert path.read_bytes() == damaged


def test_a_foreign_file_is_kept_aside(tmp_path: Path) -> None:
    """A file that is not a log is not overwritten: it is kept under another name."""
    path = tmp_path / "log"
    path.write_bytes(b"somebody's notes, longer than a header")
    assert reopened(path) == []
    assert (tmp_path / "log.damaged-1").read_bytes().startswith(b"somebody's notes")


def test_damage_under_an_open_log_costs_one_record(tmp_path: Path) -> None:
    """A record that the disk damages later, or that lies in the cached part, is read as lost; the others are there."""
    path = filled(tmp_path / "log", 3)
    log = RecordLog(path)
    cached = log.positions
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"xx")] ^= 1
    path.write_bytes(raw)
    again = RecordLog(path, cached)
    assert again.n_cached == 3
    for opened in (log, again):
        assert [is_lost(opened.read(number)) for number in (1, 2, 3)] == [False, True, False]
        opened.close()


class FailingSync(FileSystem):
    """Refuses the sync of files while ``broken``."""

    broken = True

    def sync(self, fd: int) -> None:
        if self.broken:
            raise OSError(5, "input/output error")
        super().sync(fd)


def test_a_durable_append_that_fails_adds_nothing(tmp_path: Path) -> None:
    """If the sync fails, the record is removed and its number is free."""
    path, disk = filled(tmp_path / "log", 1), FailingSync()
    log = RecordLog(path, file_system=disk)
    with pytest.raises(OSError, match="input/output"):
        log.append({"n": 2}, durable=True)
    disk.broken = False
    assert log.append({"n": 3}, durable=True) == 2
    log.close()
    assert reopened(path) == [1, 3]
