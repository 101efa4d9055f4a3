"""A spool that another program wrote to: links are not followed, and records with valid checksums are not believed."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import msgpack
import pytest

from atomstream.errors import RecordCorruptError, SpoolError
from atomstream.spool.journal import HEADER, Journal, JournalEntry, pack_entry, scan
from atomstream.spool.paths import JOURNAL, LOCK, MANIFEST, QUARANTINE, ROOT_LOCK, USAGE, record_name
from atomstream.spool.record import read_header
from atomstream.spool.recovery import verify_records
from atomstream.spool.stream_state import JournalState
from atomstream.system.files import FileSystem
from tests.spool.spool_helpers import DATA_ID, ENDPOINT, delivered, new_spool, new_stream, payload, shard

SECRET = b"a file of somebody else, 1400 bytes long".ljust(1400, b"-")

HUGE = 10**18

ODD: list[Any] = [
    "text",
    None,
    float("nan"),
    float("inf"),
    -1,
    HUGE,
    10**400 // 10**382,
    True,
    [],
    {},
    b"x",
    [1],
]
"""Values of wrong types and ranges."""


def closed_stream(root: Path, chunks: int = 2) -> Path:
    """The folder of a stream with ``chunks`` records, which no process has open."""
    stream = new_stream(root)
    for index in range(chunks):
        stream.journal.append(JournalEntry("accepted", index))
        stream.put(shard(index))
    stream.close()
    return stream.folder


links = pytest.mark.skipif(sys.platform == "win32", reason="links need privileges on Windows")


@links
def test_a_spool_is_private(tmp_path: Path) -> None:
    """Every folder is 0700 and every file 0600, also where an earlier version made them readable for all."""
    root = tmp_path / "spool"
    root.mkdir(mode=0o755)
    folder = closed_stream(root)
    folder.parent.chmod(0o755)
    root.chmod(0o755)
    stream = new_spool(root).open_stream(ENDPOINT, DATA_ID)
    stream.quarantine(0, "to make that folder")
    stream.mark_stored(1)
    stream.close()
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@links
@pytest.mark.parametrize("name", [JOURNAL, USAGE, LOCK, MANIFEST, record_name(0), record_name(1), ROOT_LOCK])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_planted_link_costs_only_its_own_file(tmp_path: Path, name: str, kind: str) -> None:
    """The file that a link points to keeps its bytes, and the stream's other records are delivered."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(SECRET)
    root = tmp_path / "spool"
    folder = closed_stream(root)
    path = root / name if name == ROOT_LOCK else folder / name
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(foreign)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.link(foreign, path)
    stream = new_spool(root).open_stream(ENDPOINT, DATA_ID)
    list(verify_records(stream))
    for index in stream.pending():
        assert delivered(stream, index) == payload(shard(index))
        stream.mark_stored(index)
    assert len(stream.pending()) == 0
    stream.put(shard(2))
    stream.close()
    assert foreign.read_bytes() == SECRET


@pytest.mark.parametrize("name", [JOURNAL, MANIFEST, USAGE, record_name(0)])
def test_a_huge_file_takes_no_memory(tmp_path: Path, name: str) -> None:
    """A file with a hole of a terabyte is damaged, and is not read. It costs its own stream at most."""
    root = tmp_path / "spool"
    folder = closed_stream(root)
    os.truncate(folder / name, 1 << 40)
    spool = new_spool(root)
    if name == JOURNAL:
        with pytest.raises(SpoolError, match="longer than"):
            spool.open_stream(ENDPOINT, DATA_ID)
        assert (folder / record_name(1)).exists()
        return
    stream = spool.open_stream(ENDPOINT, DATA_ID)
    list(verify_records(stream))
    assert delivered(stream, 1) == payload(shard(1))
    stream.close()


