"""What every StreamLog keeps: order, the expected number of an append, keys, following (atomstream.server.ports)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from atomstream.cluster.engines import Nats
from atomstream.server.ports.local_stream_log import LocalStreamLog
from atomstream.server.ports.stream_log import LogEntry, OutdatedWriterError, StreamLog


@asynccontextmanager
async def local(tmp_path: Path) -> AsyncIterator[StreamLog]:
    log = LocalStreamLog(tmp_path)
    yield log
    await log.close()


@asynccontextmanager
async def jetstream(nats: Nats) -> AsyncIterator[StreamLog]:
    from atomstream.server.ports.bus import Bus
    from atomstream.server.ports.jetstream_log import JetStreamLog

    bus = await Bus.connect(nats.url, f"t{uuid.uuid4().hex[:8]}")
    yield JetStreamLog(bus, "results")
    await bus.close()


@pytest.fixture(params=["local", "jetstream"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StreamLog]:
    opened = (
        local(tmp_path) if request.param == "local" else jetstream(request.getfixturevalue("nats_server"))
    )
    async with opened as made:
        yield made


async def test_entries_are_read_in_order(log: StreamLog) -> None:
    """Numbers ascend; ``read`` returns those above a number, at most as many as asked for."""
    numbers = [await log.append("a", b"%d" % k, after=None) for k in range(5)]
    await log.append("b", b"other", after=0)
    assert numbers == sorted(set(numbers))
    assert [entry.payload for entry in await log.read("a", 0)] == [b"0", b"1", b"2", b"3", b"4"]
    assert await log.read("a", numbers[1], 2) == [LogEntry(numbers[2], b"2"), LogEntry(numbers[3], b"3")]
    assert await log.read("a", numbers[-1]) == []
    assert await log.last("a") == LogEntry(numbers[4], b"4")
    assert await log.last("none") is None
    assert await log.read("none", 0) == []


async def test_an_append_behind_another_entry_is_refused(log: StreamLog) -> None:
    """A writer that states another last entry is refused, and nothing is stored; one that states the right one can
    append.
    """
    first = await log.append("a", b"1", after=0)
    second = await log.append("a", b"2", after=first)
    for known in (0, first):
        with pytest.raises(OutdatedWriterError):
            await log.append("a", b"x", after=known)
    third = await log.append("a", b"3", after=second)
    assert [entry.number for entry in await log.read("a", 0)] == [first, second, third]


async def test_of_two_writers_one_succeeds(log: StreamLog) -> None:
    """Two that append behind the same entry at the same time: one is stored, the other is refused."""
    done = await asyncio.gather(
        *(log.append("a", b"%d" % k, after=0, key=f"writer {k}") for k in range(2)), return_exceptions=True
    )
    assert {type(one) for one in done} == {int, OutdatedWriterError}
    assert len(await log.read("a", 0)) == 1


async def test_a_repeat_with_the_same_key_is_stored_once(log: StreamLog) -> None:
    """After a lost answer the same append is repeated: it returns the number of the first one."""
    number = await log.append("a", b"1", after=0, key="k")
    assert await log.append("a", b"1", after=0, key="k") == number
    assert len(await log.read("a", 0)) == 1


async def test_following_gets_old_and_new_entries_once(log: StreamLog) -> None:
    """A follower gets every entry above its number once, those that are there before and those appended later."""
    numbers = [await log.append("a", b"old %d" % k, after=None) for k in range(3)]
    got: list[bytes] = []

    async def follow() -> None:
        async with aclosing(log.follow("a", numbers[0])) as entries:
            async for entry in entries:
                got.append(entry.payload)
                if entry.payload == b"end":
                    return

    task = asyncio.create_task(follow())
    for k in range(20):
        await log.append("a", b"new %d" % k, after=None)
        await log.append("b", b"another subject", after=None)
    await log.append("a", b"end", after=None)
    await asyncio.wait_for(task, 60)
    assert got == [b"old 1", b"old 2", *(b"new %d" % k for k in range(20)), b"end"]


async def test_many_entries_are_followed(log: StreamLog) -> None:
    """More entries than one answer holds are followed without a gap."""
    for k in range(600):
        await log.append("a", b"%d" % k, after=None)
    async with aclosing(log.follow("a", 0)) as entries:
        for k in range(600):
            assert (await anext(entries)).payload == b"%d" % k


async def test_a_deleted_subject_is_empty(log: StreamLog) -> None:
    """``delete`` removes the entries of one subject and leaves the others; it may be used again."""
    await log.append("a", b"1", after=0)
    await log.append("b", b"2", after=0)
    await log.delete("a")
    await log.delete("none")
    assert await log.read("a", 0) == []
    assert await log.last("a") is None
    assert len(await log.read("b", 0)) == 1
    await log.append("a", b"3", after=0)
    assert [entry.payload for entry in await log.read("a", 0)] == [b"3"]
