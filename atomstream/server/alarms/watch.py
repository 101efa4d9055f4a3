"""Watches the numbers of running streams that have rules of alarms, and notifies pages and webhooks when one is met."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeAlias

import msgspec

from atomstream.errors import AtomstreamError, ConfigError
from atomstream.server.alarms.rules import AlarmRule, check_rules, why_met
from atomstream.server.alarms.webhooks import Webhooks
from atomstream.server.archive.metadata import is_stream_id
from atomstream.server.disk_errors import log_failure
from atomstream.server.documents import Documents
from atomstream.server.http.responses import HttpError
from atomstream.server.live.manager import NoRoomError, ResultsManager
from atomstream.server.live.messages import MeasurementRecord
from atomstream.server.streams.registry import StreamRegistry
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

ALARMS_FILE: Final = "alarms.json"
EACH_S: Final = 1.0
"""Interval, in s, at which the numbers are checked."""
HOLD: Final = 2
"""Number of checks in a row that must agree before an alarm is raised or ends, so that it does not flicker."""
MAX_STREAMS: Final = 256
"""Streams with rules that are kept; with more, the rules of an ended one are dropped."""
WATCHED: Final = frozenset({"stream_active", "stream_interrupted"})


class RaisedAlarm(msgspec.Struct, frozen=True):
    """A rule that is met: the ``name`` of the number, ``why`` as the end of a sentence, and when that began."""

    name: str
    why: str
    since_unix_ms: float


class StreamAlarms(msgspec.Struct, frozen=True):
    """The rules of a stream and which of them are met. The order of streams is that of their last change."""

    rules: list[AlarmRule] = []
    raised: list[RaisedAlarm] = []


Newest: TypeAlias = tuple[dict[str, MeasurementRecord], float | None]
"""The newest values of a stream, and when they were made in Unix ms; None if there are none."""


class _Document(msgspec.Struct, frozen=True):
    streams: dict[str, StreamAlarms] = {}


class AlarmWatch:
    """The alarms of all streams of a server, or of the servers of a cluster. Used in the server's loop.

    Rules and raised alarms are one document. The server that changes it sends the message, so each change is sent once,
    also by several servers and after a restart. ``clock`` is the wall clock in s.
    """

    def __init__(
        self,
        documents: Documents,
        streams: StreamRegistry,
        results: ResultsManager,
        webhooks: Webhooks,
        public_url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.webhooks = webhooks
        self._documents = documents
        self._streams = streams
        self._results = results
        self._public_url = public_url
        self._clock = clock
        self._known: dict[str, StreamAlarms] = {}
        self._mark: Hashable = object()
        self._looks: dict[tuple[str, str], tuple[bool, int]] = {}
        self._running: set[str] = set()  # at the last check
        self._newest: dict[str, Newest] = {}

    async def of(self, data_id: str) -> StreamAlarms:
        """The rules of a stream and its raised alarms; raises OSError or CatalogueUnavailableError."""
        await self._read()
        return self._known.get(data_id, StreamAlarms())

    def raised(self, data_id: str) -> list[RaisedAlarm]:
        """The alarms that were raised at the last check."""
        return self._known.get(data_id, StreamAlarms()).raised

    async def set_rules(self, data_id: str, rules: list[AlarmRule]) -> StreamAlarms:
        """Replace the rules of a stream.

        Raises:
            ConfigError: a rule can't be met, two are of the same number, or too many running streams have rules.
            OSError, CatalogueUnavailableError: they can't be stored; nothing was changed.
        """
        checked = check_rules(rules)
        names = {rule.name for rule in checked}

        def revise(streams: dict[str, StreamAlarms]) -> None:
            before = streams.pop(data_id, StreamAlarms())
            if checked:
                streams[data_id] = StreamAlarms(checked, [one for one in before.raised if one.name in names])
            if len(streams) > MAX_STREAMS:
                ended = next((one for one in streams if one not in {*self._running, data_id}), None)
                if ended is None:  # dropping those of a running stream would switch off its alarms unnoticed
                    raise ConfigError(
                        f"alarms: {MAX_STREAMS} running streams have rules already. Remove the rules of one of them, "
                        "or end it"
                    )
                del streams[ended]

        await self._change(revise)
        return self._known.get(data_id, StreamAlarms())

    async def run(self) -> None:
        """Check the numbers every second, until this task is cancelled."""
        while True:
            await asyncio.sleep(EACH_S)
            try:
                await self.check()
            except (AtomstreamError, OSError) as error:
                log.debug(
                    "alarms: %s", error
                )  # the disk or the database can't be reached: the next check tries again
            except Exception as error:
                log_failure(log, error, "alarms: a check of the numbers failed")

    async def check(self) -> None:
        """Check the numbers of each running stream with rules once."""
        await self._read()
        for data_id, alarms in tuple(self._known.items()):
            if alarms.rules and is_stream_id(data_id):
                await self._check_stream(data_id, alarms)

    async def _check_stream(self, data_id: str, alarms: StreamAlarms) -> None:
        try:
            about = await self._streams.about(data_id)
            watched = about.status in WATCHED
            values, made_ms = await self._newest_of(data_id) if watched else ({}, None)
        except (HttpError, NoRoomError):  # it was deleted, or all places are taken
            return
        if watched:
            self._running.add(data_id)
        else:
            self._running.discard(data_id)
            self._newest.pop(data_id, None)
        now = self._clock()
        newest = (
            datetime.datetime.fromisoformat(about.made).timestamp() if made_ms is None else made_ms / 1000.0
        )
        age_s = max(0.0, now - newest)
        before = {one.name: one for one in alarms.raised}
        now_raised: dict[str, RaisedAlarm] = {}
        for rule in alarms.rules:
            why = why_met(rule, values, age_s) if watched else ""
            known = before.get(rule.name)
            if self._holds(data_id, rule.name, bool(why), known is not None):
                now_raised[rule.name] = known or RaisedAlarm(rule.name, why, 1000.0 * now)
        if now_raised.keys() != before.keys():
            await self._send_changes(data_id, about.name, now_raised, [*before])

    async def _newest_of(self, data_id: str) -> Newest:
        """The newest values of a stream, and when they were made.

        Its results are not opened for that again and again, and not kept open: with rules for many streams nothing
        else could be opened. Closed results do not change, unless another server of a cluster makes them.
        """
        results = self._results.opened(data_id)
        if results is None and (data_id not in self._newest or self._documents.is_shared):
            with self._results.unnoticed(data_id):
                results = await self._results.of(data_id)
        if results is not None:
            self._newest[data_id] = results.newest()
        return self._newest[data_id]

    def _holds(self, data_id: str, name: str, met: bool, raised: bool) -> bool:
        """Whether the alarm is raised now: a change of the condition must last for :data:`HOLD` checks."""
        if met == raised:
            self._looks.pop((data_id, name), None)
            return raised
        last, count = self._looks.get((data_id, name), (met, 0))
        count = count + 1 if last == met else 1
        self._looks[data_id, name] = (met, count)
        if count < HOLD:
            return raised
        del self._looks[data_id, name]
        return met

    async def _send_changes(
        self, data_id: str, stream: str, raised: dict[str, RaisedAlarm], before: list[str]
    ) -> None:
        is_current = False

        def revise(streams: dict[str, StreamAlarms]) -> None:
            nonlocal is_current
            alarms = streams.get(data_id)
            # Another server was first, or the rules were changed meanwhile.
            is_current = alarms is not None and [one.name for one in alarms.raised] == before
            if is_current and alarms is not None:
                streams[data_id] = StreamAlarms(alarms.rules, [*raised.values()])

        await self._change(revise)
        if not is_current:
            return
        for name in before:
            if name not in raised:
                self._send(
                    "alarm.ended", data_id, stream, name, "meets no rule any more, or its stream has ended"
                )
        for name, one in raised.items():
            if name not in before:
                log.warning("alarm of stream %s: %s %s", data_id, name, one.why)
                self._send("alarm.raised", data_id, stream, name, one.why)

    def _send(self, event: str, data_id: str, stream: str, name: str, why: str) -> None:
        page = f"{self._public_url.rstrip('/')}/streams/{data_id}" if self._public_url else None
        at = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).isoformat(timespec="seconds")
        message: dict[str, Any] = {
            # The field that chat programs show.
            "text": f"{stream}: {name} {why}." + (f" {page}" if page else ""),
            "event": event,
            "data_id": data_id,
            "stream": stream,
            "name": name,
            "why": why,
            "at": at,
            "page": page,
        }
        self.webhooks.send(message)

    async def _read(self) -> None:
        mark = await asyncio.to_thread(self._documents.mark, ALARMS_FILE)
        if mark != self._mark:
            self._known = _decoded(await asyncio.to_thread(self._documents.read, ALARMS_FILE))
            self._mark = mark

    async def _change(self, revise: Callable[[dict[str, StreamAlarms]], None]) -> None:
        def change(content: bytes | None) -> bytes:
            streams = _decoded(content)
            revise(streams)
            return msgspec.json.encode(_Document(streams))

        self._known = _decoded(await asyncio.to_thread(self._documents.change, ALARMS_FILE, change))


def _decoded(content: bytes | None) -> dict[str, StreamAlarms]:
    if content is None:
        return {}
    try:
        return dict(msgspec.json.decode(content, type=_Document).streams)
    except msgspec.MsgspecError as error:
        log.warning("alarms: %s is damaged, so no stream has alarms: %s", ALARMS_FILE, error)
        return {}
