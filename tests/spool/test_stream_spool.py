"""One stream's folder in good weather and with a fault at every single disk call."""

from __future__ import annotations

import errno
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from spool_kit import (
    DATA_ID,
    ENDPOINT,
    FaultyDisk,
    delivered,
    new_spool,
    new_stream,
    payload,
    reopened,
    shard,
    spec,
)

from atomstream.errors import ChunkConflictError, ClosedError, SpoolError, SpoolFullError, SpoolLockedError
from atomstream.records import ChunkState
from atomstream.spool import Disk, Entry, Geometry, StreamManifest, StreamSpool


def test_a_chunk_comes_back_as_it_was(tmp_path: Path) -> None:
    """What was put is pending, with its head and its bytes, now and after a restart."""
    stream = new_stream(tmp_path)
    put = stream.put(shard(3))
    assert put is not None
    assert put.path.stat().st_size == put.nbytes == stream.pending_bytes()
    assert stream.chunk(3) == put
    stream.close()
    again = reopened(tmp_path)
    assert again.pending() == [3]
    assert again.history.states == {3: "pending"}
    assert again.history.digests == {3: shard(3).digest}
    assert again.chunk(3) == put
    assert delivered(again, 3) == payload(shard(3))
    again.close()


def test_every_way_a_chunk_can_end(tmp_path: Path) -> None:
    """Stored, dropped, purged, quarantined: each is in the journal, and only what is done is gone."""
    stream = new_stream(tmp_path)
    for index in range(5):
        stream.put(shard(index))
    stream.forget(0)
    stream.discard(1, "dropped", "no room")
    stream.discard(2, "purged", "asked for")
    stream.quarantine(3, "422")
    assert (stream.pending(), stream.quarantined()) == ([4], [3])
    stream.close()
    again = reopened(tmp_path)
    states: dict[int, ChunkState] = {0: "stored", 1: "dropped", 2: "purged", 3: "quarantined", 4: "pending"}
    assert again.history.states == states
    assert again.history.reasons == {1: "no room", 2: "asked for", 3: "422"}
    assert (again.pending(), again.quarantined(), again.missing) == ([4], [3], [])
    again.requeue(3)
    assert delivered(again, 3) == payload(shard(3))
    again.quarantine(3, "422 again")
    assert again.purge("by hand") == [3, 4]
    assert (again.pending(), again.quarantined()) == ([], [])
    again.close()


def test_put_twice(tmp_path: Path) -> None:
    """The same chunk again is nothing new; another content under its index is a conflict."""
    stream = new_stream(tmp_path)
    assert stream.put(shard(0)) == stream.put(shard(0))
    with pytest.raises(ChunkConflictError, match="other frames"):
        stream.put(shard(0, variant=1))
    assert delivered(stream, 0) == payload(shard(0))
    stream.close()


def test_put_after_the_end_of_a_chunk(tmp_path: Path) -> None:
    """A chunk that was settled meanwhile is not written any more."""
    stream = new_stream(tmp_path)
    stream.forget(0)
    assert stream.put(shard(0)) is None
    stream.close()
    again = reopened(tmp_path)
    assert again.history.states == {0: "stored"}
    assert again.put(shard(0)) is None
    again.close()


def test_upload_from_memory_overtakes_the_disk(tmp_path: Path) -> None:
    """A chunk confirmed while its record is being written leaves no record behind."""
    reached, go_on = threading.Event(), threading.Event()

    class SlowDisk(Disk):
        def rename(self, source: Path, target: Path) -> None:
            if target.suffix == ".rec":
                reached.set()
                assert go_on.wait(20)
            super().rename(source, target)

    stream = new_stream(tmp_path, SlowDisk())
    writer = threading.Thread(target=stream.put, args=(shard(0),))
    writer.start()
    assert reached.wait(20)
    uploader = threading.Thread(target=stream.forget, args=(0,))
    uploader.start()
    go_on.set()
    writer.join()
    uploader.join()
    assert stream.pending() == []
    assert not list(stream.folder.glob("chunk-*"))
    stream.close()


