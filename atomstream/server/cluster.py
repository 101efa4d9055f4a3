"""The parts that the processes of a cluster share over the message bus: logs of results and inputs, placement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.cluster_id import id_in_store
from atomstream.server.live.replica import SharedLogs
from atomstream.server.ports.bus import Bus
from atomstream.server.ports.jetstream_log import JetStreamLog
from atomstream.server.ports.jetstream_placement import JetStreamPlacement
from atomstream.server.ports.placement import Placement
from atomstream.server.ports.store import (
    ObjectExistsError,
    ObjectMissingError,
    StaleObjectError,
    Store,
    attempts,
)
from atomstream.server.settings import ServerSettings
from atomstream.system.own_files import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class ClusterParts:
    """The connections of one process to what the cluster shares, besides the store and the catalogue."""

    logs: SharedLogs
    placement: Placement


class StreamObjects:
    """The objects of one stream in ``store``, see :class:`~atomstream.server.live.replica.Objects`."""

    def __init__(self, store: Store, data_id: str) -> None:
        self._store = store
        self._key: Callable[[str], str] = SharedStream(store, data_id).key

    def put(self, name: str, content: bytes, may_replace: Callable[[], None]) -> None:
        """Store or replace an object, if ``may_replace()`` raises nothing."""
        for _ in attempts(self._store, self._key(name)):
            present = self._version(name)
            may_replace()
            with suppress(ObjectExistsError, StaleObjectError):  # another process was faster
                self._store.put(self._key(name), content, create_only=present is None, if_match=present)
                return

    def _version(self, name: str) -> str | None:
        with suppress(ObjectMissingError):
            return self._store.head(self._key(name)).etag
        return None

    def get(self, name: str) -> bytes | None:
        """Its content; None if there is none."""
        with suppress(ObjectMissingError):
            return self._store.get(self._key(name), most=LONGEST).data
        return None

    def remove(self, name: str) -> None:
        """Remove it, if it is there."""
        self._store.delete(self._key(name))


@asynccontextmanager
async def joined_cluster(settings: ServerSettings, store: Store) -> AsyncIterator[ClusterParts]:
    """The connections, for as long as the block lasts.

    Raises:
        ConfigError: the bus can't be reached, has no JetStream, or belongs to another cluster than the store.
    """
    assert settings.bus is not None
    bus = await Bus.open(settings.bus)
    try:
        if (cluster := await asyncio.to_thread(id_in_store, store)) is not None:
            await bus.join(cluster)
        logs = SharedLogs(
            results=JetStreamLog(bus, "results"),
            inputs=JetStreamLog(bus, "inputs"),
            objects=lambda data_id: StreamObjects(store, data_id),
        )
        yield ClusterParts(logs, JetStreamPlacement(bus, settings.pin_s))
    finally:
        await bus.close()
