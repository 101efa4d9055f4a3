"""One context manager for ``with`` and ``async with``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self


class AsyncOrThreaded(ABC):
    """A service with ``start`` and ``stop`` that runs in the caller's event loop or in a thread.

    ``async with`` runs it in the running loop. ``with`` runs it in an event loop in a new thread, so that the
    caller may block. After its end the same object can be entered again.
    """

    def __init__(self) -> None:
        self._thread: ExitStack | None = None

    @abstractmethod
    async def start(self) -> None:
        """Start listening; returns when requests are answered."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop listening; does nothing if it is stopped already."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        from anyio.from_thread import start_blocking_portal

        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            # One task enters and leaves: task groups must be left in the task in which they were entered.
            running: AbstractContextManager[Any] = portal.wrap_async_context_manager(self)
            stack.enter_context(running)
            self._thread = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()
