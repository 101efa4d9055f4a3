"""The journal returns complete entries in order after torn writes, damage and disk errors."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.spool.journal import HEADER, Journal, JournalEntry, pack_entry, read_journal, scan
from atomstream.spool.stream_state import JournalState
from atomstream.system.files import FileSystem
from tests.spool.spool_helpers import FaultyDisk

DISK = FileSystem()
FIRST = JournalEntry("manifest", detail={"endpoint": "http://x"})
ENTRIES = [
    JournalEntry("accepted", 0, b"a" * 16),
    JournalEntry("accepted", 1, b"b" * 16),
    JournalEntry("stored", 0),
    JournalEntry("quarantined", 1, reason="the server said 422"),
    JournalEntry("requeued", 1),
    JournalEntry("dropped", 1, reason="µ-overflow"),
    JournalEntry("finalizing", detail={"drain_timeout_s": 3.5}),
    JournalEntry("ended"),
]


def filled(path: Path, disk: FileSystem = DISK) -> Journal:
    journal = Journal.create(disk, path, FIRST)
    for entry in ENTRIES:
        journal.append(entry)
    return journal


def test_entries_are_read_back(tmp_path: Path) -> None:
    """All entries are read back in order, with all their fields."""
    filled(tmp_path / "j").close()
    found = read_journal(DISK, tmp_path / "j")
    assert found.entries == [FIRST, *ENTRIES]
    assert (found.end, found.gaps) == ((tmp_path / "j").stat().st_size, 0)


def test_torn_at_every_byte(tmp_path: Path) -> None:
    """A journal truncated at any byte keeps every complete entry, and accepts new ones."""
    path = tmp_path / "j"
    filled(path).close()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        journal, found = Journal.open(DISK, path)
        journal.append_durable(JournalEntry("accepted", 99))
        journal.close()
        kept = len(found.entries)
        assert found.entries == [FIRST, *ENTRIES][:kept]
        assert kept >= len(scan(whole[:length]).entries)
        assert read_journal(DISK, path).entries == [*found.entries, JournalEntry("accepted", 99)]


def test_zeros_at_the_end_are_ignored(tmp_path: Path) -> None:
    """Zeros after the last entry, which a power cut may leave, are ignored."""
    path = tmp_path / "j"
    filled(path).close()
    with path.open("ab") as file:
        file.write(bytes(5000))
    journal, found = Journal.open(DISK, path)
    journal.close()
    assert found.entries == [FIRST, *ENTRIES]
    assert path.stat().st_size == found.end


def test_a_flipped_bit_at_every_byte(tmp_path: Path) -> None:
    """Damage in the middle loses the damaged entry only."""
    whole = HEADER + b"".join(map(pack_entry, ENTRIES))
    for at in range(len(HEADER), len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        kept = scan(bytes(damaged)).entries
        assert len(kept) == len(ENTRIES) - 1
        assert [entry for entry in ENTRIES if entry in kept] == kept


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.integers(0, 400))
def test_entries_after_garbage_are_read(garbage: bytes, at: int) -> None:
    """Entries after inserted garbage bytes are still read."""
    frames = list(map(pack_entry, ENTRIES))
    whole = HEADER + b"".join(frames)
    at = min(at, len(whole))
    kept = scan(whole[:at] + garbage + whole[at:]).entries
    ends = [len(HEADER) + sum(map(len, frames[: k + 1])) for k in range(len(frames))]
    untouched = [
        e for e, end, frame in zip(ENTRIES, ends, frames, strict=True) if not end - len(frame) < at < end
    ]
    assert [entry for entry in kept if entry in untouched] == untouched


def test_unknown_kinds_are_skipped() -> None:
    """An entry of an unknown kind is skipped; all others are read."""
    known = pack_entry(ENTRIES[0])
    unknown = pack_entry(JournalEntry("accepted", 5)).replace(b"\x93\x01\x05", b"\x93\x63\x05")
    raw = bytearray(unknown)
    raw[6:10] = google_crc32c.value(bytes(raw[2:6]) + bytes(raw[10:])).to_bytes(4, "little")
    found = scan(HEADER + bytes(raw) + known)
    assert (found.entries, found.gaps) == ([ENTRIES[0]], 0)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_one_failing_call_loses_no_entry(tmp_path: Path, code: int, late: bool) -> None:
    """If any one disk call fails, acknowledged entries stay and later entries are written."""
    clean = FaultyDisk()
    _fill_with_retries(tmp_path / "clean", clean)
    for number in range(len(clean.calls)):
        path = tmp_path / f"j{number}"
        disk = FaultyDisk(number, code=code, late=late)
        acknowledged = _fill_with_retries(path, disk)
        kept = [entry for entry in read_journal(DISK, path).entries if entry.kind == "accepted"]
        # An entry that failed and was repeated may exist twice; no acknowledged entry may be missing.
        assert list(dict.fromkeys(entry.index for entry in kept)) == acknowledged, disk.calls[number]


def _fill_with_retries(path: Path, disk: FileSystem) -> list[int]:
    journal = None
    while journal is None:
        try:
            journal = Journal.create(disk, path, FIRST)
        except SpoolError:
            continue
    for index in range(6):
        write = journal.append_durable if index % 2 else journal.append
        for _ in range(2):
            try:
                write(JournalEntry("accepted", index))
                break
            except SpoolError:
                continue
    with suppress(SpoolError):
        journal.close()
    return list(range(6))


def test_the_journal_is_rewritten_after_a_failed_fsync(tmp_path: Path) -> None:
    """After a failed fsync the journal is rewritten as a new, synced file."""
    disk = FaultyDisk()
    path = tmp_path / "j"
    journal = filled(path, disk)
    before = path.stat().st_ino
    holder = path.open("rb")  # so that the inode number is not reused
    disk.first = disk.last = len(disk.calls) + 1
    with pytest.raises(SpoolError):
        journal.append_durable(JournalEntry("stored", 7))
    assert disk.calls[-1] == "sync"
    journal.append_durable(JournalEntry("stored", 8))
    journal.close()
    holder.close()
    assert path.stat().st_ino != before
    assert read_journal(DISK, path).entries == [FIRST, *ENTRIES, JournalEntry("stored", 8)]


def test_a_full_disk_has_its_own_error(tmp_path: Path) -> None:
    """ENOSPC raises SpoolFullError; EIO raises another SpoolError."""
    disk = FaultyDisk()
    journal = filled(tmp_path / "j", disk)
    disk.first = disk.last = len(disk.calls)
    disk.code = errno.ENOSPC
    with pytest.raises(SpoolFullError, match="Free some space"):
        journal.append(JournalEntry("stored", 1))
    disk.first = disk.last = len(disk.calls)
    disk.code = errno.EIO
    with pytest.raises(SpoolError) as caught:
        journal.append(JournalEntry("stored", 1))
    assert not isinstance(caught.value, SpoolFullError)
    journal.close()


def test_a_closed_journal_refuses_entries(tmp_path: Path) -> None:
    """A closed journal refuses entries."""
    journal = filled(tmp_path / "j")
    journal.close()
    with pytest.raises(SpoolError, match="closed"):
        journal.append(JournalEntry("ended"))


def test_each_chunk_has_one_state() -> None:
    """Each accepted chunk is in exactly one state; reasons and the options of finalize are kept."""
    history = JournalState.from_entries([FIRST, *ENTRIES])
    assert history.states == {0: "stored", 1: "dropped"}
    assert history.reasons == {1: "µ-overflow"}
    assert history.digests == {0: b"a" * 16, 1: b"b" * 16}
    assert (history.finalizing, history.ended, dict(history.finalize_options)) == (
        True,
        True,
        {"drain_timeout_s": 3.5},
    )
    assert sum(history.counts().values()) == len(history.states)
    assert (history.next_index(), history.pending()) == (2, [])
    history.apply(JournalEntry("reopened"))
    assert not history.finalizing
    assert not history.ended


def test_a_late_accepted_entry_changes_nothing() -> None:
    """An ``accepted`` entry after a chunk was resolved does not make it pending again."""
    history = JournalState.from_entries([JournalEntry("stored", 4), JournalEntry("accepted", 4, b"d" * 16)])
    assert history.states == {4: "stored"}
    assert history.digests == {4: b"d" * 16}
