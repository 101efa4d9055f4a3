"""One process analyses a stream and others follow: equal records everywhere, also after its death (issue 18)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from atomstream.server.live.annotation_records import BoxRecord, CalibrationRecord, NewMark
from atomstream.server.live.messages import EndMessage, EventMessage, RegionsMessage
from atomstream.server.live.shared_records import Position
from atomstream.server.ports.stream_log import LogEntry, OutdatedWriterError
from tests.live_helpers import CHUNK, growth
from tests.server.live.cluster_parts import ID, ClusterParts, cluster_parts, plain, records, until, until_over


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[ClusterParts]:
    async with cluster_parts(tmp_path) as opened:
        yield opened


async def test_a_server_that_does_not_analyse_has_all_results(made: ClusterParts) -> None:
    """Records, columns, profiles and the end reach every other server, also one that opens the stream only
    afterwards."""
    follower = await made.replica("b")
    await made.send(growth(), 0, 1)
    owner = await made.owner("analyst")
    await owner.analysed(1)
    await made.send(growth(), 2, 3)
    await made.analyse(owner, 2, 3)
    owner.end()
    await until_over(owner)
    await until_over(follower)
    await until(follower, owner.seq)
    late = await made.replica("c")
    expected = await records(owner)
    assert isinstance(expected[-1], EndMessage)
    assert plain(expected)
    for other in (follower, late):
        assert await records(other) == expected
        assert other.state == "ended"
        fall, own = other.waterfall("streaks"), owner.waterfall("streaks")
        assert fall is not None
        assert own is not None
        assert fall.plain() == own.plain()


async def test_a_follower_is_over_when_its_feed_has_the_last_record(made: ClusterParts) -> None:
    """The end is in the files of a server before it is in the feed: a reader may not leave between the two."""
    await made.send(growth(), 0, 1)
    owner, follower = await made.owner("first"), await made.replica("b")
    at_the_end, published = asyncio.Event(), asyncio.Event()
    in_thread = follower.replica._in_thread

    async def held(call: Callable[[], Any]) -> Any:
        result = await in_thread(call)
        if follower._store.log.ended:
            at_the_end.set()
            await published.wait()
        return result

    follower.replica._in_thread = held  # type: ignore[method-assign]
    owner.end()
    async with asyncio.timeout(60):
        await at_the_end.wait()
    assert not follower.is_over
    published.set()
    await until_over(follower)
    await until_over(owner)  # it notes the number of a record after the record is in the log
    assert follower.seq == owner.seq


async def test_the_next_owner_continues_with_equal_values(made: ClusterParts) -> None:
    """After the death of an owner another one records what is missing: no number twice, and the same values."""
    frames = growth()
    await made.send(frames, 0, 1, 2, 3)
    alone = await made.owner("alone")
    alone.end()
    await until_over(alone)
    expected = plain(await records(alone))
    await made.close(alone)
    await made.results_log.delete(made.server.folder.name)
    for name in ("state", "running", "results.log", "position", "checkpoint", "profiles", "inputs.log"):
        made.store.delete(f"streams/{made.server.folder.name}/analysis/{name}")

    first = await made.owner("first")
    await first.analysed(1)
    seq = first.seq
    await made.close(first)
    second = await made.owner("second")
    assert second.seq >= seq
    second.end()
    await until_over(second)
    assert plain(await records(second)) == expected


async def test_whoever_opens_a_long_stream_reads_only_its_last_records_again(
    made: ClusterParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server and a next owner with empty folders begin with the copy of a growing stream, and have equal results.

    The columns of the records before the copy are those of the first owner: nobody computes them again.
    """
    monkeypatch.setattr("atomstream.server.live.owned_results.COPY_RECORDS", 1)
    monkeypatch.setattr("atomstream.server.live.owned_results.SNAPSHOT_S", 0.0)
    await made.send(growth(), 0, 1)
    first = await made.owner("first")
    await first.analysed(1)
    assert first._live is not None
    assert first._live._saving is not None
    await first._live._saving
    before = await records(first)
    await made.close(first)
    body = made.store.fetch(f"streams/{ID}/analysis/position")[:-4]  # without its checksum
    copied = msgspec.msgpack.decode(body, type=Position)
    assert copied.records > 0
    begun: list[int] = []
    read = made.results_log.read

    async def noted(subject: str, after: int, limit: int = 256) -> list[LogEntry]:
        begun.append(after)
        return await read(subject, after, limit)

    monkeypatch.setattr(made.results_log, "read", noted)
    follower = await made.replica("b")
    assert (await records(follower))[: copied.records] == before[: copied.records]
    assert begun[0] == copied.results_entry
    begun.clear()
    second = await made.owner("second")
    assert begun[0] >= copied.results_entry
    await made.send(growth(), 2, 3)
    await made.analyse(second, 2, 3)
    second.end()
    await until_over(second)
    await until_over(follower)
    assert await records(follower) == await records(second)
    assert [message.seq for message in await records(second)] == list(range(1, second.seq + 1))


async def test_an_owner_that_was_frozen_is_refused(made: ClusterParts) -> None:
    """Another process has taken over: the first one can't append, notices it, and what it had is used by nobody."""
    frames = growth()
    await made.send(frames, 0, 1)
    first = await made.owner("first")
    await first.analysed(1)
    second = await made.owner("second")
    await made.send(frames, 2)
    await made.analyse(second, 2)
    with pytest.raises(OutdatedWriterError):
        await made.analyse(first, 2)
    await made.send(frames, 3)
    assert first.outdated.is_set()
    await made.analyse(second, 3)
    numbers = [message.seq for message in await records(second)]
    assert numbers == list(range(1, second.seq + 1))


