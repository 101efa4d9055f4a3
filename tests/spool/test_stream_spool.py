"""One stream's folder without faults."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from atomstream.errors import ChunkConflictError, ClosedError, SpoolError, SpoolLockedError
from atomstream.records import ChunkState
from atomstream.spool import JournalEntry
from atomstream.system.files import FileSystem
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


def test_a_chunk_is_read_back(tmp_path: Path) -> None:
    """A written chunk is pending, with its header and its bytes, before and after a restart."""
    stream = new_stream(tmp_path)
    put = stream.put(shard(3))
    assert put is not None
    assert put.path.stat().st_size == put.nbytes == stream.pending_bytes()
    assert stream.chunk(3) == put
    stream.close()
    again = reopened(tmp_path)
    assert again.pending() == [3]
    assert again.journal_state.states == {3: "pending"}
    assert again.journal_state.digests == {3: shard(3).info.digest}
    assert again.chunk(3) == put
    assert delivered(again, 3) == payload(shard(3))
    again.close()


def test_each_final_state(tmp_path: Path) -> None:
    """Stored, dropped, purged and quarantined chunks are in the journal, and have no pending record."""
    stream = new_stream(tmp_path)
    for index in range(5):
        stream.put(shard(index))
    stream.mark_stored(0)
    stream.discard(1, "dropped", "no room")
    stream.discard(2, "purged", "asked for")
    stream.quarantine(3, "422")
    assert (stream.pending(), stream.quarantined()) == ([4], [3])
    stream.close()
    again = reopened(tmp_path)
    states: dict[int, ChunkState] = {0: "stored", 1: "dropped", 2: "purged", 3: "quarantined", 4: "pending"}
    assert again.journal_state.states == states
    assert again.journal_state.reasons == {1: "no room", 2: "asked for", 3: "422"}
    assert (again.pending(), again.quarantined(), again.missing) == ([4], [3], [])
    again.requeue(3)
    assert delivered(again, 3) == payload(shard(3))
    again.quarantine(3, "422 again")
    assert again.purge("by hand") == [3, 4]
    assert (again.pending(), again.quarantined()) == ([], [])
    again.close()


def test_put_twice(tmp_path: Path) -> None:
    """Writing the same chunk again does nothing; other frames with its index are a conflict."""
    stream = new_stream(tmp_path)
    assert stream.put(shard(0)) == stream.put(shard(0))
    with pytest.raises(ChunkConflictError, match="other frames"):
        stream.put(shard(0, variant=1))
    assert delivered(stream, 0) == payload(shard(0))
    stream.close()


def test_a_resolved_chunk_is_not_written(tmp_path: Path) -> None:
    """A chunk that was resolved meanwhile is not written."""
    stream = new_stream(tmp_path)
    stream.mark_stored(0)
    assert stream.put(shard(0)) is None
    stream.close()
    again = reopened(tmp_path)
    assert again.journal_state.states == {0: "stored"}
    assert again.put(shard(0)) is None
    again.close()


def test_upload_from_memory_overtakes_the_disk(tmp_path: Path) -> None:
    """A chunk that is confirmed while its record is being written leaves no record."""
    reached, go_on = threading.Event(), threading.Event()

    class SlowDisk(FileSystem):
        def rename(self, source: Path, target: Path) -> None:
            if target.suffix == ".rec":
                reached.set()
                assert go_on.wait(60)
            super().rename(source, target)

    stream = new_stream(tmp_path, SlowDisk())
    writer = threading.Thread(target=stream.put, args=(shard(0),))
    writer.start()
    assert reached.wait(60)
    uploader = threading.Thread(target=stream.mark_stored, args=(0,))
    uploader.start()
    go_on.set()
    writer.join()
    uploader.join()
    assert stream.pending() == []
    assert not list(stream.folder.glob("chunk-*"))
    stream.close()


def test_many_threads(tmp_path: Path) -> None:
    """Many threads may write and resolve chunks at the same time."""
    stream = new_stream(tmp_path)

    def work(start: int) -> None:
        for index in range(start, 60, 4):
            stream.put(shard(index))
            assert delivered(stream, index) == payload(shard(index))
            if index % 3:
                stream.mark_stored(index)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream.close()
    again = reopened(tmp_path)
    assert again.pending() == list(range(0, 60, 3))
    assert sorted(again.journal_state.states) == list(range(60))
    again.close()


def test_chunks_that_were_never_written_are_missing(tmp_path: Path) -> None:
    """Chunks that were only in the memory of a dead process are listed as missing."""
    stream = new_stream(tmp_path)
    for index in range(3):
        stream.journal.append(JournalEntry("accepted", index, shard(index).info.digest))
    stream.put(shard(1))
    stream.close()
    again = reopened(tmp_path)
    assert (again.pending(), again.missing) == ([1], [0, 2])
    again.close()


def test_the_folder_is_removed_after_the_end(tmp_path: Path) -> None:
    """The folder is removed when the stream was ended and has no records, not earlier."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.journal.append_durable(JournalEntry("finalizing"))
    stream.journal.append_durable(JournalEntry("ended"))
    assert not stream.remove_if_ended()
    with pytest.raises(SpoolError, match="still holds chunks"):
        stream.remove()
    stream.mark_stored(0)
    assert stream.remove_if_ended()
    assert [path.name for path in tmp_path.iterdir()] == ["root.lock"]
    with pytest.raises(ClosedError):
        stream.put(shard(1))
    new_stream(tmp_path).close()


def test_not_removed_while_quarantined_or_open(tmp_path: Path) -> None:
    """The folder stays if there is a quarantined record or the stream was not ended."""
    stream = new_stream(tmp_path)
    assert not stream.remove_if_ended()
    stream.put(shard(0))
    stream.quarantine(0, "422")
    stream.journal.append_durable(JournalEntry("ended"))
    assert not stream.remove_if_ended()
    stream.close()


def test_a_stream_has_one_owner(tmp_path: Path) -> None:
    """A stream has one owner; a second one gets SpoolLockedError, and can open it later."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    other = new_spool(tmp_path)
    for take in (
        lambda: other.create_stream(ENDPOINT, spec()),
        lambda: other.open_stream(ENDPOINT, DATA_ID),
    ):
        with pytest.raises(SpoolLockedError, match="holds the spool"):
            take()
    assert [found.locked for found in other.streams()] == [True]
    assert delivered(stream, 0) == payload(shard(0))
    stream.close()
    with pytest.raises(SpoolError, match="resume it"):
        other.create_stream(ENDPOINT, spec())
    with pytest.raises(SpoolError, match="has no stream"):
        other.open_stream(ENDPOINT, "another")
    other.open_stream(ENDPOINT, DATA_ID).close()


def test_a_chunk_of_another_stream_is_refused(tmp_path: Path) -> None:
    """A chunk of another stream is refused."""
    stream = new_stream(tmp_path)
    with pytest.raises(ValueError, match="in the spool of"):
        stream.put(shard(0, data_id="another"))
    stream.close()


def test_digests_of_resolved_chunks_are_kept(tmp_path: Path) -> None:
    """The next process reads the digests of resolved chunks, whether or not they were written to disk (P5)."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.mark_stored(0)
    stream.mark_stored(1)
    assert stream.put(shard(1)) is None
    stream.put(shard(2))
    stream.quarantine(2, "refused")
    stream.close()
    again = reopened(tmp_path)
    assert again.journal_state.digests == {index: shard(index).info.digest for index in range(3)}
    assert again.journal_state.states == {0: "stored", 1: "stored", 2: "quarantined"}
    again.close()
