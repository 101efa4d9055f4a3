"""Signals about streams within the server process, for the live analysis, feeds and the dashboard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from atomstream.server.archive.metadata import Status
from atomstream.server.archive.records import CommitResult, UploadClaims
from atomstream.server.disk_errors import log_failure
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
T = TypeVar("T")


class Signal(Generic[T]):
    """Calls its listeners with each value, one after the other.

    Listeners run in the event loop before the request that caused the signal is answered, so they must be short.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[T], Awaitable[None]]] = []

    def subscribe(self, listener: Callable[[T], Awaitable[None]]) -> Callable[[], None]:
        """Call ``listener`` from now on. Returns a function that ends the subscription."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def send(self, value: T) -> None:
        """Call all listeners. An exception of a listener is logged and does not reach the sender."""
        for listener in tuple(self._listeners):
            try:
                await listener(value)
            except Exception as error:
                log_failure(log, error, "a listener failed at %r", value)


@dataclass(frozen=True, slots=True)
class ChunkStored:
    """A chunk is in the archive; ``committed.repeated`` is True if it was stored before.

    ``decoded`` are its decoded frames for the analysis, valid until the listeners have returned.
    """

    ticket: UploadClaims
    committed: CommitResult
    decoded: object | None = None
    trace: object | None = None
    """The trace context of the upload; None without OpenTelemetry."""


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The status of a stream changed."""

    data_id: str
    status: Status


@dataclass(frozen=True, slots=True)
class Followed:
    """Other servers have stored chunks of a stream, or changed its status; both are in its archive here."""

    data_id: str
    indices: tuple[int, ...]
    status: Status


@dataclass(frozen=True, slots=True)
class ServerSignals:
    """All signals of one server."""

    created: Signal[str] = field(default_factory=Signal)
    chunk_stored: Signal[ChunkStored] = field(default_factory=Signal)
    status_changed: Signal[StatusChanged] = field(default_factory=Signal)
    followed: Signal[Followed] = field(default_factory=Signal)
    deleted: Signal[str] = field(default_factory=Signal)
