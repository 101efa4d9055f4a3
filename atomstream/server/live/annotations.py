"""Annotations of the user: events, regions, the calibration, labels of azimuths. They are kept in ``inputs.log``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

from msgspec import UNSET

from atomstream.errors import ConfigError
from atomstream.results import Event
from atomstream.server.live.annotation_records import (
    AnalyzerEntry,
    AnnotationEntry,
    AzimuthChanges,
    AzimuthEntry,
    CalibrationEntry,
    CalibrationRecord,
    EventChangeEntry,
    EventEntry,
    EventState,
    NewMark,
    RegionRecord,
    RegionsEntry,
    SettingEntry,
    check_regions,
    read_entry,
)
from atomstream.server.live.event_history import EventChanges, EventHistory, as_event, matters
from atomstream.server.live.messages import EventMessage, RegionsMessage
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.record_log import RecordLog

T = TypeVar("T")

MAX_SETTINGS: Final = 50_000
"""Changes of regions, calibration and labels of one stream, which are all kept; each region counts."""


class Annotations:
    """The entries of one stream, in the order in which they were made. Blocks; one writer at a time."""

    def __init__(
        self, path: Path, file_system: FileSystem = LOCAL, report: Callable[[str], None] | None = None
    ) -> None:
        self._log = RecordLog(path, file_system=file_system, report=report)
        self.entries: list[AnnotationEntry] = []
        # What the entries amount to, so that an event costs the same however many there are.
        self.book = EventHistory()
        """The events: what each is, and what it was."""
        self._labels: dict[str, AzimuthChanges] = {}
        self._regions: list[RegionRecord] = []
        self._calibration = CalibrationRecord()
        self._n_settings = 0
        for number in range(len(self._log)):
            self._note(read_entry(self._log.read(number + 1)))

    def _note(self, entry: AnnotationEntry) -> None:
        self.entries.append(entry)
        if isinstance(entry, (EventEntry, EventChangeEntry)):
            self.book.note(entry)
            return
        self._n_settings += _size_of(entry)
        if isinstance(entry, RegionsEntry):
            self._regions = entry.regions
        elif isinstance(entry, CalibrationEntry):
            self._calibration = entry.calibration
        elif isinstance(entry, AzimuthEntry):
            before = self._labels.get(entry.view_id, AzimuthChanges())
            self._labels[entry.view_id] = before.followed_by(entry.changes)

    def changes_something(self, entry: SettingEntry) -> bool:
        """Whether a setting differs from the present one; a repeated request must not make the log longer.

        Raises:
            ConfigError: the stream has ``MAX_SETTINGS`` changes already.
        """
        if isinstance(entry, RegionsEntry):
            same = entry.regions == self._regions
        elif isinstance(entry, CalibrationEntry):
            same = entry.calibration == self._calibration
        else:
            before = self._labels.get(entry.view_id, AzimuthChanges())
            same = before == before.followed_by(entry.changes)
        if not same and self._n_settings + _size_of(entry) > MAX_SETTINGS:
            raise ConfigError(
                f"regions, calibration and labels of this stream were changed {MAX_SETTINGS} times (each region "
                "counts), and no more changes are stored. Begin a new stream for other settings"
            )
        return not same

    def append(self, entry: AnnotationEntry) -> None:
        """Store an entry durably.

        Raises:
            OSError: of the disk; nothing was stored.
        """
        self._log.append(entry, durable=True)
        self._note(entry)

    def add_event(self, mark: NewMark) -> EventState:
        """Store an event and return it. If an event with this id is stored already, that one is returned.

        Raises:
            ConfigError: the stream has ``MAX_EVENTS`` events already.
        """
        stored = self.book.state(mark.id or "")
        if stored is not None:
            return stored
        self.book.check_room()
        entry = mark.entry()
        self.append(entry)
        return entry

    def correct_event(self, event_id: str, version: int, changes: EventChanges) -> EventState:
        """Store a correction of version ``version`` of an event; returns what the event is then.

        Raises:
            EventMissingError, EventConflictError, ConfigError: as :meth:`EventHistory.correction`; nothing was stored.
        """
        entry = self.book.correction(event_id, version, changes)
        if entry is not None:
            self.append(entry)
        return self.book.history(event_id)[-1]

    def events(self, origin_ms: float | None) -> list[Event]:
        """The user's events; ``time_s`` is None as long as the stream has no origin."""
        return self.book.events(origin_ms)

    @property
    def regions(self) -> list[RegionRecord]:
        """The user's present regions."""
        return self._regions

    @property
    def calibration(self) -> CalibrationRecord:
        """The present calibration, empty if there is none."""
        return self._calibration

    def labels(self) -> dict[str, AzimuthChanges]:
        """The changes of each azimuth's view that the user has changed, by the view's id."""
        return dict(self._labels)

    def for_analysis(self, since: int, origin_ms: float) -> list[AnalyzerEntry]:
        """The entries from number ``since`` (from 0) on in the form for an analyzer; ``origin_ms`` is frame 0's
        time.
        """
        entries: list[AnalyzerEntry] = []
        for entry in self.entries[since:]:
            if isinstance(entry, (EventEntry, EventChangeEntry)):
                event = self.book.for_analysis(entry, origin_ms)
                entries += [] if event is None else [event]
            elif isinstance(entry, (RegionsEntry, CalibrationEntry)):
                entries.append(entry)
        return entries

    def close(self) -> None:
        """Close the file."""
        self._log.close()


