"""Uploads do not wait for a message bus that is unreachable; their chunks are announced when it is there again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from atomstream.server.ports.deferred_announcer import DeferredAnnouncer
from atomstream.server.ports.placement import Handler, Lost, Notice
from atomstream.server.ports.stream_log import BusUnavailableError


class Bus:
    """Delivers notices into a list, unless it is ``unreachable`` (an error) or ``frozen`` (no answer)."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, str, int]] = []
        self.unreachable = self.frozen = False
        self.answers = asyncio.Event()
        self.changed = asyncio.Event()

    async def announce(self, notice: Notice) -> None:
        if self.frozen:
            await self.answers.wait()
        if self.unreachable:
            raise BusUnavailableError("unreachable")
        self.delivered.append((notice.data_id, notice.kind, notice.index))
        self.changed.set()

    async def work(self, handler: Handler, lost: Lost) -> None:
        raise NotImplementedError

    def listen(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        raise NotImplementedError

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.delivered) < count:
                self.changed.clear()
                await self.changed.wait()


def chunk(data_id: str, index: int) -> Notice:
    return Notice(data_id=data_id, kind="chunk", index=index)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atomstream.server.ports.deferred_announcer.RETRY_S", 0.001)
    monkeypatch.setattr("atomstream.server.ports.deferred_announcer.WAIT_S", 0.01)


@pytest.mark.parametrize("how", ["unreachable", "frozen"])
async def test_chunks_are_announced_later(how: str) -> None:
    """Each upload goes on; then the first and the last chunk of each stream are announced, in the order of streams."""
    bus = Bus()
    announcer = DeferredAnnouncer(bus)
    await announcer.announce(chunk("a", 0))
    assert bus.delivered == [("a", "chunk", 0)]
    setattr(bus, how, True)
    for data_id, index in (("a", 2), ("b", 7), ("a", 1), ("a", 4), ("a", 3)):
        await announcer.announce(chunk(data_id, index))
    assert len(bus.delivered) == 1
    setattr(bus, how, False)
    bus.answers.set()
    await announcer.announce(chunk("a", 2))
    await bus.until(4)
    assert bus.delivered[1:] == [("a", "chunk", 1), ("a", "chunk", 4), ("b", "chunk", 7)]
    await announcer.announce(chunk("a", 5))
    await bus.until(5)
    assert bus.delivered[-1] == ("a", "chunk", 5)
    await announcer.close()


async def test_other_notices_are_errors() -> None:
    """The end of a stream is not announced again by itself: the caller gets an error, and can repeat it."""
    bus = Bus()
    bus.unreachable = True
    announcer = DeferredAnnouncer(bus)
    with pytest.raises(BusUnavailableError):
        await announcer.announce(Notice(data_id="a", kind="end"))
    await announcer.announce(chunk("a", 1))
    await announcer.close()
