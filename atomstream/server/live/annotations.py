"""Annotations of the user: events, regions, the calibration, labels of azimuths. They are kept in ``inputs.log``."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from atomstream.results import Event
from atomstream.server.live.messages import (
    AnnotationEntry,
    AzimuthChanges,
    CalibrationMap,
    EventMessage,
    RegionMap,
    RegionsMessage,
    check_regions,
)
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.record_log import RecordLog, is_lost


class Annotations:
    """The entries of one stream, in the order in which they were made. Blocks; one writer at a time.

    The key ``what`` of an entry is ``event``, ``regions``, ``calibration`` or ``azimuth``.
    """

    def __init__(self, path: Path, file_system: FileSystem = LOCAL) -> None:
        self._log = RecordLog(path, file_system=file_system)
        self.entries: list[AnnotationEntry] = [self._log.read(number + 1) for number in range(len(self._log))]

    def append(self, entry: AnnotationEntry) -> None:
        """Store an entry durably.

        Raises:
            OSError: of the disk; nothing was stored.
        """
        self._log.append(entry, durable=True)
        self.entries.append(entry)

    def add_event(
        self, kind: str, label: str, time_ms_utc: float, value: float | None, event_id: str | None
    ) -> AnnotationEntry:
        """Store an event and return it. An event whose id is stored already is returned as it was stored."""
        stored = [entry for entry in self.entries if entry["what"] == "event" and entry["id"] == event_id]
        if stored:
            return stored[0]
        entry = {
            "what": "event",
            "id": event_id or str(uuid.uuid4()),
            "kind": kind,
            "label": label,
            "time_ms_utc": time_ms_utc,
            "value": value,
        }
        self.append(entry)
        return entry

    def events(self, origin_ms: float | None) -> list[Event]:
        """The user's events; ``time_s`` is None as long as the stream has no origin."""
        return [as_event(entry, origin_ms) for entry in self.entries if entry["what"] == "event"]

    @property
    def regions(self) -> list[RegionMap]:
        """The user's present regions."""
        regions: list[RegionMap] = self._last("regions", [])
        return regions

    @property
    def calibration(self) -> CalibrationMap:
        """The present calibration, empty if there is none."""
        calibration: CalibrationMap = self._last("calibration", {})
        return calibration

    def _last(self, what: str, default: Any) -> Any:
        for entry in reversed(self.entries):
            if entry["what"] == what:
                return entry[what]
        return default

    def labels(self) -> dict[str, AzimuthChanges]:
        """``label`` and ``enabled`` of each azimuth's view that the user has changed, by the view's id."""
        labels: dict[str, AzimuthChanges] = {}
        for entry in self.entries:
            if entry["what"] == "azimuth":
                labels.setdefault(entry["view_id"], {}).update(entry["said"])
        return labels

    def for_analysis(self, since: int, origin_ms: float) -> list[AnnotationEntry]:
        """The entries from number ``since`` on (from 0); events have their time in s from the stream's start."""
        return [
            {**entry, "time_s": (entry["time_ms_utc"] - origin_ms) / 1000.0}
            if entry["what"] == "event"
            else entry
            for entry in self.entries[since:]
            if not is_lost(entry)
        ]

    def close(self) -> None:
        """Close the file."""
        self._log.close()


def as_event(entry: AnnotationEntry, origin_ms: float | None) -> Event:
    """A stored event; its ``time_s`` is None without an origin."""
    at = None if origin_ms is None else (entry["time_ms_utc"] - origin_ms) / 1000.0
    return Event(
        time_s=at,
        kind=entry["kind"],
        label=entry["label"],
        value=entry["value"],
        id=entry["id"],
        time_ms_utc=entry["time_ms_utc"],
        by="user",
    )


class AnnotationWriter:
    """Stores the user's annotations, publishes them to the feed and notifies the analysis. Used in the server's loop.

    ``publish`` numbers and sends a record, ``in_thread`` runs a blocking call, ``notify`` is called after each entry.
    """

    def __init__(
        self,
        annotations: Annotations,
        origin_ms: Callable[[], float | None],
        publish: Callable[[EventMessage | RegionsMessage], Awaitable[None]],
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
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

    async def set_regions(self, regions: list[RegionMap], detected: list[RegionMap]) -> list[RegionMap]:
        """Replace the user's regions; returns them with defaults filled in.

        Raises:
            ConfigError: invalid regions; nothing was changed.
        """
        checked = check_regions(regions)
        async with self._lock:
            await self._in_thread(lambda: self._annotations.append({"what": "regions", "regions": checked}))
            await self.publish_regions(checked, detected, complete=False)
        self._notify()
        return checked

    async def publish_regions(
        self, regions: list[RegionMap], detected: list[RegionMap], *, complete: bool
    ) -> None:
        """Publish the regions; ``complete`` if their traces reach back to the first frame."""
        await self._publish(RegionsMessage(regions=regions, detected_regions=detected, complete=complete))

    async def append(self, entry: AnnotationEntry) -> None:
        """Store an entry that is not published: a calibration, the label of an azimuth."""
        async with self._lock:
            await self._in_thread(lambda: self._annotations.append(entry))
        self._notify()
