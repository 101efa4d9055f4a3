"""Stored results: delta encoding loses nothing, and a start reads only what came since the checkpoint."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import pytest
from msgspec import structs

from atomstream.results import TIME, Event
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live import result_log
from atomstream.server.live.annotation_records import BoxRecord
from atomstream.server.live.messages import (
    AnalyzerBatch,
    BatchMessage,
    CurrentResults,
    EndMessage,
    LostMessage,
    MeasurementRecord,
    MissingChunks,
    NumberedMessage,
    SegmentRecord,
    StoredRecord,
)
from atomstream.server.live.result_log import CHECKPOINT_BYTES, KEPT, KEY_EACH, MAX_EVENTS, ResultLog
from atomstream.server.live.result_store import REANALYSIS, ResultStore, Snapshot
from atomstream.system.record_log import RecordLog
from tests.live_helpers import FPS, growth, send_chunks
from tests.live_server import Serve
from tests.wire_client import WireClient

NAMES = [f"value_{n}" for n in range(20)]


def batch(number: int, dice: random.Random, segments: int = 3) -> BatchMessage:
    """A batch of an analysis: a third of its values are new, and the last segment."""
    names = NAMES[: dice.choice([18, 20]) if number % 97 == 0 else 20]
    ends = {n: number if n == segments else n for n in range(1, segments + 1)}
    none = MeasurementRecord(None, why="nothing grew")
    return BatchMessage(
        start=12 * number,
        count=12,
        frames_received=12 * number + 12,
        events=[],
        values={name: value(number if n < 7 else number // 50) for n, name in enumerate(names)},
        segments=[
            SegmentRecord(n, 0.5, end, f"shutter {n}", none, None, none, none) for n, end in ends.items()
        ],
        views=[],
        detected_regions=[BoxRecord("specular", float(number // 9), 1.0, 2.0, 3.0)],
        made_unix_ms=1e12 + number,
        final=False,
        chunk=number,
    )


def value(number: int) -> MeasurementRecord:
    """A value as records have it."""
    return MeasurementRecord(number * 0.5, None, "px")


@pytest.fixture
async def archive(serve: Serve) -> StreamArchive:
    """The archive of a small stream whose server has stopped."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        await send_chunks(client, data_id, growth()[:60])
    await server.stop()
    made = server.archive(data_id)
    for path in (made.folder / "analysis").iterdir():
        path.unlink()
    return made


def status_of(message: NumberedMessage) -> CurrentResults:
    """The results after a message."""
    assert isinstance(message, BatchMessage)
    return CurrentResults(*(getattr(message, name) for name in KEPT))


