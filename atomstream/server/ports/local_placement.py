"""All streams belong to this process: notices are delivered within it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from atomstream.server.ports.placement import Handler, Lost, Notice
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
_RETRY_S: Final = 0.2


class LocalPlacement:
    """See :class:`~atomstream.server.ports.placement.Placement`. Notices are lost when the process ends."""

    def __init__(self) -> None:
        self._notices: asyncio.Queue[Notice] = asyncio.Queue()
        self._listeners: set[Callable[[Notice], None]] = set()

    async def announce(self, notice: Notice) -> None:
        """Deliver a notice."""
        self._notices.put_nowait(notice)
        for listener in tuple(self._listeners):
            listener(notice)

    async def work(self, handler: Handler, lost: Lost) -> None:  # a partition is never lost
        """Call ``handler`` for each notice, until this is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                notice = await self._notices.get()
                tasks.create_task(self._handle(handler, notice), name=f"notice about {notice.data_id}")

    async def _handle(self, handler: Handler, notice: Notice) -> None:
        while True:
            try:
                await handler(notice)
            except Exception as error:
                log.warning("stream %s: a notice is delivered again: %s", notice.data_id, error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def listen(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        """Call ``listener`` for each notice."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def close(self) -> None:
        """Nothing to release."""