@links
@pytest.mark.parametrize("depth", ["endpoint", "stream", "quarantine"])
def test_a_planted_folder_link_is_not_followed(tmp_path: Path, depth: str) -> None:
    """No record is written into, moved into or removed from the folder that a link points to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / record_name(7)).write_bytes(SECRET)
    root = tmp_path / "spool"
    spool = new_spool(root)
    folder = spool.folder_of(ENDPOINT, DATA_ID)
    if depth == "quarantine":
        closed_stream(root)
        (folder / QUARANTINE).symlink_to(elsewhere)
        stream = spool.open_stream(ENDPOINT, DATA_ID)
        stream.quarantine(0, "a reason")
        stream.mark_stored(1)
        stream.close()
    else:
        link = folder.parent if depth == "endpoint" else folder
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(elsewhere)
        with pytest.raises(SpoolError, match="link"):
            new_stream(root)
    assert os.listdir(elsewhere) == [record_name(7)]
    assert (elsewhere / record_name(7)).read_bytes() == SECRET


def test_one_hostile_stream_does_not_end_the_spool(tmp_path: Path) -> None:
    """A stream whose lock can't be opened is listed with its problem; the others are delivered."""
    root = tmp_path / "spool"
    folder = closed_stream(root)
    other = folder.with_name("other")
    other.mkdir()
    (other / LOCK).mkdir()
    (other / USAGE).write_bytes(b"")
    (other / JOURNAL).write_bytes(HEADER)
    spool = new_spool(root)
    problems = {stream.folder.name: stream.problem for stream in spool.streams()}
    assert problems[DATA_ID] == ""
    assert "could not lock" in problems["other"]
    spool.open_stream(ENDPOINT, DATA_ID).close()


# Records, entries and descriptions with valid checksums.


def reheaded(raw: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A record's bytes with a changed header and the checksum of that."""
    size = int.from_bytes(raw[12:16], "little")
    fields = msgpack.unpackb(raw[16 : 16 + size], unicode_errors="surrogatepass")
    change(fields)
    body = msgpack.packb(fields)
    start = raw[:12] + len(body).to_bytes(4, "little") + body
    return start + google_crc32c.value(start).to_bytes(4, "little") + raw[20 + size :]


@pytest.mark.parametrize("key", ["id", "k", "n", "crc", "dims", "dtype", "stamp", "digest", "at"])
def test_a_record_with_odd_values_is_quarantined(tmp_path: Path, key: str) -> None:
    """A record with an impossible value in its header is refused as damaged, and the other record is delivered."""
    folder = closed_stream(tmp_path / "spool")
    raw = (folder / record_name(0)).read_bytes()
    values = [*ODD, [1, 2], *([odd, 6, 7] for odd in ODD), *([6, 7, odd] for odd in ODD)]
    for value in values:

        def change(fields: dict[str, Any], value: Any = value) -> None:
            fields[key] = value

        changed = reheaded(raw, change)
        if changed == raw:
            continue
        (folder / record_name(0)).write_bytes(changed)
        try:
            header = read_header(FileSystem(), folder / record_name(0))
        except RecordCorruptError:
            continue
        assert header.info.raw_nbytes <= 2 << 30  # a value that makes sense, such as another id
    stream = new_spool(tmp_path / "spool").open_stream(ENDPOINT, DATA_ID)
    list(verify_records(stream))
    assert 1 in stream.pending()
    stream.close()


def frame(values: Any) -> bytes:
    """The bytes of a journal entry with any values and a valid checksum."""
    body = msgpack.packb(values)
    size = len(body).to_bytes(4, "little")
    crc = google_crc32c.extend(google_crc32c.value(size), body)
    return b"\xa7J" + size + crc.to_bytes(4, "little") + body


@pytest.mark.parametrize("kind", range(-1, 11))
def test_a_journal_entry_with_odd_values_is_skipped(tmp_path: Path, kind: int) -> None:
    """Entries with wrong types or impossible indices are skipped; they take no memory and end no recovery."""
    folder = closed_stream(tmp_path / "spool")
    hostile = [frame([kind, odd, b""]) for odd in ODD] + [frame([kind, 0, odd]) for odd in ODD]
    hostile += [frame([kind, 0, b"", odd]) for odd in ODD] + [frame([kind, -1, b"", "", odd]) for odd in ODD]
    hostile += [frame(odd) for odd in ODD] + [frame([odd, 0, b""]) for odd in ODD]
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b"".join(hostile) + pack_entry(JournalEntry("accepted", 5)))
    state = JournalState.from_entries(scan((folder / JOURNAL).read_bytes()).entries)
    assert set(state.states) <= {0, 1, 5}
    stream = new_spool(tmp_path / "spool").open_stream(ENDPOINT, DATA_ID)
    list(verify_records(stream))
    assert stream.journal_state.states[5] == "pending"
    stream.close()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((place, name), value)
        for place, names in {
            "spec": ("data_id", "fps", "rpm", "chunk_size", "name", "announced"),
            "geometry": ("height", "width", "dtype"),
            "": ("endpoint", "spec", "geometry", "format"),
        }.items()
        for name in names
        for value in ("http://127.0.0.1:1", 5, float("nan"), HUGE, [], None, {"a": 1})
    ],
)
def test_a_description_with_odd_values_is_refused(tmp_path: Path, path: tuple[str, str], value: Any) -> None:
    """A stream.json with a valid checksum and any values opens with the content of its journal, or is a SpoolError."""
    folder = closed_stream(tmp_path / "spool")
    fields = json.loads((folder / MANIFEST).read_text())
    fields.pop("crc32c")
    fields["geometry"] = {"height": 6, "width": 7, "dtype": "uint8"}
    (fields[path[0]] if path[0] else fields)[path[1]] = value
    crc = google_crc32c.value(json.dumps(fields, sort_keys=True).encode())
    (folder / MANIFEST).write_text(json.dumps({**fields, "crc32c": crc}))
    spool = new_spool(tmp_path / "spool")
    (found,) = spool.streams()
    assert found.manifest is not None  # at least from the journal
    assert found.manifest.endpoint == ENDPOINT
    assert found.manifest.spec.data_id == DATA_ID
    assert found.manifest.spec.chunk_size <= 100_000
    stream = spool.open_stream(ENDPOINT, DATA_ID)
    assert stream.pending() == [0, 1]
    stream.close()


