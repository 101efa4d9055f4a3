"""The events of a user in one stream with their corrections: the present and all earlier contents of each.

The log keeps each entry. An event has a version, which grows by one with each correction; a correction names the
version that it replaces. Of two people who correct the same version the first one in the log is right, and the second
one gets :class:`EventConflictError`: so it is the same on all servers that share the log.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from atomstream.errors import ConfigError
from atomstream.results import SEGMENT_KINDS, Event
from atomstream.server.live.annotation_records import (
    CorrectedEvent,
    EventChangeEntry,
    EventState,
    TimedEvent,
)

MAX_EVENTS: Final = 20_000
"""Events of the user in one stream: pages and the analysis get all of them."""
MAX_CHANGES: Final = 20_000
"""Corrections of events in one stream."""


class EventMissingError(Exception):
    """There is no event with this id."""


class EventConflictError(Exception):
    """Somebody else has corrected the event since it was read; ``current`` is what it is now. Nothing was changed."""

    def __init__(self, current: EventState) -> None:
        super().__init__(f"The event is at version {current.version}.")
        self.current = current


class EventChanges(msgspec.Struct, frozen=True):
    """A correction of an event: the new values of its fields. Fields that are UNSET keep their values."""

    label: str | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    time_ms_utc: float | UnsetType = UNSET
    value: float | UnsetType | None = UNSET
    unit: str | UnsetType = UNSET
    deleted: bool | UnsetType = UNSET

    def applied_to(self, state: EventState) -> EventChangeEntry:
        """The correction of ``state`` with these values."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}
        before = {name: getattr(state, name) for name in CONTENT}
        return EventChangeEntry(
            state.id,
            state.version + 1,
            **{**before, **given},
            changed_unix_ms=1000.0 * time.time(),
            change_id=str(uuid.uuid4()),
        )


CONTENT: Final = ("kind", "label", "time_ms_utc", "value", "unit", "deleted")


def content_of(state: EventState) -> tuple[object, ...]:
    """All that a user can set of an event."""
    return tuple(getattr(state, name) for name in CONTENT)


