"""The streams of signals of servers that share a store: ``signals/<data_id>/about.json`` describes each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from atomstream.server.archive.metadata import is_stream_id
from atomstream.server.ports.store import (
    ObjectMissingError,
    StaleObjectError,
    Store,
    StoredObject,
    StoreUnavailableError,
    attempts,
)
from atomstream.server.signals.registry import SignalRegistry, SignalsChanged
from atomstream.server.signals.shared_stream import SharedSignalStream
from atomstream.server.signals.stream import SignalsAbout, SignalStream
from atomstream.server.streams.registry import unknown_stream
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
T = TypeVar("T")

SIGNALS: Final = "signals"
MAX_OTHERS: Final = 10_000


class SharedSignalRegistry(SignalRegistry):
    """A :class:`SignalRegistry` whose streams are in ``store``; ``data_dir`` has a cache of their points.

    Methods raise StoreUnavailableError too.
    """

    def __init__(self, data_dir: Path, store: Store) -> None:
        super().__init__(data_dir)
        self._store = store
        self._others: OrderedDict[str, None] = OrderedDict()
        """Ids that no stream of signals has: they are of streams of frames."""

    async def load(self) -> None:
        """Read the descriptions of all streams from the store."""
        await self.refresh()

    async def refresh(self) -> None:
        """Read the descriptions of streams that are new, or that had not ended."""
        ids = await self._run(self._store.children, SIGNALS)
        for data_id in filter(is_stream_id, ids):
            known = self._abouts.get(data_id)
            if known is None or known.status != "success":
                await self._read(data_id)

    async def find(self, data_id: str) -> None:
        """Read the description of a stream that is not known yet: another server may have made it."""
        data_id = data_id.lower()
        if data_id in self._abouts or data_id in self._others or not is_stream_id(data_id):
            return
        try:
            await self._read(data_id)
        except StoreUnavailableError as error:
            log.debug("the signals of %s can't be read from the store: %s", data_id, error)
            return
        if data_id not in self._abouts:
            self._others[data_id] = None
            if len(self._others) > MAX_OTHERS:
                self._others.popitem(last=False)

    async def _read(self, data_id: str) -> None:
        try:
            self._abouts[data_id] = self._decoded(await self._run(self._store.get, _key(data_id)))
        except ObjectMissingError:
            return
        except ValueError as error:
            log.error("%s is damaged, its signals can't be used: %s", _key(data_id), error)

    def _decoded(self, found: StoredObject) -> SignalsAbout:
        return msgspec.json.decode(found.data, type=SignalsAbout)

    async def create(self, about: SignalsAbout) -> None:
        """Add a new stream."""
        await self._run(lambda: self._store.put(_key(about.data_id), _encoded(about), create_only=True))
        self._abouts[about.data_id] = about

    async def revise(self, data_id: str, revision: Callable[[SignalsAbout], SignalsAbout]) -> SignalsAbout:
        """Replace a description by ``revision(description)``, whichever server has changed it last."""
        old, new = await self._run(self._revise, data_id, revision)
        self._abouts[data_id] = new
        if new.sample != old.sample:
            for about in (old, new):
                await self.changed.send(SignalsChanged(about, 0.0))
        return new

    def _revise(
        self, data_id: str, revision: Callable[[SignalsAbout], SignalsAbout]
    ) -> tuple[SignalsAbout, SignalsAbout]:
        for _ in attempts(self._store, _key(data_id)):
            try:
                found = self._store.get(_key(data_id))
            except ObjectMissingError:
                raise unknown_stream(data_id) from None
            old = self._decoded(found)
            new = revision(old)
            try:
                if new != old:
                    self._store.put(_key(data_id), _encoded(new), if_match=found.etag)
            except StaleObjectError:
                continue
            return old, new
        raise AssertionError

    async def read(self, data_id: str, call: Callable[[SignalStream], T]) -> T:
        """As in the base class, with the points that other servers have stored."""

        def followed(stream: SignalStream) -> T:
            assert isinstance(stream, SharedSignalStream)
            try:
                stream.follow()
            except StoreUnavailableError as error:
                log.debug("the points of %s that other servers stored can't be read: %s", data_id, error)
            return call(stream)

        return await super().read(data_id, followed)

    def _open_stream(self, data_id: str) -> SignalStream:
        path = self._folder / f"{data_id}.log"
        return SharedSignalStream(path, self._file_system, self._store, f"{SIGNALS}/{data_id}")


def _key(data_id: str) -> str:
    return f"{SIGNALS}/{data_id}/about.json"


def _encoded(about: SignalsAbout) -> bytes:
    return msgspec.json.format(msgspec.json.encode(about), indent=2)
