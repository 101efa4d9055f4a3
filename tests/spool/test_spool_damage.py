"""Damaged, removed, renamed and foreign files in the spool: only damaged records are lost, foreign files stay."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from atomstream.errors import SpoolError
from atomstream.spool import Geometry, JournalEntry, StreamManifest
from tests.spool.spool_helpers import (
    DATA_ID,
    ENDPOINT,
    delivered,
    new_spool,
    new_stream,
    payload,
    reopened,
    shard,
    spec,
)


def test_the_manifest_is_restored_from_the_journal(tmp_path: Path) -> None:
    """A changed manifest is kept, and a damaged stream.json is restored from the journal."""
    stream = new_stream(tmp_path)
    manifest = StreamManifest(ENDPOINT, replace(spec(), rpm=0.0), Geometry(480, 640, "uint16"))
    stream.update_manifest(manifest)
    stream.put(shard(0))
    stream.close()
    for damage in (
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        (stream.folder / "stream.json").read_bytes().replace(b"480", b"481"),
    ):
        (stream.folder / "stream.json").write_bytes(damage)
        again = reopened(tmp_path)
        assert again.manifest == manifest
        assert again.pending() == [0]
        again.close()
        assert json.loads((stream.folder / "stream.json").read_text())["geometry"]["height"] == 480


def test_a_folder_without_manifest_is_reported(tmp_path: Path) -> None:
    """A folder without manifest and journal is reported, and its records are not changed."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.close()
    (stream.folder / "stream.json").write_text("{}")
    (stream.folder / "journal").write_bytes(b"")
    spool = new_spool(tmp_path)
    with pytest.raises(SpoolError, match="were not changed"):
        spool.open_stream(ENDPOINT, DATA_ID)
    (found,) = spool.streams()
    assert found.manifest is None
    assert "damaged" in found.problem
    assert spool.recoverable(ENDPOINT) == []
    assert (stream.folder / "chunk-00000000.rec").exists()


def test_a_removed_journal(tmp_path: Path) -> None:
    """If the journal was removed, the records are still delivered."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.put(shard(7))
    stream.close()
    (stream.folder / "journal").unlink()
    again = reopened(tmp_path)
    assert again.journal_state.digests == {0: shard(0).info.digest, 7: shard(7).info.digest}
    assert delivered(again, 7) == payload(shard(7))
    again.close()


@pytest.mark.parametrize("at", [3, 20, 100, -1])
def test_only_the_damaged_record_is_lost(tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture) -> None:
    """A flipped bit in magic, header or payload: that chunk is quarantined, the others are delivered."""
    stream = new_stream(tmp_path)
    for index in range(3):
        stream.put(shard(index))
    path = stream.folder / "chunk-00000001.rec"
    stream.close()
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 4
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        again = reopened(tmp_path)
    if 1 in again.pending():  # the payload is checked when it is read
        with pytest.raises(SpoolError, match="damaged"):
            delivered(again, 1)
        again.quarantine(1, "damaged")
    else:
        assert "damaged" in caplog.text
    assert (again.pending(), again.quarantined()) == ([0, 2], [1])
    assert (again.folder / "quarantine" / path.name).read_bytes() == damaged
    assert delivered(again, 2) == payload(shard(2))
    again.close()


def test_a_record_under_a_wrong_name(tmp_path: Path) -> None:
    """A record that was renamed or copied is not sent as another chunk."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.close()
    copy = stream.folder / "chunk-00000005.rec"
    copy.write_bytes((stream.folder / "chunk-00000000.rec").read_bytes())
    again = reopened(tmp_path)
    assert (again.pending(), again.quarantined()) == ([0], [5])
    again.close()


def test_foreign_files_are_never_touched(tmp_path: Path) -> None:
    """Files and folders of other programs are neither removed nor counted, wherever they are."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    foreign = [
        tmp_path / "notes.txt",
        tmp_path / "0123456789abcdef" / "mine" / "precious.dat",
        tmp_path / "frames" / "chunk-00000000.rec",
        stream.folder.parent / "readme",
        stream.folder / "chunk-00000001.rec.bak",
        stream.folder / "chunk-1.rec",
        stream.folder / "chunk-00000002.REC.tmp",
        stream.folder / "chunk-00000003.rec" / "a folder",
        stream.folder / "quarantine" / "why.txt",
        stream.folder / "journal.old",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("keep me")
    used = new_spool(tmp_path).status()["bytes"]
    assert used == stream.pending_bytes()
    stream.close()
    again = reopened(tmp_path)
    again.mark_stored(0)
    again.journal.append_durable(JournalEntry("ended"))
    assert again.remove_if_ended()
    assert all(path.read_text() == "keep me" for path in foreign)
    assert not (again.folder / "journal").exists()


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """A symbolic link with the name of a record or a stream's folder is ignored."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "chunk-00000009.rec").write_bytes(b"mine")
    stream = new_stream(tmp_path / "spool")
    try:
        (stream.folder / "chunk-00000009.rec").symlink_to(outside / "chunk-00000009.rec")
        (stream.folder.parent / "linked").symlink_to(outside, target_is_directory=True)
    except OSError:
        pytest.skip("this user may not make symbolic links")
    stream.close()
    again = reopened(tmp_path / "spool")
    assert again.pending() == again.quarantined() == []
    again.close()
    assert (outside / "chunk-00000009.rec").read_bytes() == b"mine"


def test_partial_files_are_removed(tmp_path: Path) -> None:
    """Partially written temporary files are removed when the stream is opened again."""
    stream = new_stream(tmp_path)
    stream.close()
    for name in ("chunk-00000004.rec.tmp", "journal.tmp", "stream.json.tmp"):
        (stream.folder / name).write_bytes(b"half")
    again = reopened(tmp_path)
    assert not list(again.folder.glob("*.tmp"))
    assert again.journal_state.states == {}
    again.close()
