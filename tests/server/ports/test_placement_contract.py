"""What every Placement keeps: each notice is done, in order, again after a failure (atomstream.server.ports)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from atomstream.cluster.engines import Nats
from atomstream.server.ports.local_placement import LocalPlacement
from atomstream.server.ports.placement import PARTITIONS, Handler, Notice, Placement, partition_of

STREAMS = [str(uuid.UUID(int=k)) for k in range(40)]


@asynccontextmanager
async def working(placement: Placement, handler: Handler) -> AsyncIterator[list[int]]:
    """``placement.work`` runs; yields the list of lost partitions."""
    lost: list[int] = []

    async def note(partition: int) -> None:
        lost.append(partition)

    task = asyncio.create_task(placement.work(handler, note))
    try:
        yield lost
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Done:
    """A handler that notes each notice, and waits for a number of them."""

    def __init__(self, fail: Callable[[Notice], bool] = lambda _notice: False) -> None:
        self.notices: list[Notice] = []
        self._fail = fail
        self._changed = asyncio.Condition()

    async def __call__(self, notice: Notice) -> None:
        if self._fail(notice):
            raise RuntimeError("not now")
        self.notices.append(notice)
        async with self._changed:
            self._changed.notify_all()

    async def wait(self, count: int) -> None:
        async with self._changed, asyncio.timeout(30):
            await self._changed.wait_for(lambda: len(self.notices) >= count)


@pytest.fixture(params=["local", "jetstream"])
async def placement(request: pytest.FixtureRequest) -> AsyncIterator[Placement]:
    if request.param == "local":
        yield LocalPlacement()
        return
    async with jetstream(request.getfixturevalue("nats_server")) as (placement,):
        yield placement


@asynccontextmanager
async def jetstream(nats: Nats, count: int = 1) -> AsyncIterator[list[Placement]]:
    from atomstream.server.ports.bus import Bus
    from atomstream.server.ports.jetstream_placement import JetStreamPlacement

    name = f"t{uuid.uuid4().hex[:8]}"
    buses = [await Bus.connect(nats.url, name) for _ in range(count)]
    yield [JetStreamPlacement(bus, pin_s=1.0) for bus in buses]
    for bus in buses:
        await bus.close()


async def test_the_notices_of_a_stream_are_handled_in_order(placement: Placement) -> None:
    """Each notice is handled once, in the order of the announcements, whenever the work begins."""
    for k in range(5):
        await placement.announce(Notice(data_id=STREAMS[0], kind="chunk", index=k))
    done = Done()
    async with working(placement, done):
        await done.wait(5)
        await placement.announce(Notice(data_id=STREAMS[0], kind="end"))
        await done.wait(6)
    assert [notice.index for notice in done.notices] == [0, 1, 2, 3, 4, 0]
    assert done.notices[-1] == Notice(data_id=STREAMS[0], kind="end")


async def test_a_notice_that_failed_is_delivered_again(placement: Placement) -> None:
    """After an exception of the handler the same notice comes again; the others are not affected."""
    failures: list[Notice] = []

    def fail(notice: Notice) -> bool:
        if notice.index == 1 and not failures:
            failures.append(notice)
            return True
        return False

    done = Done(fail)
    async with working(placement, done):
        for k in range(3):
            await placement.announce(Notice(data_id=STREAMS[1], kind="chunk", index=k))
        await done.wait(3)
    assert sorted(notice.index for notice in done.notices) == [0, 1, 2]
    assert len(failures) == 1


async def test_slow_handlers_run_at_the_same_time(placement: Placement) -> None:
    """A notice that takes long does not keep back the later ones of its stream."""
    first, order = asyncio.Event(), []

    async def handler(notice: Notice) -> None:
        if notice.index == 0:
            await first.wait()
        order.append(notice.index)
        if notice.index == 2:
            first.set()

    async with working(placement, handler):
        for k in range(3):
            await placement.announce(Notice(data_id=STREAMS[2], kind="chunk", index=k))
        async with asyncio.timeout(30):
            await first.wait()
            while len(order) < 3:
                await asyncio.sleep(0)
    assert order == [1, 2, 0]


async def test_everybody_may_listen(placement: Placement) -> None:
    """``listen`` gets each notice that is announced later, without doing it."""
    heard: asyncio.Queue[Notice] = asyncio.Queue()
    stop = placement.listen(heard.put_nowait)
    notice = Notice(data_id=STREAMS[3], kind="chunk", index=7)
    async with asyncio.timeout(30):
        while heard.empty():  # the subscription may come after the first announcement
            await placement.announce(notice)
            await asyncio.sleep(0)
        assert await heard.get() == notice
    stop()


def test_streams_are_spread_over_all_partitions() -> None:
    """The partition of a stream depends on its id alone."""
    found = {partition_of(str(uuid.UUID(int=k))) for k in range(2000)}
    assert found == set(range(PARTITIONS))


async def test_two_processes_share_the_partitions(nats_server: Nats) -> None:
    """A second process gets its share, and each notice is done by one of them."""
    async with jetstream(nats_server, 2) as (first, second):
        done, other = Done(), Done()
        async with working(first, done) as lost:
            for stream in STREAMS:
                await first.announce(Notice(data_id=stream, kind="chunk"))
            await done.wait(len(STREAMS))
            async with working(second, other), asyncio.timeout(60):
                count = len(STREAMS)
                while len(lost) < PARTITIONS // 2 or not other.notices:
                    for stream in STREAMS:
                        await second.announce(Notice(data_id=stream, kind="chunk", index=1))
                    count += len(STREAMS)
                    while len(done.notices) + len(other.notices) < count:
                        await asyncio.sleep(0.01)
    assert {partition_of(notice.data_id) for notice in other.notices} <= set(lost)


async def test_what_was_not_done_goes_to_the_next_owner(nats_server: Nats) -> None:
    """A process that ends while it handles a notice leaves it to another one, at once."""
    async with jetstream(nats_server, 2) as (first, second):
        taken, never = asyncio.Event(), asyncio.Event()

        async def handler(_notice: Notice) -> None:
            taken.set()
            await never.wait()

        async with working(first, handler):
            await first.announce(Notice(data_id=STREAMS[0], kind="chunk", index=4))
            async with asyncio.timeout(30):
                await taken.wait()
        done = Done()
        async with working(second, done):
            await done.wait(1)
        assert done.notices == [Notice(data_id=STREAMS[0], kind="chunk", index=4)]
