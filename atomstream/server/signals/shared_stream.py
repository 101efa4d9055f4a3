"""A stream of signals in a store that several servers share; the log in the folder is a cache of its chunks.

``signals/<data_id>/chunks/<index>/<n>`` is the n-th part of a chunk: a request that has channels of an index for which
others are stored already. Each part is created once, after all earlier parts of the index were checked. So of two
servers that receive different points for one channel and index, one stores them and the other one refuses them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from atomstream.server.ports.store import ObjectExistsError, Store
from atomstream.server.signals.chunks import StoredChannel
from atomstream.server.signals.stream import SignalStream
from atomstream.system.files import FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.record_log import Record

log = get_logger("atomstream.server")

PERIOD_S: Final = 2.0
"""Least interval, in s, of the searches for chunks of other servers; longer if a search takes long."""
_PATIENCE: Final = 20
_MAX_DIGITS: Final = 16
_READERS: Final = 8


class _Part(msgspec.Struct):
    channels: dict[str, Any]


class SharedSignalStream(SignalStream):
    """A :class:`SignalStream` whose chunks are in ``store`` below ``folder``.

    Methods raise StoreUnavailableError too.
    """

    def __init__(self, path: Path, file_system: FileSystem, store: Store, folder: str) -> None:
        self._store = store
        self._chunks = f"{folder}/chunks"
        self._parts: dict[int, int] = {}
        """The number of known parts of each index."""
        self._read_at = -PERIOD_S
        self._pause_s = PERIOD_S
        self._following = threading.Lock()
        super().__init__(path, file_system)
        self.follow()

    def _load(self, record: Record) -> None:
        """As in the base class; parts that are not in order are read from the store again."""
        index, part = record.get("index"), record.get("part")
        if type(index) is int and part == self._parts.get(index, 0):
            super()._load(record)
            self._parts[index] = part + 1

    def _append(self, index: int, new: Mapping[str, StoredChannel]) -> bool:
        part = self._parts.get(index, 0)
        record = {"index": index, "channels": msgspec.to_builtins(new, builtin_types=(bytes,)), "part": part}
        try:
            self._store.put(self._key(index, part), msgspec.msgpack.encode(record), create_only=True)
        except ObjectExistsError:
            self._apply(index, part, self._store.fetch(self._key(index, part)))
            return False
        self._log.append(record)
        self._parts[index] = part + 1
        return True

    def _key(self, index: int, part: int) -> str:
        return f"{self._chunks}/{index}/{part}"

    def _apply(self, index: int, part: int, content: bytes) -> None:
        """Add a part of a chunk, read from the store, to the points and to the cache, unless it was added before."""
        if part != self._parts.get(index, 0):
            return
        try:
            channels = msgspec.msgpack.decode(content, type=_Part).channels
        except msgspec.MsgspecError as error:
            log.error(
                "%s in %s is damaged; it counts as empty: %s", self._key(index, part), self._store.name, error
            )
            channels = {}
        record = {"index": index, "channels": channels, "part": part}
        self._load(record)
        self._log.append(record)

    def follow(self) -> None:
        """Add the chunks that other servers have stored, unless the last search was just before."""
        with self._following:
            began = time.monotonic()
            if began - self._read_at < self._pause_s:
                return
            with self._lock:
                known = dict(self._parts)
            places = (_place(key) for key in self._store.keys(self._chunks))
            listed = sorted(place for place in places if place is not None)
            wanted = [(index, part) for index, part in listed if part >= known.get(index, 0)]
            with ThreadPoolExecutor(_READERS, thread_name_prefix="atomstream-signals") as threads:
                contents = threads.map(lambda place: self._store.fetch(self._key(*place)), wanted)
                for (index, part), content in zip(wanted, contents, strict=True):
                    with self._lock:
                        self._apply(index, part, content)
            self._read_at = time.monotonic()
            self._pause_s = max(PERIOD_S, _PATIENCE * (self._read_at - began))


def _place(key: str) -> tuple[int, int] | None:
    """Index and part of the object with this key; None for one that is no chunk."""
    names = key.rsplit("/", 2)[1:]
    if len(names) != 2 or not all(
        one.isascii() and one.isdecimal() and len(one) < _MAX_DIGITS for one in names
    ):
        return None
    index, part = map(int, names)
    return index, part
