"""Puts the signals of a sample beside its frames: as arrays in the archive, and as marks by the streams' rules.

Frames and points arrive in any order and at different times. So nothing is written when they arrive. It is noted from
which time on a stream's arrays are out of date, and about once a second these parts are computed from the points. All
arrays of a stream are written once more at its end, so that a server that was killed leaves nothing wrong behind.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.mark_rules import MarkRule
from atomstream.server.archive.frame_runs import Numbers
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.disk_errors import log_failure
from atomstream.server.live.annotation_records import NewMark
from atomstream.server.live.manager import ResultsManager
from atomstream.server.signals.alignment import AFTER_S, column_names, held
from atomstream.server.signals.chunks import Points
from atomstream.server.signals.registry import SignalRegistry, SignalsChanged
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ChunkStored, ServerSignals, StatusChanged
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

PERIOD_S: Final = 1.0
RETRY_S: Final = 10.0
"""Wait before the next try after the disk has refused to write, in s."""
BLOCK: Final = 16_384
"""Frames whose values are computed at once."""
MAX_OF_SAMPLE: Final = 5_000_000
"""Most points of a sample that are in memory at once; streams of signals that were made before are left out."""
MAX_CHANNELS: Final = 256
"""Most channels of a sample: each is an array of every stream of frames on it."""
MAX_MARKS: Final = 1000
"""Most marks that the rules set in one stream of frames."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleChannel:
    """A channel of a sample: its ``name``, the name of its array in archives, its unit and its points."""

    name: str
    column: str
    units: str | None
    points: Points
    rules: tuple[MarkRule, ...]
    signals_id: str


class BesideFrames:
    """Keeps arrays and marks up to date. Used in the server's loop; :meth:`run` is its task."""

    def __init__(
        self,
        streams: StreamRegistry,
        entries: StreamsTable,
        signals: SignalRegistry,
        results: ResultsManager,
        events: ServerSignals,
    ) -> None:
        self._streams = streams
        self._entries = entries
        self._signals = signals
        self._results = results
        self._stale: dict[str, float] = {}
        self._ended: set[str] = set()
        self._marked: dict[str, set[str]] = {}
        self._spans: dict[str, tuple[float, float]] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        events.chunk_stored.subscribe(self._chunk_stored)
        events.status_changed.subscribe(self._status_changed)
        signals.changed.subscribe(self._signals_changed)

    # -- what is out of date -----------------------------------------------------------------------------

    def note(self, data_id: str, from_s: float = 0.0) -> None:
        """The arrays of a stream of frames are out of date from this time on (s since 1970)."""
        self._stale[data_id] = min(from_s, self._stale.get(data_id, math.inf))
        self._idle.clear()
        self._wake.set()

    async def _chunk_stored(self, stored: ChunkStored) -> None:
        claims = stored.ticket
        self._spans.pop(claims.data_id, None)
        if await self._has_signals(claims.data_id):
            self.note(claims.data_id, claims.start_unix_ms / 1000.0)

    async def _status_changed(self, changed: StatusChanged) -> None:
        if changed.status == "success" and await self._has_signals(changed.data_id):
            self._ended.add(changed.data_id)
            self.note(changed.data_id)

    async def _has_signals(self, data_id: str) -> bool:
        sample = (await self._streams.about(data_id)).sample
        return sample is not None and bool(self._signals.of_sample(sample.id))

    async def _signals_changed(self, changed: SignalsChanged) -> None:
        if changed.about.sample is None:
            return
        for data_id in await self._entries.of_sample(changed.about.sample.id):
            span = self._spans.get(data_id)
            if span is None or changed.from_s <= span[1] + AFTER_S:
                self.note(data_id, changed.from_s)

    # -- the work ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Bring arrays and marks up to date for as long as the server runs."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(PERIOD_S)
            await self.catch_up()
            if self._stale:
                await asyncio.sleep(RETRY_S)

    async def catch_up(self) -> None:
        """Bring everything that is out of date up to date now; what the disk refuses is tried again later."""
        self._wake.clear()
        refused: list[tuple[str, float, bool]] = []
        try:
            while self._stale:
                data_id = next(iter(self._stale))
                from_s, ended = self._stale.pop(data_id), data_id in self._ended
                self._ended.discard(data_id)
                try:
                    await self._update(data_id, from_s, ended)
                except OSError as error:
                    refused.append((data_id, from_s, ended))
                    self._log(error, data_id)
                except Exception as error:  # deleted meanwhile, or damaged: the others go on
                    self._log(error, data_id)
                except BaseException:  # cancelled: the server stops, and calls this once more
                    refused.append((data_id, from_s, ended))
                    raise
        finally:
            for data_id, from_s, ended in refused:
                self.note(data_id, from_s)
                if ended:
                    self._ended.add(data_id)
        if not self._stale:
            self._idle.set()

    @staticmethod
    def _log(error: Exception, data_id: str) -> None:
        log_failure(log, error, "the signals beside the frames of stream %s can't be written", data_id)

    async def settled(self) -> None:
        """Wait until nothing is out of date."""
        await self._idle.wait()

    async def _update(self, data_id: str, from_s: float, ended: bool) -> None:
        if data_id in self._streams.deleted:
            return
        if not await self._has_signals(data_id):
            return
        archive = await self._streams.archive(data_id)
        about, origin_ms = await self._streams.about(data_id), archive.origin_unix_ms
        if about.sample is None or origin_ms is None:
            return
        channels = await self.channels(about.sample.id)
        span = await asyncio.to_thread(write_columns, archive, origin_ms / 1000.0, channels, from_s)
        if ended:
            await asyncio.to_thread(archive.results.sync)
        if span is not None:
            self._spans[data_id] = span
            await self._mark(data_id, span, channels)

    async def channels(self, sample_id: str) -> list[SampleChannel]:
        """The channels of a sample. Of channels with the same name in two streams both are there."""
        found: list[tuple[Any, str, str | None, Points]] = []
        seen: set[str] = set()
        count = 0
        for about in reversed(self._signals.of_sample(sample_id)):
            count += sum((await self._signals.read(about.data_id, lambda stream: stream.lengths())).values())
            if count > MAX_OF_SAMPLE and found:
                log.warning(
                    "sample %s has more than %d points: those before %s are not written beside its frames",
                    sample_id, MAX_OF_SAMPLE, found[-1][0].made,
                )  # fmt: skip
                break
            # At once: a channel that begins in between would be written without its unit.
            units, series = await self._signals.read(
                about.data_id, lambda stream: (stream.units(), stream.points())
            )
            kept = [name for name in series if name in seen or len(seen) < MAX_CHANNELS]
            seen.update(kept[: MAX_CHANNELS - len(seen)])
            found += [(about, name, units.get(name), series[name]) for name in reversed(kept) if name in seen]
        found.reverse()  # the oldest stream first, and the channels of each in the order in which they began
        merged: dict[str, SampleChannel] = {}
        names = column_names(dict.fromkeys(name for _, name, _, _ in found))
        for about, name, unit, points in found:
            rules = tuple(rule for rule in about.rules() if rule.channel == name)
            before = merged.get(name)
            if before is not None and before.units == unit:
                points = _joined(before.points, points)
                rules += tuple(rule for rule in before.rules if rule not in rules)
            merged[name] = SampleChannel(name, names[name], unit, points, rules, about.data_id)
        return list(merged.values())

    async def _mark(self, data_id: str, span: tuple[float, float], channels: list[SampleChannel]) -> None:
        first, last = span
        done = self._marked.setdefault(data_id, set())
        for channel in channels:
            for rule in channel.rules:
                for at in rule.crossings(channel.points.times, channel.points.values):
                    name = f"atomstream:{data_id}:{rule}:{at!r}"
                    if not first <= at <= last or name in done or len(done) >= MAX_MARKS:
                        continue
                    done.add(name)
                    results = await self._results.of(data_id)
                    mark_id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
                    await results.mark(NewMark(rule.kind, rule.label, 1000.0 * at, id=mark_id))