def test_a_description_of_another_server_is_not_used(tmp_path: Path) -> None:
    """A folder whose description names another server is refused: key and frames would go to that one."""
    spool = new_spool(tmp_path / "spool")
    spool.create_stream("http://evil.example", shard_spec()).close()
    evil = spool.folder_of("http://evil.example", DATA_ID)
    folder = spool.folder_of(ENDPOINT, DATA_ID)
    folder.parent.mkdir()
    evil.rename(folder)
    (found,) = spool.streams(ENDPOINT)
    assert found.manifest is None
    assert "another server" in found.problem
    with pytest.raises(SpoolError, match="another server"):
        spool.open_stream(ENDPOINT, DATA_ID)


def shard_spec() -> Any:
    """The parameters of the stream under test."""
    from tests.spool.spool_helpers import spec

    return spec()


def test_a_negative_usage_frees_no_space(tmp_path: Path) -> None:
    """A negative number of bytes with a valid checksum is counted from the files instead."""
    folder = closed_stream(tmp_path / "spool")
    number = (-(10**15)).to_bytes(8, "little", signed=True)
    spool = new_spool(tmp_path / "spool")
    (folder / USAGE).write_bytes(number + google_crc32c.value(number).to_bytes(4, "little"))
    assert spool.status()["bytes"] > 0


def test_nested_descriptions_are_damaged_ones(tmp_path: Path) -> None:
    """Deep nesting is damage, not a RecursionError."""
    folder = closed_stream(tmp_path / "spool")
    (folder / MANIFEST).write_text("[" * 200_000)
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(frame([1, 0, b"", deep]))
    new_spool(tmp_path / "spool").open_stream(ENDPOINT, DATA_ID).close()
    Journal.open(FileSystem(), folder / JOURNAL)[0].close()


def test_a_far_index_makes_no_endless_report(tmp_path: Path) -> None:
    """An entry with the largest index that is allowed costs a bounded number of losses in a report."""
    from atomstream.pipeline.ledger import Ledger
    from atomstream.protocol import MAX_CHUNK_INDEX, MAX_LOST

    folder = closed_stream(tmp_path / "spool")
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(pack_entry(JournalEntry("stored", MAX_CHUNK_INDEX)))
    stream = new_spool(tmp_path / "spool").open_stream(ENDPOINT, DATA_ID)
    ledger = Ledger(DATA_ID)
    ledger.restore(stream.journal_state.states, {}, {})
    assert len(ledger.report()["lost"]) == MAX_LOST
    stream.close()
