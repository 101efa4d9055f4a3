"""The records of results: nothing that was said is lost by saying only what is new, and a start reads only the rest."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import pytest

from atomstream.results import TIME
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.result_log import CHECKPOINT_BYTES, KEPT, KEY_EACH, MAX_EVENTS, ResultLog
from atomstream.server.live.result_store import REANALYSIS, ResultStore
from atomstream.system.record_log import RecordLog
from tests.live_helpers import FPS, growth, send_chunks
from tests.live_server import Serve
from tests.wire_client import WireClient

NAMES = [f"value_{n}" for n in range(20)]


def batch(number: int, dice: random.Random, segments: int = 3) -> dict[str, Any]:
    """A batch of an analysis: a third of its values are new, and the last segment."""
    names = NAMES[: dice.choice([18, 20]) if number % 97 == 0 else 20]
    ends = {n: number if n == segments else n for n in range(1, segments + 1)}
    return {
        "type": "batch",
        "start": 12 * number,
        "count": 12,
        "fed": 12 * number + 12,
        "events": [],
        "values": {name: value(number if n < 7 else number // 50) for n, name in enumerate(names)},
        "segments": [{"number": n, "label": f"shutter {n}", "end_s": end} for n, end in ends.items()],
        "views": [],
        "detected_regions": [{"name": "specular", "x": number // 9}],
        "made_unix_ms": 1e12 + number,
        "final": False,
        "chunk": number,
    }


def value(number: int) -> dict[str, Any]:
    """A value as records have it."""
    return {"value": number * 0.5, "sigma": None, "unit": "px", "why": "", "note": ""}


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


def kept(message: dict[str, Any]) -> dict[str, Any]:
    """What a message says of how all stands."""
    return {name: message[name] for name in KEPT}


def test_every_record_is_told_in_full(archive: StreamArchive) -> None:
    """Any batch is read as it was added, in order or not, also of a store that was opened again."""
    dice = random.Random(5)
    said = [batch(number, dice, 1 + number // 100) for number in range(400)]
    store = ResultStore(archive, FPS)
    for record in said:
        assert kept(store.log.add(record)) == kept(record)
    for opened in (store, ResultStore(archive, FPS)):
        order = [*range(1, 401), *dice.sample(range(1, 401), 60)]
        assert [kept(opened.message(seq, ())) for seq in order] == [kept(said[seq - 1]) for seq in order]
        assert opened.log.newest == kept(said[-1])
        opened.close()


def test_a_start_reads_only_the_rest(archive: StreamArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 40 000 records a start reads less than what came since the checkpoint, and knows all the same."""
    dice = random.Random(6)
    store = ResultStore(archive, FPS)
    for number in range(40_000):
        store.log.add(batch(number, dice))
        if number % 500 == 0:
            store.save({"state": b""})
    before = {name: getattr(store.log, name) for name in ("seq", "newest", "fed", "analysed", "events")}
    store.close()
    read: list[int] = []
    real = RecordLog.read

    def counted(log: RecordLog, number: int) -> dict[str, Any]:
        read.append(number)
        return real(log, number)

    monkeypatch.setattr(RecordLog, "read", counted)
    again = ResultStore(archive, FPS)
    assert {name: getattr(again.log, name) for name in before} == before
    size = (again.folder / "results.log").stat().st_size
    assert len(read) < 40_000 * 2 * CHECKPOINT_BYTES / size
    assert again.log.add(batch(40_000, dice))["seq"] == 40_001
    again.close()


def in_old_keys(record: dict[str, Any]) -> dict[str, Any]:
    """A record as versions before 0.1.0 wrote it."""
    old = {"detected_regions": "found", "missing": "lacks", "reanalysis": "again"}
    return {old.get(name, name): value for name, value in record.items()}