def _size_of(entry: AnnotationEntry) -> int:
    return 1 + (len(entry.regions) if isinstance(entry, RegionsEntry) else 0)


class InThread(Protocol):
    """Runs a blocking call in a thread and returns its result."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]:
        """Run ``call``."""


def event_message(state: EventState, origin_ms: float | None) -> EventMessage:
    """What the feed gets when an event was set, corrected or deleted."""
    deleted = True if state.deleted else UNSET
    return EventMessage(event=as_event(state, origin_ms), deleted=deleted)


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

    async def mark(self, mark: NewMark) -> Event:
        """Store and publish an event; returns it. A repeat of its id changes nothing."""
        async with self._lock:
            before = len(self._annotations.entries)
            state = await self._in_thread(lambda: self._annotations.add_event(mark))
            if len(self._annotations.entries) > before:
                await self._publish(event_message(state, self._origin_ms()))
        self._notify()
        return as_event(state, self._origin_ms())

    async def correct(self, event_id: str, version: int, changes: EventChanges) -> tuple[EventState, bool]:
        """Store and publish a correction; returns what the event is then, and whether the analysis needs it.

        Raises:
            EventMissingError, EventConflictError, ConfigError: nothing was changed.
        """
        async with self._lock:
            before = self._annotations.book.state(event_id)
            state = await self._in_thread(lambda: self._annotations.correct_event(event_id, version, changes))
            if state is not before:
                await self._publish(event_message(state, self._origin_ms()))
        self._notify()
        return state, before is not None and matters(before, state)

    async def set_regions(
        self, regions: list[RegionRecord], detected: list[RegionRecord]
    ) -> list[RegionRecord]:
        """Replace the user's regions; returns them with defaults filled in.

        Raises:
            ConfigError: invalid regions, or too many changes; nothing was changed.
        """
        checked = check_regions(regions)
        entry = RegionsEntry(checked)
        async with self._lock:
            if self._annotations.changes_something(entry):
                await self._in_thread(lambda: self._annotations.append(entry))
                await self.publish_regions(checked, detected, complete=False)
        self._notify()
        return checked

    async def publish_regions(
        self, regions: list[RegionRecord], detected: list[RegionRecord], *, complete: bool
    ) -> None:
        """Publish the regions; ``complete`` if their traces reach back to the first frame."""
        await self._publish(RegionsMessage(regions=regions, detected_regions=detected, complete=complete))

    async def append(self, entry: CalibrationEntry | AzimuthEntry) -> bool:
        """Store an entry that is not published: a calibration, the label of an azimuth. False if it changes nothing.

        Raises:
            ConfigError: the stream has too many changes already; nothing was changed.
        """
        async with self._lock:
            changes = self._annotations.changes_something(entry)
            if changes:
                await self._in_thread(lambda: self._annotations.append(entry))
        self._notify()
        return changes