def test_many_threads(tmp_path: Path) -> None:
    """Encoders and uploaders may all work at once."""
    stream = new_stream(tmp_path)

    def work(start: int) -> None:
        for index in range(start, 60, 4):
            stream.put(shard(index))
            assert delivered(stream, index) == payload(shard(index))
            if index % 3:
                stream.forget(index)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream.close()
    again = reopened(tmp_path)
    assert again.pending() == list(range(0, 60, 3))
    assert sorted(again.history.states) == list(range(60))
    again.close()


def test_accepted_but_never_written(tmp_path: Path) -> None:
    """Chunks that were in memory only when their process died are listed, for they are lost."""
    stream = new_stream(tmp_path)
    for index in range(3):
        stream.journal.append(Entry("accepted", index, shard(index).digest))
    stream.put(shard(1))
    stream.close()
    again = reopened(tmp_path)
    assert (again.pending(), again.missing) == ([1], [0, 2])
    again.close()


def test_description_and_its_second_copy(tmp_path: Path) -> None:
    """A changed description is kept, and a damaged stream.json is mended from the journal."""
    stream = new_stream(tmp_path)
    manifest = StreamManifest(ENDPOINT, replace(spec(), rpm=0.0), Geometry(480, 640, "uint16"))
    stream.describe(manifest)
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


def test_nothing_tells_what_it_is(tmp_path: Path) -> None:
    """Without description and journal a folder is reported, and its records are left as they are."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.close()
    (stream.folder / "stream.json").write_text("{}")
    (stream.folder / "journal").write_bytes(b"")
    spool = new_spool(tmp_path)
    with pytest.raises(SpoolError, match="left as they are"):
        spool.open_existing(ENDPOINT, DATA_ID)
    (found,) = spool.found()
    assert found.manifest is None
    assert "damaged" in found.problem
    assert spool.recoverable(ENDPOINT) == []
    assert (stream.folder / "chunk-00000000.rec").exists()


def test_lost_journal(tmp_path: Path) -> None:
    """Where somebody removed the journal, the records still tell what is to be delivered."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.put(shard(7))
    stream.close()
    (stream.folder / "journal").unlink()
    again = reopened(tmp_path)
    assert again.history.digests == {0: shard(0).digest, 7: shard(7).digest}
    assert delivered(again, 7) == payload(shard(7))
    again.close()


