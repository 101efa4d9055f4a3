"""A stream's files brought up to what the processes of a cluster have recorded: results, and the inputs of users."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec

from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.live.annotation_records import AnnotationEntry, read_entry
from atomstream.server.live.messages import NumberedMessage
from atomstream.server.live.result_log import read_kept, write_checked
from atomstream.server.live.shared_records import Position, decoded
from atomstream.server.live.stream_parts import StreamParts
from atomstream.server.ports.store import StoreUnavailableError
from atomstream.server.ports.stream_log import LogEntry, StreamLog
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
T = TypeVar("T")
POSITION: Final = "position"
SAVE_EACH: Final = 64
"""Number of entries after which the position is written: after a crash at most this number is read again."""
RETRY_S: Final = 1.0


class Objects(Protocol):
    """The objects of one stream in the store, by the names of the files of an archive. Blocks."""

    def put(self, name: str, content: bytes, may_replace: Callable[[], None]) -> None:
        """Store or replace an object, if ``may_replace()`` raises nothing.

        An object that another process stores after that call is not replaced; it is called again then.
        """

    def get(self, name: str) -> bytes | None:
        """Its content; None if there is none."""

    def remove(self, name: str) -> None:
        """Remove it, if it is there."""


@dataclass(frozen=True, slots=True)
class SharedLogs:
    """The logs that the processes of a cluster share; the subject is the id of a stream."""

    results: StreamLog
    inputs: StreamLog
    objects: Callable[[str], Objects]
    """The objects of the stream with this id."""


class Replica:
    """Follows the shared logs of one stream. Used in the server's loop; ``in_thread`` runs a blocking call.

    The files may be behind, as after a crash, but never ahead: a record is in the shared log before it is in a file.
    """

    def __init__(
        self,
        parts: StreamParts[CachedArchive],
        logs: SharedLogs,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self.data_id = parts.metadata.data_id
        self.position = Position()
        self.published_inputs = 0
        """Inputs of which there is a record, as far as they have one."""
        self._logs = logs
        self._store = parts.store
        self._annotations = parts.annotations
        self._archive = parts.archive
        self._files = parts.archive.files
        self._in_thread = in_thread
        self._turn = asyncio.Lock()
        self._unsaved = 0

    async def open(self) -> None:
        """Read where the files are, and bring them up to the present.

        Raises:
            BusUnavailableError: the shared logs can't be read.
        """
        path = self._store.folder / POSITION
        kept = await self._in_thread(lambda: read_kept(self._files, path, Position)) or Position()
        fits = kept.records <= self._store.log.seq and kept.inputs <= len(self._annotations.entries)
        self.position = kept if fits else Position()
        self.published_inputs = self.position.published
        await self._check_logs()
        await self.catch_up_inputs()
        await self.catch_up_results()

    async def _check_logs(self) -> None:
        """Begin again at the start of a log that has lost its entries: what the files have is kept, and continued."""
        for name, shared in (("results_entry", self._logs.results), ("inputs_entry", self._logs.inputs)):
            last = await shared.last(self.data_id)
            if (0 if last is None else last.number) < getattr(self.position, name):
                log.warning(
                    "stream %s: the bus has lost its %s; those in the files are kept and continued",
                    self.data_id,
                    name[:-6],
                )
                self.position = msgspec.structs.replace(self.position, **{name: 0})

    # -- results -----------------------------------------------------------------------------------------

    async def catch_up_results(self) -> list[NumberedMessage]:
        """Apply all entries up to the present; returns the messages of the new records. Raises BusUnavailableError."""
        messages: list[NumberedMessage] = []
        while entries := await self._logs.results.read(self.data_id, self.position.results_entry):
            messages += await self._apply(entries)
        return messages

    async def follow_results(self, publish: Callable[[NumberedMessage], None]) -> None:
        """Apply each new entry, and pass its message to ``publish``, until this is cancelled."""
        while True:
            following = self._logs.results.follow(self.data_id, self.position.results_entry)
            try:
                async with aclosing(following) as entries:
                    async for entry in entries:
                        for message in await self._apply([entry]):
                            publish(message)
            except OSError as error:
                log.warning("stream %s: a result can't be stored; it is read again: %s", self.data_id, error)
                await asyncio.sleep(RETRY_S)

    async def _apply(self, entries: list[LogEntry]) -> list[NumberedMessage]:
        async with self._turn:
            messages: list[NumberedMessage] = await self._in_thread(lambda: self._store_results(entries))
        return messages

    def _store_results(self, entries: list[LogEntry]) -> list[NumberedMessage]:
        messages = []
        for entry in entries:
            if entry.number <= self.position.results_entry:
                continue
            try:
                shared = decoded(entry.payload)
            except msgspec.MsgspecError as error:
                log.error("stream %s: entry %d can't be read: %s", self.data_id, entry.number, error)
                continue
            if shared.start + shared.count > self._archive.n_frames():
                with suppress(StoreUnavailableError, ArchiveDeletedError):
                    self._archive.follow(all_chunks=True)  # the frames' times are in the chunks
            known = self._store.log.seq
            if shared.number > known + 1:
                log.error(
                    "stream %s: record %d came after record %d; the ones between are missing",
                    self.data_id,
                    shared.number,
                    known,
                )
            elif not 0 < shared.number <= known:
                message = self._store.apply(shared)
                if message is not None:
                    messages.append(message)
            self.published_inputs = max(self.published_inputs, shared.inputs)
            self._move(
                results_entry=entry.number, records=self._store.log.seq, published=self.published_inputs
            )
        return messages

    # -- inputs ------------------------------------------------------------------------------------------

    async def add_input(self, entry: AnnotationEntry, key: str = "") -> None:
        """Store an input in the shared log, durably, and in the files. Raises BusUnavailableError."""
        payload = msgspec.msgpack.encode(entry)
        await self._logs.inputs.append(self.data_id, payload, after=None, key=key)
        await self.catch_up_inputs()

    async def catch_up_inputs(self) -> None:
        """Store all inputs up to the present. Raises BusUnavailableError."""
        async with self._turn:
            while entries := await self._logs.inputs.read(self.data_id, self.position.inputs_entry):
                await self._in_thread(partial(self._store_inputs, entries))

    async def follow_inputs(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Store each new input, then await ``changed``, until this is cancelled."""
        while True:
            following = self._logs.inputs.follow(self.data_id, self.position.inputs_entry)
            try:
                async with aclosing(following) as entries:
                    async for entry in entries:
                        async with self._turn:
                            await self._in_thread(partial(self._store_inputs, [entry]))
                        await changed()
            except OSError as error:
                log.warning("stream %s: an input can't be stored; it is read again: %s", self.data_id, error)
                await asyncio.sleep(RETRY_S)

    def _store_inputs(self, entries: list[LogEntry]) -> None:
        for entry in entries:
            if entry.number <= self.position.inputs_entry:
                continue
            count = self.position.inputs + 1
            if count > len(self._annotations.entries):
                self._annotations.append(read_entry(_map_of(entry.payload)))
            self._move(inputs_entry=entry.number, inputs=count)

    # -- the position ------------------------------------------------------------------------------------

    def _move(self, **changes: int) -> None:
        self.position = msgspec.structs.replace(self.position, **changes)
        self._unsaved += 1
        if self._unsaved >= SAVE_EACH:
            self.save()

    def note_own(self) -> None:
        """This process has appended entries itself. Blocks."""
        results_entry, records = self._store.log.position()
        if results_entry > self.position.results_entry:
            self._move(results_entry=results_entry, records=records, published=self.published_inputs)

    def save(self) -> None:
        """Write the position to the files. Blocks."""
        self._unsaved = 0
        write_checked(self._files, self._store.folder / POSITION, msgspec.msgpack.encode(self.position))


def _map_of(payload: bytes) -> dict[str, Any]:
    try:
        found = msgspec.msgpack.decode(payload)
    except msgspec.MsgspecError:
        found = None
    return found if isinstance(found, dict) else {}