def test_each_record_is_read_in_full(archive: StreamArchive) -> None:
    """Each batch is read as it was added, in any order, also from a store that was opened again."""
    dice = random.Random(5)
    records = [batch(number, dice, 1 + number // 100) for number in range(400)]
    store = ResultStore(archive, FPS)
    for record in records:
        assert status_of(store.log.add(record)) == status_of(record)
    for opened in (store, ResultStore(archive, FPS)):
        order = [*range(1, 401), *dice.sample(range(1, 401), 60)]
        assert [status_of(opened.message(seq, ())) for seq in order] == [
            status_of(records[seq - 1]) for seq in order
        ]
        assert opened.log.newest == status_of(records[-1])
        opened.close()


def test_a_start_reads_only_the_rest(archive: StreamArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 3000 records a start reads less than what came since the checkpoint, and has the same state."""
    count, checkpoint_bytes = 3000, CHECKPOINT_BYTES // 16
    monkeypatch.setattr(result_log, "CHECKPOINT_BYTES", checkpoint_bytes)
    dice = random.Random(6)
    store = ResultStore(archive, FPS)
    for number in range(count):
        store.log.add(batch(number, dice))
        if number % 40 == 0:
            store.save(Snapshot(state=b""))
    before = {
        name: getattr(store.log, name) for name in ("seq", "newest", "frames_received", "analysed", "events")
    }
    store.close()
    read: list[int] = []
    real = RecordLog.read

    def counted(log: RecordLog, number: int) -> dict[str, Any]:
        read.append(number)
        return real(log, number)

    monkeypatch.setattr(RecordLog, "read", counted)
    reopened = ResultStore(archive, FPS)
    assert {name: getattr(reopened.log, name) for name in before} == before
    size = (reopened.folder / "results.log").stat().st_size
    assert size > 20 * checkpoint_bytes
    assert len(read) < count * 2 * checkpoint_bytes / size
    assert reopened.log.add(batch(count, dice)).seq == count + 1
    reopened.close()


MISSING = [MissingChunks(why="late", chunks="7", count=1)]


def in_old_keys(record: dict[str, Any]) -> dict[str, Any]:
    """A record as versions before 0.2.0 wrote it."""
    old = {
        "detected_regions": "found",
        "missing": "lacks",
        "reanalysis": "again",
        "frames_received": "fed",
    }
    if record.get("missing"):
        record = {**record, "missing": [[7, "late"]]}
    return {old.get(name, name): value for name, value in record.items()}


def test_older_files_are_read(archive: StreamArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records, checkpoint and marker of an earlier version, which used other keys, are read."""
    real = RecordLog.append
    monkeypatch.setattr(
        RecordLog, "append", lambda log, record: real(log, in_old_keys(msgspec.to_builtins(record)))
    )
    store, dice = ResultStore(archive, FPS), random.Random(3)
    for number in range(3):
        store.log.add(batch(number, dice))
    store.log.add(structs.replace(batch(3, dice), reanalysis=True))
    store.log.add(EndMessage(missing=MISSING))
    before = {name: getattr(store.log, name) for name in ("newest", "frames_received", "analysed")}
    store.begin("again")
    store.close()
    monkeypatch.undo()
    store = ResultStore(archive, FPS)
    assert {name: getattr(store.log, name) for name in before} == before
    assert store.log.missing.parts() == MISSING
    assert status_of(store.message(2)).detected_regions == batch(1, dice).detected_regions
    assert msgspec.to_builtins(store.message(4))["reanalysis"] is True
    assert store.left_running() == REANALYSIS
    store.save(None)
    store.close()
    checkpoint = store.folder / "checkpoint"
    content = msgspec.msgpack.decode(checkpoint.read_bytes()[:-4])
    content["noted"] = in_old_keys({**content["noted"], "newest": in_old_keys(content["noted"]["newest"])})
    body = msgspec.msgpack.encode(content)
    checkpoint.write_bytes(body + google_crc32c.value(body).to_bytes(4, "little"))
    monkeypatch.setattr(ResultLog, "_note", _not_read)
    reopened = ResultStore(archive, FPS)
    assert (reopened.log.newest, reopened.log.frames_received) == (
        before["newest"],
        before["frames_received"],
    )
    assert reopened.log.missing.parts() == MISSING
    reopened.close()


def _not_read(_log: ResultLog, record: StoredRecord) -> None:
    raise AssertionError(f"{record} is read although the checkpoint has it")


def test_records_are_small(archive: StreamArchive) -> None:
    """A record has a fraction of the size of its content: unchanged values are omitted."""
    dice = random.Random(7)
    store = ResultStore(archive, FPS)
    sizes = []
    for number in range(10 * KEY_EACH):
        before = (store.folder / "results.log").stat().st_size
        store.log.add(batch(number, dice, 30))
        sizes.append((store.folder / "results.log").stat().st_size - before)
    store.close()
    assert sum(sizes) < 0.35 * len(sizes) * max(sizes)


@pytest.mark.parametrize("harm", ["cut", "other", "damaged"])
def test_an_invalid_checkpoint_is_ignored(archive: StreamArchive, harm: str) -> None:
    """A checkpoint that is damaged or of another log costs only time: the log is read instead."""
    dice = random.Random(8)
    store = ResultStore(archive, FPS)
    for number in range(50):
        store.log.add(batch(number, dice))
    store.save(None)
    store.close()
    log, checkpoint = store.folder / "results.log", store.folder / "checkpoint"
    whole = 50
    if harm == "cut":
        _cut(log)
        whole = 49
    elif harm == "other":
        log.unlink()
        whole = 0
    else:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-3])
    reopened = ResultStore(archive, FPS)
    assert reopened.log.seq == whole
    assert reopened.log.frames_received == 12 * whole
    reopened.close()


def _cut(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-3])


def test_cached_events_are_bounded(archive: StreamArchive) -> None:
    """With any number of events the newest ones are in memory, also in a store opened again; the log has all."""
    store, dice = ResultStore(archive, FPS), random.Random(8)
    for number in range(25):
        found = [Event(1.0, "exposure", id=f"{number}-{n}") for n in range(500)]
        store.log.add(structs.replace(batch(number, dice), events=found))
    store.save(None)
    store.close()
    for opened in (store, ResultStore(archive, FPS)):
        assert len(opened.log.events) == MAX_EVENTS
        assert opened.log.events[-1].id == "24-499"
        opened.close()
    reader = RecordLog(archive.folder / "analysis" / "results.log")
    assert sum(len(reader.read(number)["events"]) for number in range(1, 26)) == 12_500
    reader.close()