async def test_inputs_of_users_reach_the_analysis_and_all_servers(made: ClusterParts) -> None:
    """Events, regions and a calibration that one server takes are recorded by the owner, and shown by another."""
    await made.send(growth(), 0)
    owner, a, b = await made.owner("analyst"), await made.replica("a"), await made.replica("b")
    event = await a.mark(NewMark("note", "shutter"))
    assert (await a.mark(NewMark("note", "again", id=event.id))).label == "shutter"
    await a.set_regions([BoxRecord("spot", 100.0, 100.0, 20.0, 20.0)])
    await a.calibrate(CalibrationRecord(layer_thickness_nm=0.4))
    async with asyncio.timeout(60):  # results and inputs reach it by two logs
        while b.calibration().layer_thickness_nm is None or not any(
            isinstance(message, RegionsMessage) for message in await records(b)
        ):
            await b.changed.wait()
    assert [message.event.label for message in await records(b) if isinstance(message, EventMessage)] == [
        "shutter"
    ]
    assert [one.label for one in b.events() if one.by == "user"] == ["shutter"]
    assert b.calibration().layer_thickness_nm == 0.4
    await owner.catch_up_inputs()
    assert owner.calibration().layer_thickness_nm == 0.4
    assert {notice.kind for notice in made.notices} == {"inputs"}
    await made.close(owner)
    again = await made.owner("other")
    assert [one.label for one in again.events() if one.by == "user"] == ["shutter"]
    assert len([m for m in await records(again) if isinstance(m, EventMessage)]) == 1


async def test_a_bus_that_lost_everything_is_continued(made: ClusterParts) -> None:
    """The entries of a stream are gone from the bus: its files have the records so far, and the next ones follow."""
    await made.send(growth(), 0, 1)
    owner = await made.owner("analyst")
    await owner.analysed(1)
    follower = await made.replica("a")
    await follower.mark(NewMark("note", "before"))
    seq = follower.seq
    for results in (owner, follower):
        await made.close(results)
    for log in (made.results_log, made.inputs_log):
        await log.delete(made.server.folder.name)
    await made.send(growth(), 2)
    owner, follower = await made.owner("analyst"), await made.replica("a")
    await owner.analysed(2)
    await follower.mark(NewMark("note", "after"))
    await owner.catch_up_inputs()
    await until(follower, owner.seq)
    assert owner.seq > seq
    assert await records(follower) == await records(owner)
    assert [one.label for one in follower.events() if one.by == "user"] == ["before", "after"]


async def test_a_chunk_that_a_copy_to_the_store_has_found_is_analysed(made: ClusterParts) -> None:
    """Copying takes over chunks of other servers into the archive: the analysis gets them as well."""
    await made.send(growth(), 0)
    owner = await made.owner("analyst")
    await owner.analysed(0)
    await made.send(growth(), 1)
    assert await asyncio.to_thread(owner._shared_archive.follow, all_chunks=True) == [1]
    owner.analyse_stored()
    await owner.analysed(1)
    assert owner._store.log.frames_received == 120


async def test_an_owner_that_was_frozen_does_not_replace_newer_objects(made: ClusterParts) -> None:
    """It wakes up after another process has analysed more: its shorter columns and its snapshot are not stored."""
    await made.send(growth(), 0)
    first = await made.owner("first")
    await first.analysed(0)
    await asyncio.to_thread(first._shared_archive.mirror)
    await made.send(growth(), 1, 2)
    second = await made.owner("second")
    await second.analysed(2)
    await asyncio.to_thread(second._shared_archive.mirror, everything=True)
    seen = _objects(made)
    first._shared_archive.write_values("specular_intensity", 0, np.zeros(CHUNK, np.float32))
    (first._store.folder / "state").write_bytes(b"older")
    copy_all = partial(first._shared_archive.mirror, everything=True)
    for write in (copy_all, first._share_state, first._share_files, first._store.end):
        with pytest.raises(OutdatedWriterError):
            await asyncio.to_thread(write)
    with pytest.raises(OutdatedWriterError):
        await first._note_reanalysis()
    assert _objects(made) == seen
    second.end()
    await until_over(second)
    seen = _objects(made)
    assert f"streams/{ID}/analysis/state" not in seen
    with pytest.raises(OutdatedWriterError):
        await asyncio.to_thread(first._share_state)
    assert _objects(made) == seen


async def test_an_object_that_was_replaced_after_the_check_stays(made: ClusterParts) -> None:
    """An owner is frozen between the check and the request to the store: the newer object is not replaced."""
    objects = made.logs.objects(ID)
    objects.put("analysis/state", b"old", lambda: None)
    calls = []

    def overtaken() -> None:
        calls.append("check")
        if len(calls) > 1:
            raise OutdatedWriterError("another process owns it")
        made.store.put(f"streams/{ID}/analysis/state", b"newer")

    with pytest.raises(OutdatedWriterError):
        objects.put("analysis/state", b"old", overtaken)
    assert objects.get("analysis/state") == b"newer"


def _objects(made: ClusterParts) -> dict[str, bytes]:
    """All objects of the store but the chunks."""
    keys = [key for key in made.store.keys("") if "/frames/c/" not in key]
    return {key: made.store.fetch(key) for key in keys}
