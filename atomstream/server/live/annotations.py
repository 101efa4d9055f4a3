"""Annotations of the user: events, regions, the calibration, labels of azimuths. They are kept in ``inputs.log``."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from atomstream.results import Event
from atomstream.server.live.annotation_records import (
    AnalyzerEntry,
    AnnotationEntry,
    AzimuthChanges,
    AzimuthEntry,
    CalibrationEntry,
    CalibrationRecord,
    EventEntry,
    RegionRecord,
    RegionsEntry,
    TimedEvent,
    check_regions,
    read_entry,
)
from atomstream.server.live.messages import EventMessage, RegionsMessage
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.record_log import RecordLog

E = TypeVar("E", bound=AnnotationEntry)
T = TypeVar("T")


class Annotations:
    """The entries of one stream, in the order in which they were made. Blocks; one writer at a time."""

    def __init__(self, path: Path, file_system: FileSystem = LOCAL) -> None:
        self._log = RecordLog(path, file_system=file_system)
        self.entries = [read_entry(self._log.read(number + 1)) for number in range(len(self._log))]

    def append(self, entry: AnnotationEntry) -> None:
        """Store an entry durably.

        Raises:
            OSError: of the disk; nothing was stored.
        """
        self._log.append(entry, durable=True)
        self.entries.append(entry)

    def add_event(
        self, kind: str, label: str, time_ms_utc: float, value: float | None, event_id: str | None
    ) -> EventEntry:
        """Store an event and return it. If an event with this id is stored already, that one is returned."""
        stored = [entry for entry in self._all(EventEntry) if entry.id == event_id]
        if stored:
            return stored[0]
        entry = EventEntry(event_id or str(uuid.uuid4()), kind, label, time_ms_utc, value)
        self.append(entry)
        return entry

    def events(self, origin_ms: float | None) -> list[Event]:
        """The user's events; ``time_s`` is None as long as the stream has no origin."""
        return [as_event(entry, origin_ms) for entry in self._all(EventEntry)]

    @property
    def regions(self) -> list[RegionRecord]:
        """The user's present regions."""
        entries = self._all(RegionsEntry)
        return entries[-1].regions if entries else []

    @property
    def calibration(self) -> CalibrationRecord:
        """The present calibration, empty if there is none."""
        entries = self._all(CalibrationEntry)
        return entries[-1].calibration if entries else CalibrationRecord()

    def _all(self, kind: type[E]) -> list[E]:
        return [entry for entry in self.entries if isinstance(entry, kind)]

    def labels(self) -> dict[str, AzimuthChanges]:
        """The changes of each azimuth's view that the user has changed, by the view's id."""
        labels: dict[str, AzimuthChanges] = {}
        for entry in self._all(AzimuthEntry):
            labels[entry.view_id] = labels.get(entry.view_id, AzimuthChanges()).followed_by(entry.changes)
        return labels

    def for_analysis(self, since: int, origin_ms: float) -> list[AnalyzerEntry]:
        """What an analyzer needs of the entries from number ``since`` on (from 0); ``origin_ms`` is frame 0's time."""
        entries: list[AnalyzerEntry] = []
        for entry in self.entries[since:]:
            if isinstance(entry, EventEntry):
                time_s = _seconds(entry, origin_ms)
                entries.append(TimedEvent(entry.kind, entry.label, entry.value, time_s))
            elif isinstance(entry, (RegionsEntry, CalibrationEntry)):
                entries.append(entry)
        return entries

    def close(self) -> None:
        """Close the file."""
        self._log.close()


def as_event(entry: EventEntry, origin_ms: float | None) -> Event:
    """A stored event; its ``time_s`` is None without an origin."""
    return Event(
        time_s=None if origin_ms is None else _seconds(entry, origin_ms),
        kind=entry.kind,
        label=entry.label,
        value=entry.value,
        id=entry.id,
        time_ms_utc=entry.time_ms_utc,
        by="user",
    )


def _seconds(entry: EventEntry, origin_ms: float) -> float:
    return (entry.time_ms_utc - origin_ms) / 1000.0


class InThread(Protocol):
    """Runs a blocking call in a thread and returns its result."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        """Run ``call``."""


class AnnotationWriter:
    """Stores the user's annotations, publishes them to the feed and notifies the analysis. Used in the server's loop.

    ``publish`` numbers and sends a record, ``in_thread`` runs a blocking call, ``notify`` is called after each entry.
    """

    def __init__(
        self,
        annotations: Annotations,
        origin_ms: Callable[[], float | None],
        publish: Callable[[EventMessage | RegionsMessage], Awaitable[None]],
        in_thread: InThread,
        notify: Callable[[], None],
    ) -> None:
        self._annotations = annotations
        self._origin_ms = origin_ms
        self._publish = publish
        self._in_thread = in_thread
        self._notify = notify
        self._lock = asyncio.Lock()

    async def mark(
        self, kind: str, label: str, time_ms_utc: float | None, value: float | None, event_id: str | None
    ) -> Event:
        """Store and publish an event; returns it. A repeat of its id changes nothing."""
        at = 1000.0 * time.time() if time_ms_utc is None else time_ms_utc
        async with self._lock:
            before = len(self._annotations.entries)
            entry = await self._in_thread(
                lambda: self._annotations.add_event(kind, label, at, value, event_id)
            )
            event = as_event(entry, self._origin_ms())
            if len(self._annotations.entries) > before:
                await self._publish(EventMessage(event=event))
        self._notify()
        return event

    async def set_regions(
        self, regions: list[RegionRecord], detected: list[RegionRecord]
    ) -> list[RegionRecord]:
        """Replace the user's regions; returns them with defaults filled in.

        Raises:
            ConfigError: invalid regions; nothing was changed.
        """
        checked = check_regions(regions)
        async with self._lock:
            await self._in_thread(lambda: self._annotations.append(RegionsEntry(checked)))
            await self.publish_regions(checked, detected, complete=False)
        self._notify()
        return checked

    async def publish_regions(
        self, regions: list[RegionRecord], detected: list[RegionRecord], *, complete: bool
    ) -> None:
        """Publish the regions; ``complete`` if their traces reach back to the first frame."""
        await self._publish(RegionsMessage(regions=regions, detected_regions=detected, complete=complete))

    async def append(self, entry: AnnotationEntry) -> None:
        """Store an entry that is not published: a calibration, the label of an azimuth."""
        async with self._lock:
            await self._in_thread(lambda: self._annotations.append(entry))
        self._notify()