class EventHistory:
    """The events, in the order in which they were set. Written by one thread at a time, read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, EventState] = {}
        self._history: dict[str, list[EventState]] = {}  # of corrected events, with the newest state
        self._as_events: list[Event] | None = []
        self._origin_ms: float | None = None
        self.n_changes = 0
        """Number of corrections."""
        self._names: set[tuple[str, str]] = set()
        self.was_corrected = False
        """True if a correction changes what the analysis finds."""

    def note(self, entry: EventState) -> None:
        """Apply an entry of the log. A repeated event and a correction of an earlier version have no effect.

        A correction has the complete content, so it holds also where an entry before it can't be read any more.
        """
        with self._lock:
            known = self._states.get(entry.id)
            if known is not None and entry.version <= known.version:
                return
            self._states[entry.id] = entry
            self._names.add((entry.kind, entry.label))
            if isinstance(entry, EventChangeEntry):
                self._history.setdefault(entry.id, [] if known is None else [known]).append(entry)
                self.n_changes += 1
                self._as_events = None
                self.was_corrected |= known is not None and matters(known, entry)
            elif self._as_events is not None:
                self._as_events.append(as_event(entry, self._origin_ms))

    def holds(self, entry: EventState) -> bool:
        """True if the entry had an effect: its content is the event's present or an earlier one."""
        return entry in self.history(entry.id)

    def state(self, event_id: str) -> EventState | None:
        """The present content of the event, deleted or not; None if there is no such event."""
        return self._states.get(event_id)

    def history(self, event_id: str) -> list[EventState]:
        """All contents of the event, from its first version to the newest one; empty if there is no such event."""
        known = self._states.get(event_id)
        if known is None:
            return []
        return list(self._history.get(event_id, [known]))

    def __len__(self) -> int:
        return len(self._states)

    def check_room(self) -> None:
        """Raises ConfigError if there are ``MAX_EVENTS`` events."""
        if len(self._states) >= MAX_EVENTS:
            raise ConfigError(f"This stream has {MAX_EVENTS} events already; at most that many are stored.")

    def correction(self, event_id: str, version: int, changes: EventChanges) -> EventChangeEntry | None:
        """The entry that corrects version ``version`` of an event; None if the event has this content already, as after
        a repeated request whose answer was lost.

        Raises:
            EventMissingError: there is no such event. EventConflictError: it has another version.
            ConfigError: the stream has ``MAX_CHANGES`` corrections already.
        """
        state = self._states.get(event_id)
        if state is None:
            raise EventMissingError
        wanted = changes.applied_to(state)
        if content_of(wanted) == content_of(state):
            return None
        if version != state.version:
            raise EventConflictError(state)
        if self.n_changes >= MAX_CHANGES:
            raise ConfigError(
                f"This stream has {MAX_CHANGES} corrections already; at most that many are stored."
            )
        return wanted

    def events(self, origin_ms: float | None) -> list[Event]:
        """The events that are not deleted; ``time_s`` is None as long as the stream has no origin."""
        with self._lock:
            if self._as_events is None or origin_ms != self._origin_ms:
                self._origin_ms = origin_ms
                self._as_events = [
                    as_event(state, origin_ms) for state in self._states.values() if not state.deleted
                ]
            return list(self._as_events)

    def names(self) -> set[tuple[str, str]]:
        """Kind and label of all events, also of earlier versions: the analysis reports the user's events too, and this
        list identifies them.
        """
        with self._lock:
            return set(self._names)

    def before(self, entry: EventState) -> EventState | None:
        """The content before an entry that has an effect; None if the entry is the first one."""
        history = self.history(entry.id)
        at = history.index(entry)
        return history[at - 1] if at else None

    def _sent_before(self, entry: EventState) -> EventState | None:
        """The content of the event that was last sent to an analyzer before this entry; corrections without effect are
        not sent."""
        known: EventState | None = None
        for state in self.history(entry.id):
            if state == entry:
                break
            if known is None or matters(known, state):
                known = state
        return known

    def for_analysis(self, entry: EventState, origin_ms: float) -> TimedEvent | CorrectedEvent | None:
        """The entry in the form for an analyzer; None if it has no effect on the analysis."""
        if not self.holds(entry):
            return None
        before = self._sent_before(entry)
        after = None if entry.deleted else timed(entry, origin_ms)
        if before is None or before.deleted:
            return after
        return CorrectedEvent(timed(before, origin_ms), after) if matters(before, entry) else None


def matters(before: EventState, after: EventState) -> bool:
    """True if the results of the analysis differ between ``after`` and ``before``."""
    if before.deleted and after.deleted:
        return False
    if (before.deleted, before.time_ms_utc) != (after.deleted, after.time_ms_utc):
        return True
    kinds = {before.kind, after.kind}
    if "rotation" in kinds and before.value != after.value:
        return True
    return not kinds.isdisjoint(SEGMENT_KINDS) and (before.kind, before.label) != (after.kind, after.label)


def as_event(state: EventState, origin_ms: float | None) -> Event:
    """A stored event; its ``time_s`` is None without an origin."""
    return Event(
        time_s=None if origin_ms is None else _seconds(state, origin_ms),
        kind=state.kind,
        label=state.label,
        value=state.value,
        id=state.id,
        time_ms_utc=state.time_ms_utc,
        by="user",
        unit=state.unit,
        version=state.version,
    )


def timed(state: EventState, origin_ms: float) -> TimedEvent:
    """A stored event for an analyzer."""
    return TimedEvent(state.kind, state.label, state.value, _seconds(state, origin_ms), state.id)


def _seconds(state: EventState, origin_ms: float) -> float:
    return (state.time_ms_utc - origin_ms) / 1000.0