def test_older_files_are_read(archive: StreamArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records, checkpoint and marker of an earlier version, which used other keys, are read."""
    real = RecordLog.append
    monkeypatch.setattr(RecordLog, "append", lambda log, record: real(log, in_old_keys(record)))
    store, dice = ResultStore(archive, FPS), random.Random(3)
    for number in range(3):
        store.log.add(batch(number, dice))
    store.log.add({**batch(3, dice), "reanalysis": True})
    store.log.add({"type": "end", "missing": [(7, "late")]})
    before = {name: getattr(store.log, name) for name in ("newest", "fed", "analysed")}
    store.begin("again")
    store.close()
    monkeypatch.undo()
    store = ResultStore(archive, FPS)
    assert {name: getattr(store.log, name) for name in before} == before
    assert store.log.missing == {7: "late"}
    assert store.message(2)["detected_regions"] == batch(1, dice)["detected_regions"]
    assert store.message(4)["reanalysis"] is True
    assert store.left_running() == REANALYSIS
    store.save({})
    store.close()
    checkpoint = store.folder / "checkpoint"
    kept = msgspec.msgpack.decode(checkpoint.read_bytes()[:-4])
    kept["noted"] = in_old_keys({**kept["noted"], "newest": in_old_keys(kept["noted"]["newest"])})
    body = msgspec.msgpack.encode(kept)
    checkpoint.write_bytes(body + google_crc32c.value(body).to_bytes(4, "little"))
    monkeypatch.setattr(ResultLog, "_note", _not_read)
    again = ResultStore(archive, FPS)
    assert again.log.newest == before["newest"]
    assert again.log.missing == {7: "late"}
    again.close()


def _not_read(_log: ResultLog, record: dict[str, Any]) -> None:
    raise AssertionError(f"{record} is read although the checkpoint has it")


def test_records_are_small(archive: StreamArchive) -> None:
    """A record takes a share of what it says: what did not change is not written again."""
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
def test_a_checkpoint_that_does_not_fit(archive: StreamArchive, harm: str) -> None:
    """A checkpoint that is damaged, or speaks of another log, costs time alone: the log itself is read."""
    dice = random.Random(8)
    store = ResultStore(archive, FPS)
    for number in range(50):
        store.log.add(batch(number, dice))
    store.save({})
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
    again = ResultStore(archive, FPS)
    assert again.log.seq == whole
    assert again.log.fed == 12 * whole
    again.close()


def _cut(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-3])


def test_events_at_hand_have_a_bound(archive: StreamArchive) -> None:
    """However many the analysis finds, the newest are at hand, also of a store opened again; the log has all."""
    store, dice = ResultStore(archive, FPS), random.Random(8)
    for number in range(25):
        found = [{"id": f"{number}-{n}", "kind": "exposure", "label": "", "time_s": 1.0} for n in range(500)]
        store.log.add({**batch(number, dice), "events": found})
    store.save({})
    store.close()
    for opened in (store, ResultStore(archive, FPS)):
        assert len(opened.log.events) == MAX_EVENTS
        assert opened.log.events[-1]["id"] == "24-499"
        opened.close()
    reader = RecordLog(archive.folder / "analysis" / "results.log")
    assert sum(len(reader.read(number)["events"]) for number in range(1, 26)) == 12_500
    reader.close()


def test_another_analysis_leaves_no_stale_number(archive: StreamArchive) -> None:
    """Where a second analysis finds nothing, the first one's number goes; traces of regions stay."""
    store = ResultStore(archive, FPS)
    numbers = np.arange(12, dtype="<f4").tobytes()
    first = {"start": 0, "count": 12, "columns": dict.fromkeys(("layers_grown", "region_a"), numbers)}
    store.write_columns(first)
    store.replace_columns({**first, "columns": {}}, frozenset({"region_a"}))
    assert np.isfinite(store.columns(0, 12)["layers_grown"]).all()
    store.replace_columns({**first, "columns": {"oscillations_counted": numbers}})
    read = store.columns(0, 12)
    assert np.isnan(read["layers_grown"]).all()
    assert read["region_a"].tolist() == read["oscillations_counted"].tolist() == list(range(12))
    store.close()


def test_an_analysis_begun_anew_leaves_no_stale_number(archive: StreamArchive) -> None:
    """Frames that are analysed once more, by another version, keep no number that it does not find."""
    store = ResultStore(archive, FPS)
    numbers = np.arange(12, dtype="<f4").tobytes()
    times = np.arange(12, dtype="<f8").tobytes()
    extra = {"profile": np.zeros(8, "<f4").tobytes(), "lines": {}}
    both = dict.fromkeys(("layers_grown", "oscillations_counted"), numbers)
    first = {**batch(0, random.Random(1)), **extra, "columns": {**both, TIME: times}}
    assert store.add_batch(first, (), chunk=0, final=False) is not None
    other = {**first, "columns": {"oscillations_counted": numbers, TIME: times}}
    assert store.add_batch(other, (), chunk=0, final=False) is None  # told before
    read = store.columns(0, 12)
    assert np.isnan(read["layers_grown"]).all()
    assert read["oscillations_counted"].tolist() == list(range(12))
    store.close()


def test_a_damaged_record_costs_one_message(archive: StreamArchive) -> None:
    """All other records of a log with one flipped bit keep their numbers; the feed is told of the lost one."""
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
    again = ResultStore(archive, FPS)
    assert again.log.seq == 2 * KEY_EACH
    assert again.message(10) == {"type": "lost", "count": 1, "first": 10, "last": 10, "seq": 10}
    for number in {*range(2 * KEY_EACH)} - {9}:
        assert again.message(number + 1)["chunk"] == number
    again.close()
