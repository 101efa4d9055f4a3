"""All streams of signals of one server: created, opened, described, and found by the sample they belong to."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from atomstream.server.archive.metadata import is_stream_id
from atomstream.server.signals.chunks import StoredChannel
from atomstream.server.signals.stream import SignalsAbout, SignalStream
from atomstream.server.streams.keyed_locks import KeyedLocks
from atomstream.server.streams.registry import unknown_stream
from atomstream.server.streams.signals import Signal
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import DOCUMENT_BYTES, read_plain

log = get_logger("atomstream.server")
T = TypeVar("T")

FOLDER: Final = "signals"
"""The folder in the data folder."""
MAX_OPEN: Final = 32
"""Streams whose points stay in memory, those that were used last."""
MAX_POINTS_OPEN: Final = 6_000_000
"""Points in memory, of all these streams together: 96 MB."""


@dataclass(frozen=True, slots=True)
class SignalsChanged:
    """Points of a stream from ``from_s`` on (s since 1970) are new, or the stream belongs to another sample now."""

    about: SignalsAbout
    from_s: float


class SignalRegistry:
    """The streams of signals in ``data_dir``. Used in the server's loop; ``changed`` is sent after each change."""

    def __init__(self, data_dir: Path, file_system: FileSystem = LOCAL) -> None:
        self.changed: Signal[SignalsChanged] = Signal()
        self._folder = data_dir / FOLDER
        self._file_system = file_system
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="atomstream-signals")
        self._abouts: dict[str, SignalsAbout] = {}
        self._open: OrderedDict[str, SignalStream] = OrderedDict()
        self._locks = KeyedLocks()

    async def load(self) -> None:
        """Read the descriptions of all streams. One that is damaged is left out, with a line in the log."""
        self._abouts = await self._run(_read_all, self._folder)

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args))

    async def create(self, about: SignalsAbout) -> None:
        """Add a new stream."""
        await self._run(self._write, about)
        self._abouts[about.data_id] = about

    def about(self, data_id: str) -> SignalsAbout:
        """The description of a stream; raises HttpError 404."""
        found = self._abouts.get(data_id.lower())
        if found is None:
            raise unknown_stream(data_id)
        return found

    def __len__(self) -> int:
        return len(self._abouts)

    def known(self, data_ids: Iterable[str]) -> set[str]:
        """Those of ``data_ids`` that are streams of signals."""
        return {data_id for data_id in data_ids if data_id in self._abouts}

    def all(self) -> list[SignalsAbout]:
        """The descriptions of all streams."""
        return list(self._abouts.values())

    def of_sample(self, sample_id: str) -> list[SignalsAbout]:
        """The streams of a sample, by the time of their creation."""
        found = [about for about in self._abouts.values() if about.sample and about.sample.id == sample_id]
        return sorted(found, key=lambda about: about.made)

    async def revise(self, data_id: str, revision: Callable[[SignalsAbout], SignalsAbout]) -> SignalsAbout:
        """Replace a description by ``revision(description)``, durably."""
        async with self._locks.hold(data_id):
            old = self.about(data_id)
            new = revision(old)
            if new != old:
                await self._run(self._write, new)
                self._abouts[data_id] = new
        if new.sample != old.sample:
            for about in (old, new):
                await self.changed.send(SignalsChanged(about, 0.0))
        return new

    async def add(self, data_id: str, index: int, channels: Mapping[str, StoredChannel]) -> bool:
        """Store a chunk; see :meth:`SignalStream.add`."""
        about = self.about(data_id)
        async with self._locks.hold(data_id):
            stream = await self._stream(data_id)
            added = await self._run(stream.add, index, channels)
        if added:
            first = min(float(np.frombuffer(channel.times, "<f8").min()) for channel in channels.values())
            await self.changed.send(SignalsChanged(about, first))
        return added

    async def read(self, data_id: str, call: Callable[[SignalStream], T]) -> T:
        """Call ``call(stream)`` in a thread, with the open stream; raises HttpError 404."""
        async with self._locks.hold(self.about(data_id).data_id):
            stream = await self._stream(data_id)
            return await self._run(call, stream)

    async def _stream(self, data_id: str) -> SignalStream:
        stream = self._open.get(data_id)
        if stream is None:
            stream = await self._run(self._open_stream, data_id)
            self._open[data_id] = stream
        self._open.move_to_end(data_id)
        for other in list(self._open)[:-1]:
            points = sum(map(len, self._open.values()))
            if len(self._open) <= MAX_OPEN and points <= MAX_POINTS_OPEN:
                break
            if not self._locks.is_held(other):
                self._open.pop(other).close()
        return stream

    def _open_stream(self, data_id: str) -> SignalStream:
        return SignalStream(self._folder / f"{data_id}.log", self._file_system)

    async def find(self, data_id: str) -> None:
        """Look for a stream that is not known yet, where another server may have made it. Here there is none."""

    async def refresh(self) -> None:
        """Read the descriptions again that other servers may have changed. Here there are none."""

    def _write(self, about: SignalsAbout) -> None:
        self._file_system.make_folder(self._folder)
        content = json.dumps(msgspec.to_builtins(about), indent=2, allow_nan=False).encode()
        self._file_system.write_atomic(self._folder / f"{about.data_id}.json", [content])

    async def close(self) -> None:
        """Close all files."""
        await asyncio.to_thread(self._threads.shutdown)
        for stream in self._open.values():
            stream.close()
        self._open.clear()


def _read_all(folder: Path) -> dict[str, SignalsAbout]:
    found = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if not is_stream_id(path.stem):
            continue
        try:
            about = msgspec.json.decode(read_plain(path, DOCUMENT_BYTES), type=SignalsAbout)
        except (OSError, ValueError) as error:
            log.error("%s is damaged, its signals can't be used: %s", path, error)
            continue
        if about.data_id == path.stem:
            found[about.data_id] = about
    return found
