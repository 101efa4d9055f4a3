"""Announces stored chunks without making their uploads wait for a message bus that is unreachable.

A chunk that is in the store is safe, and its notice only wakes the process that analyses the stream. So an upload is
answered although its notice could not be delivered yet. Such notices wait here, two for each stream at most, and are
delivered as soon as the bus is there. If this server ends before that, the notice of the stream's next chunk, or of
its end, has the same effect, because each of them makes the analysis take all stored chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from atomstream.server.ports.placement import Notice, Placement
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

WAIT_S: Final = 1.0
"""Longest time that an upload waits for its notice to be delivered."""
RETRY_S: Final = 0.5
"""Time between two tries."""


class DeferredAnnouncer:
    """Delivers notices by ``placement``. Used in one event loop."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._waiting: dict[str, tuple[int, int]] = {}
        """The lowest and the highest chunk of each stream that has notices to be delivered."""
        self._delivering: asyncio.Task[None] | None = None

    async def announce(self, notice: Notice) -> None:
        """Deliver a notice; that about a chunk may be delivered later.

        Raises:
            BusUnavailableError: another notice; the bus does not answer. Announce it again.
        """
        if notice.kind != "chunk":
            await self._placement.announce(notice)
            return
        if not self._waiting:
            with suppress(BusUnavailableError, TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await self._placement.announce(notice)
                return
            log.warning(
                "the message bus does not answer: chunks are stored, and analysed when it answers again"
            )
        low, high = self._waiting.get(notice.data_id, (notice.index, notice.index))
        self._waiting[notice.data_id] = (min(low, notice.index), max(high, notice.index))
        if self._delivering is None:
            self._delivering = asyncio.create_task(self._deliver(), name="atomstream notices of chunks")

    async def _deliver(self) -> None:
        """Deliver all that waits."""
        try:
            while self._waiting:
                data_id, indices = next(iter(self._waiting.items()))
                try:
                    for notice in _notices(data_id, indices):
                        await self._placement.announce(notice)
                except BusUnavailableError:
                    await asyncio.sleep(RETRY_S)
                    continue
                if self._waiting[data_id] == indices:
                    del self._waiting[data_id]
            log.info("the message bus answers again: all stored chunks are announced")
        finally:
            self._delivering = None

    async def close(self) -> None:
        """Stop delivering."""
        task = self._delivering
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def _notices(data_id: str, indices: tuple[int, int]) -> Iterator[Notice]:
    """Enough notices for all chunks of ``indices``, the lowest and the highest one, and between them.

    If the lowest one is in a gap, its notice makes the analysis list the store. If not, it takes all that follow one
    another, and the notice of the highest one those beyond a gap.
    """
    for index in sorted(set(indices)):
        yield Notice(data_id=data_id, kind="chunk", index=index)