@pytest.mark.parametrize("at", [3, 20, 100, -1])
def test_a_damaged_record_costs_only_itself(
    tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit in magic, header or payload: that chunk is quarantined under its name, the others go."""
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
    """Files and folders that are not ours stay, wherever they lie, and count for nothing."""
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
    again.forget(0)
    again.journal.append_durable(Entry("ended"))
    assert again.remove_if_done()
    assert all(path.read_text() == "keep me" for path in foreign)
    assert not (again.folder / "journal").exists()


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """A link where a record or a stream's folder could be is not ours."""
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


def test_half_written_files_go(tmp_path: Path) -> None:
    """What a process left half-written under our temporary names is removed at the next opening."""
    stream = new_stream(tmp_path)
    stream.close()
    for name in ("chunk-00000004.rec.tmp", "journal.tmp", "stream.json.tmp"):
        (stream.folder / name).write_bytes(b"half")
    again = reopened(tmp_path)
    assert not list(again.folder.glob("*.tmp"))
    assert again.history.states == {}
    again.close()


def test_removed_only_when_done(tmp_path: Path) -> None:
    """The folder goes when the stream was ended and nothing of it is left, and not before."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.journal.append_durable(Entry("finalizing"))
    stream.journal.append_durable(Entry("ended"))
    assert not stream.remove_if_done()
    with pytest.raises(SpoolError, match="still holds chunks"):
        stream.remove()
    stream.forget(0)
    assert stream.remove_if_done()
    assert [path.name for path in tmp_path.iterdir()] == ["root.lock"]
    with pytest.raises(ClosedError):
        stream.put(shard(1))
    new_stream(tmp_path).close()


def test_not_removed_while_quarantined_or_open(tmp_path: Path) -> None:
    """A quarantined record, or a stream that was not ended, keeps the folder."""
    stream = new_stream(tmp_path)
    assert not stream.remove_if_done()
    stream.put(shard(0))
    stream.quarantine(0, "422")
    stream.journal.append_durable(Entry("ended"))
    assert not stream.remove_if_done()
    stream.close()


def test_claimed_twice(tmp_path: Path) -> None:
    """A stream has one holder; a second gets SpoolLockedError, and later finds it there."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    other = new_spool(tmp_path)
    for take in (
        lambda: other.claim(ENDPOINT, spec()),
        lambda: other.open_existing(ENDPOINT, DATA_ID),
    ):
        with pytest.raises(SpoolLockedError, match="holds the spool"):
            take()
    assert [found.locked for found in other.found()] == [True]
    assert delivered(stream, 0) == payload(shard(0))
    stream.close()
    with pytest.raises(SpoolError, match="resume it"):
        other.claim(ENDPOINT, spec())
    with pytest.raises(SpoolError, match="has no stream"):
        other.open_existing(ENDPOINT, "another")
    other.open_existing(ENDPOINT, DATA_ID).close()


# --- a fault at every single disk call -------------------------------------------------------------------


class Told:
    """What a scenario was told: which of its steps were acknowledged."""

    def __init__(self) -> None:
        self.done: dict[int, str] = {}
        self.maybe: dict[int, set[str]] = {}

    @contextmanager
    def step(self, index: int, state: str) -> Iterator[None]:
        try:
            yield
        except SpoolError:
            self.maybe.setdefault(index, {self.done.get(index, "none")}).add(state)
        else:
            self.done[index] = state
            self.maybe.pop(index, None)


def life(stream: StreamSpool, told: Told) -> None:
    """A bit of everything; each step goes on whether or not the one before worked."""
    for index in range(4):
        with told.step(index, "pending"):
            stream.put(shard(index))
    for index, state, act in _ends(stream):
        with told.step(index, state):
            act()
    with told.step(4, "pending"):
        stream.put(shard(4))
    if told.done.get(2) == "quarantined":
        with told.step(2, "pending"):
            stream.requeue(2)


def _ends(stream: StreamSpool) -> list[tuple[int, str, Callable[[], None]]]:
    return [
        (0, "stored", lambda: stream.forget(0)),
        (1, "dropped", lambda: stream.discard(1, "dropped", "no room")),
        (2, "quarantined", lambda: stream.quarantine(2, "422")),
    ]


def check(stream: StreamSpool, told: Told, context: object) -> None:
    """All that was acknowledged holds; what was refused either happened or did not; nothing is garbled."""
    for index in range(5):
        allowed = told.maybe.get(index, {told.done.get(index, "none")})
        state = stream.history.states.get(index, "none")
        assert state in allowed, (index, state, allowed, context)
        assert (index in stream.pending()) == (state == "pending"), (index, context)
        assert (index in stream.quarantined()) <= (state == "quarantined"), (index, context)
    for index in stream.pending():
        assert delivered(stream, index) == payload(shard(index)), (index, context)
    if told.done.get(2) == "quarantined" and 2 not in told.maybe:
        assert stream.quarantined() == [2], context


def attempt(root: Path, disk: FaultyDisk) -> Told:
    told = Told()
    try:
        stream = new_stream(root, disk)
    except SpoolError:
        return told
    life(stream, told)
    try:
        stream.close()
    except SpoolError:
        assert disk.calls[-1] == "close"
    return told


FAULTS = [(code, late) for code in (errno.EIO, errno.ENOSPC, errno.EROFS) for late in (False, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "late"), FAULTS)
def test_one_failing_call(tmp_path: Path, code: int, late: bool) -> None:
    """Whichever disk call fails, and however, nothing acknowledged is lost and the next start is right."""
    clean = FaultyDisk()
    assert len(attempt(tmp_path / "clean", clean).done) == 5
    for number in range(len(clean.calls)):
        disk = FaultyDisk(number, code=code, late=late)
        told = attempt(tmp_path / str(number), disk)
        if told.done or told.maybe:
            again = reopened(tmp_path / str(number))
            check(again, told, (number, disk.calls[number]))
            again.close()


@pytest.mark.slow
@pytest.mark.parametrize(("code", "late"), FAULTS)
def test_a_disk_that_dies(tmp_path: Path, code: int, late: bool) -> None:
    """From any call on everything fails; once the disk is back, all that was acknowledged is there."""
    clean = FaultyDisk()
    attempt(tmp_path / "clean", clean)
    for number in range(len(clean.calls)):
        disk = FaultyDisk(number, 1 << 30, code=code, late=late)
        told = attempt(tmp_path / str(number), disk)
        if told.done or told.maybe:
            again = reopened(tmp_path / str(number))
            check(again, told, (number, disk.calls[number]))
            again.close()


@pytest.mark.slow
@pytest.mark.parametrize(("code", "late"), FAULTS)
def test_a_fault_while_opening(tmp_path: Path, code: int, late: bool) -> None:
    """An opening that fails, or that a fault accompanies, changes nothing of what is there."""
    told = Told()
    stream = new_stream(tmp_path)
    life(stream, told)
    stream.close()
    for number in range(200):
        (stream.folder / "stream.json").write_text("damaged")
        with (stream.folder / "journal").open("ab") as file:
            file.write(b"\xa7Jtorn")
        disk = FaultyDisk(number, code=code, late=late)
        with suppress(SpoolError):
            opened = reopened(tmp_path, disk)
            disk.heal()
            check(opened, told, number)
            opened.close()
        healed = reopened(tmp_path)
        check(healed, told, number)
        healed.close()
        if len(disk.calls) <= number:
            return
    pytest.fail("the faults never got past the opening")


def test_a_full_disk_drains(tmp_path: Path) -> None:
    """With not a byte left for the journal, confirmed records go all the same, and stay gone."""
    disk = FaultyDisk(code=errno.ENOSPC)
    stream = new_stream(tmp_path, disk)
    for index in range(3):
        stream.put(shard(index))
    stream.quarantine(2, "422")
    real = disk.write
    disk.write = lambda fd, pieces: _refuse()  # type: ignore[method-assign,misc]
    stream.forget(0)
    stream.discard(1, "purged", "asked for")
    stream.discard(2, "purged", "asked for")
    with pytest.raises(SpoolFullError):
        stream.forget(9)
    assert stream.pending() == []
    assert sum(path.stat().st_size for path in stream.folder.glob("chunk-*")) == 0
    assert new_spool(tmp_path).status()["bytes"] == 0
    disk.write = real  # type: ignore[method-assign]
    stream.close()
    again = reopened(tmp_path)
    assert again.history.states == {0: "stored", 1: "purged", 2: "purged"}
    assert not list(again.folder.glob("chunk-*"))
    again.close()


def _refuse() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_words_of_a_fault(tmp_path: Path) -> None:
    """A fault's sentence names the chunk, the file and the reason, and says what is safe and what to do."""
    disk = FaultyDisk(code=errno.ENOSPC)
    stream = new_stream(tmp_path, disk)
    disk.first = disk.last = len(disk.calls) + 2
    with pytest.raises(SpoolFullError, match=r"chunk 5 of stream .*chunk-00000005\.rec.*Free some space"):
        stream.put(shard(5))
    assert stream.put(shard(5)) is not None
    stream.close()


def test_another_streams_chunk(tmp_path: Path) -> None:
    """A chunk of another stream is refused."""
    stream = new_stream(tmp_path)
    with pytest.raises(ValueError, match="in the spool of"):
        stream.put(shard(0, data_id="another"))
    stream.close()