def _joined(first: Points, second: Points) -> Points:
    times = np.concatenate([first.times, second.times])
    order = np.argsort(times, kind="stable")
    return Points(times[order], np.concatenate([first.values, second.values])[order])


def write_columns(
    archive: StreamArchive, origin_s: float, channels: list[SampleChannel], from_s: float
) -> tuple[float, float] | None:
    """Write the channels' values at all frames from ``from_s`` on; returns the first and the last frame's time.

    Times are in s since 1970. Blocks on the disk; raises OSError.
    """
    runs = archive.frame_runs()
    last = math.nan
    for start in range(len(runs) // BLOCK * BLOCK, -1, -BLOCK):
        frames = runs.frames(np.arange(start, min(start + BLOCK, len(runs)), dtype=np.int64))
        times = origin_s + archive.results.times_at(frames)
        if not np.isfinite(times).any():
            continue
        if math.isnan(last):
            last = float(np.nanmax(times))
        if np.nanmax(times) < from_s:
            break
        for part in _runs_of(frames):
            columns = {one.column: held(one.points, times[part]).astype(np.float32) for one in channels}
            units = {one.column: one.units or "1" for one in channels}
            archive.results.write(int(frames[part.start]), columns, units)
    return None if math.isnan(last) else (origin_s, last)


def _runs_of(frames: Numbers) -> Iterator[slice]:
    borders = [0, *(np.flatnonzero(np.diff(frames) != 1) + 1).tolist(), len(frames)]
    for first, stop in itertools.pairwise(borders):
        if stop > first:
            yield slice(first, stop)


def sampled(points: Points, first_s: float, last_s: float, most: int) -> Points:
    """The points from ``first_s`` to ``last_s`` (s since 1970), with the one that holds at the begin; at most ``most``.

    Of too many, the smallest and the largest of each part are kept, so that no short event is left out.
    """
    low = max(0, int(np.searchsorted(points.times, first_s, side="right")) - 1)
    high = int(np.searchsorted(points.times, last_s, side="right"))
    times, values = points.times[low:high], points.values[low:high]
    if len(times) <= most:
        return Points(times, values)
    kept: list[int] = []
    for part in np.array_split(np.arange(len(times)), max(1, most // 2)):
        some = values[part]
        if not np.isfinite(some).any():
            kept.append(int(part[0]))
            continue
        kept += sorted({int(part[np.nanargmin(some)]), int(part[np.nanargmax(some)])})
    chosen: npt.NDArray[np.int64] = np.array(kept, dtype=np.int64)
    return Points(times[chosen], values[chosen])