def test_another_analysis_leaves_no_stale_number(archive: StreamArchive) -> None:
    """If a second analysis finds no value, the value of the first is removed; traces of regions stay."""
    store = ResultStore(archive, FPS)
    numbers = np.arange(12, dtype="<f4").tobytes()
    first = AnalyzerBatch(0, 12, dict.fromkeys(("layers_grown", "region_a"), numbers))
    store.write_columns(first)
    store.replace_columns(structs.replace(first, columns={}), frozenset({"region_a"}))
    assert np.isfinite(store.columns_at(np.arange(12))["layers_grown"]).all()
    store.replace_columns(structs.replace(first, columns={"oscillations_counted": numbers}))
    read = store.columns_at(np.arange(12))
    assert np.isnan(read["layers_grown"]).all()
    assert read["region_a"].tolist() == read["oscillations_counted"].tolist() == list(range(12))
    store.close()


def test_a_restarted_analysis_leaves_no_stale_number(archive: StreamArchive) -> None:
    """Frames that another version analyses again keep no number that it does not find."""
    store = ResultStore(archive, FPS)
    numbers = np.arange(12, dtype="<f4").tobytes()
    times = np.arange(12, dtype="<f8").tobytes()
    both = dict.fromkeys(("layers_grown", "oscillations_counted"), numbers)
    first = AnalyzerBatch(0, 12, {**both, TIME: times}, profile=bytes(32), frames_received=12)
    assert store.add_batch(first, (), chunk=0, final=False) is not None
    other = structs.replace(first, columns={"oscillations_counted": numbers, TIME: times})
    assert store.add_batch(other, (), chunk=0, final=False) is None  # sent before
    read = store.columns_at(np.arange(12))
    assert np.isnan(read["layers_grown"]).all()
    assert read["oscillations_counted"].tolist() == list(range(12))
    store.close()


def test_no_number_is_kept_over_a_lost_record(archive: StreamArchive) -> None:
    """A shortened record omits what it has in common with the one before: if that one is lost, nothing shows which
    numbers it had changed, so older ones are not shown in their place. The next record is complete again.
    """
    dice = random.Random(11)
    store = ResultStore(archive, FPS)
    records = [batch(number, dice) for number in range(1, 13)]
    places = [store.log._log.positions["end"]]
    for record in records:
        store.log.add(record)
        places.append(store.log._log.positions["end"])
    store.close()
    path = store.folder / "results.log"
    raw = bytearray(path.read_bytes())
    raw[places[8] + 30] ^= 4  # record 9
    path.write_bytes(raw)
    store = ResultStore(archive, FPS)
    assert isinstance(store.message(9, ()), LostMessage)
    assert status_of(store.message(8, ())) == status_of(records[7])
    for seq in (10, 12):
        shown, right = status_of(store.message(seq, ())), status_of(records[seq - 1])
        assert shown.values.items() <= right.values.items()
        assert all(segment in right.segments for segment in shown.segments)
    assert store.log.newest == status_of(store.message(12, ()))
    assert len(store.log.newest.values) < len(records[-1].values)
    complete = batch(13, dice)
    store.log.add(complete)
    assert store.log.newest == status_of(complete)
    store.close()


def test_a_damaged_record_costs_one_message(archive: StreamArchive) -> None:
    """In a log with one flipped bit all other records keep their numbers; the feed reports the lost one."""
    dice = random.Random(9)
    store = ResultStore(archive, FPS)
    starts = [store.log._log.positions["end"]]
    for number in range(2 * KEY_EACH):
        store.log.add(batch(number, dice))
        starts.append(store.log._log.positions["end"])
    store.close()
    path = store.folder / "results.log"
    raw = bytearray(path.read_bytes())
    raw[starts[9] + 30] ^= 4
    path.write_bytes(raw)
    reopened = ResultStore(archive, FPS)
    assert reopened.log.seq == 2 * KEY_EACH
    assert reopened.message(10) == LostMessage(count=1, first=10, last=10, seq=10)
    for number in {*range(2 * KEY_EACH)} - {9}:
        assert msgspec.to_builtins(reopened.message(number + 1))["chunk"] == number
    reopened.close()
