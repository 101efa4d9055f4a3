"""The results of one stream on disk.

::

    frames.zarr/<column>     one value a frame, beside the frames
    analysis/results.log     numbered records (see result_log)
    analysis/checkpoint      merged content of the records up to some number
    analysis/state           the state of the analyzer some seconds ago; only to continue after a crash
    analysis/profiles        the waterfalls
    analysis/running         exists while the analysis has not ended

Columns are written before the record that names their frames, and the record is written before it is sent. So after
a crash at any moment, everything that a reader received is on disk. Batches that the analyzer makes again from its
earlier state are recognised by the number of frames it had received, and are not recorded twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType, structs

from atomstream.analysis.serialization import VERSION
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.results import SIGNAL, TIME, Event, Plain, finite, packed, unit_of, unpacked
from atomstream.server.archive.frame_runs import FrameRuns, Numbers
from atomstream.server.archive.result_columns import F32
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.annotation_records import TimedEvent
from atomstream.server.live.messages import (
    AnalyzerBatch,
    BatchMessage,
    MissingChunks,
    NumberedMessage,
    ViewRecord,
)
from atomstream.server.live.missing_chunks import MissingIndices
from atomstream.server.live.result_log import ResultLog, read_kept, write_checked
from atomstream.server.live.shared_records import SharedEntry, SharedWriter
from atomstream.server.live.view_tracks import renumbered
from atomstream.server.live.waterfall import Waterfall
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain

log = get_logger("atomstream.server")
STREAKS: Final = "streaks"
RUNNING: Final = "running"
MAX_WATERFALLS: Final = 80
"""Lines whose profiles are kept: all present ones, and the newest of those that the user has removed."""
LIVE, IDLE, REANALYSIS = "live", "idle", "reanalysis"
SNAPSHOT_VERSION: Final = f"2/{VERSION}"
"""Version of :class:`Snapshot` and of the analyzer's state in it."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """State of a live analysis, to continue from after a crash. Without arguments: that of a new analysis.

    ``state`` is the analyzer's, ``entries`` are the events whose time has not come, ``next_index`` and ``passed`` (a
    text like "3-4,7") are those of the chunks' order, ``sent`` is the number of annotations that the analyzer has.
    """

    state: bytes | None = None
    entries: list[TimedEvent] = []
    next_index: int = 0
    passed: str = ""
    sent: int = 0
    missing: list[MissingChunks] = []
    version: str = SNAPSHOT_VERSION


class SnapshotVersion(msgspec.Struct, frozen=True):
    """The version in the file of a :class:`Snapshot`, which may have other fields than this one."""

    version: str = ""


class ResultStore:
    """Columns, profiles and records of one stream. Blocks; one writer at a time, any number of readers."""

    def __init__(self, archive: StreamArchive, fps: float, shared: SharedWriter | None = None) -> None:
        self.fps = fps
        self.folder = archive.folder / "analysis"
        self._archive = archive
        self._shared = shared
        self.log = ResultLog(self.folder, archive.files, self._time_of, shared)
        try:
            self.waterfalls = self._read_waterfalls()
        except BaseException:
            self.log.close()
            raise
        self.saved: Callable[[], None] = _nothing
        """Called after each snapshot of a running analysis."""

    def _time_of(self, frame: int) -> float:
        time_s = float(self.times(frame, frame + 1)[0])
        return time_s if np.isfinite(time_s) else frame / self.fps

    # -- writing -----------------------------------------------------------------------------------------

    def write_columns(self, batch: AnalyzerBatch, only: frozenset[str] | None = None) -> None:
        """Write a batch's per-frame columns to the archive; only those in ``only`` if given."""
        columns = {
            name: unpacked(name, raw)
            for name, raw in batch.columns.items()
            if name != TIME and (only is None or name in only)
        }
        if columns:
            self._archive.results.write(batch.start, columns, {name: unit_of(name) for name in columns})

    def replace_columns(self, batch: AnalyzerBatch, only: frozenset[str] | None = None) -> None:
        """Like :meth:`write_columns`, over earlier results: columns that the batch does not have become NaN.

        Without ``only`` that is so for all columns but signals of instruments, and traces of regions, which the user
        may have removed.
        """
        absent = [
            name
            for name in self._archive.results.names()
            if name not in batch.columns and not name.startswith(("region_", SIGNAL)) and name != TIME
        ]
        empty = np.full(batch.count, np.nan, np.float32).tobytes()
        blank = {} if only is not None else dict.fromkeys(absent, empty)
        self.write_columns(structs.replace(batch, columns={**blank, **batch.columns}), only)

    def add_batch(
        self,
        batch: AnalyzerBatch,
        user_events: Collection[tuple[str, str]],
        *,
        chunk: int | None,
        final: bool,
        stored_unix_ms: float | None = None,
        reanalysis: bool = False,
    ) -> BatchMessage | None:
        """Store a batch. Returns its message for the feed, or None if it was recorded before.

        ``user_events`` are kind and label of each event that a user has set.
        """
        # After a crash a batch is made again: with equal numbers, or with others by another version.
        repeated = batch.start < self.log.analysed
        (self.replace_columns if repeated else self.write_columns)(batch)
        self.note_profiles(batch)
        if self.log.has_batch(batch.frames_received, final=final) and not reanalysis:
            return None
        record = BatchMessage(
            start=batch.start,
            count=batch.count,
            frames_received=batch.frames_received,
            values=batch.values,
            segments=batch.segments,
            views=self._with_known_numbers(batch.views) if reanalysis else batch.views,
            detected_regions=batch.detected_regions,
            events=self._own_events(batch.events, user_events),
            made_unix_ms=1000.0 * time.time(),
            chunk=chunk,
            stored_unix_ms=stored_unix_ms,
            newest_s=_last_time(batch),
            final=final,
            reanalysis=True if reanalysis else UNSET,
            columns=batch.columns,
            profile=batch.profile,
            lines=batch.lines,
        )
        return self.log.add(record)

    def apply(self, entry: SharedEntry) -> NumberedMessage | None:
        """Store what the process that owns the stream has recorded. Returns the message for the feed, if it has one."""
        only = None if entry.only is None else frozenset(entry.only)
        if entry.columns or entry.replaces:
            replaces = entry.replaces or (entry.record is not None and entry.start < self.log.analysed)
            (self.replace_columns if replaces else self.write_columns)(entry.batch(), only)
        if entry.record is None:
            return None
        if entry.columns:
            self.note_profiles(entry.batch())
        message = self.log.add_stored(entry.record)
        if not isinstance(message, BatchMessage):
            return message
        return structs.replace(message, columns=entry.columns, profile=entry.profile, lines=entry.lines)

    def share_columns(
        self, batch: AnalyzerBatch, only: frozenset[str] | None = None, *, replaces: bool
    ) -> None:
        """Show columns that have no record to the other processes; nothing where there are none."""
        if self._shared is not None:
            self._shared.columns(batch, only, replaces=replaces)

    def _with_known_numbers(self, views: list[ViewRecord]) -> list[ViewRecord]:
        # Smaller numbers are of views before the sample stopped; after a stop the azimuths begin elsewhere.
        since = min((view.view_id for view in self.log.newest.views), default=None)
        earlier = {
            number: points[-1]["angle_deg"]
            for number, points in self.log.view_points.items()
            if since is not None and number >= since
        }
        return renumbered(views, earlier, max(self.log.view_points, default=-1) + 1)

    def _own_events(self, events: Iterable[Event], user_events: Collection[tuple[str, str]]) -> list[Event]:
        """Events of the analysis. The analyzer also returns the user's events, which are recorded already."""
        events = list(events)
        if not events:
            return []
        own = [event for event in events if (event.kind, event.label) not in user_events]
        return [self._complete_event(event) for event in own if event.kind != "rotation"]

    def _complete_event(self, event: Event) -> Event:
        origin = self._archive.origin_unix_ms
        at = None if origin is None or event.time_s is None else origin + 1000.0 * event.time_s
        name = f"{event.kind}-{event.time_s:.4f}" if event.time_s is not None else event.kind
        return dataclasses.replace(event, id=name, time_ms_utc=at, by="analysis")

    def note_profiles(self, batch: AnalyzerBatch, waterfalls: dict[str, Waterfall] | None = None) -> None:
        """Add a batch's profiles to ``waterfalls``, by default those of the stream."""
        falls = self.waterfalls if waterfalls is None else waterfalls
        if not batch.count:
            return
        at = float(unpacked(TIME, batch.columns[TIME])[-1])
        present = {STREAKS: batch.profile, **batch.lines}
        for name, raw in present.items():
            falls.setdefault(name, Waterfall()).add(at, np.frombuffer(raw, dtype="<f4"))
        for name in [name for name in falls if name not in present][: max(0, len(falls) - MAX_WATERFALLS)]:
            del falls[name]

    # -- reading -----------------------------------------------------------------------------------------

    def message(self, seq: int, columns: Iterable[str] | None = None) -> NumberedMessage:
        """The message of record ``seq``, with these per-frame columns (None: all).

        Raises:
            IndexError: there is no such record.
        """
        record = self.log.read(seq)
        if isinstance(record, BatchMessage):
            return structs.replace(record, columns=self._columns(record, columns))
        return record

    def _columns(self, record: BatchMessage, names: Iterable[str] | None) -> dict[str, bytes]:
        start, stop = record.start, record.start + record.count
        results = self._archive.results
        read = results.read(results.names() if names is None else names, start, stop)
        determined = {
            name: packed(values, "<f4") for name, values in read.items() if np.isfinite(values).any()
        }
        return {TIME: packed(results.times(start, stop), "<f8"), **determined}

    def newest_times(self) -> tuple[float | None, float | None]:
        """Capture times of the newest frame with results and of the newest stored one, in s; None without one."""
        return self._time_before(self.log.analysed), self._time_before(self._archive.n_frames())

    def _time_before(self, frame: int) -> float | None:
        return finite(self._time_of(frame - 1)) if frame else None

    @property
    def n_columns(self) -> int:
        """Number of per-frame columns."""
        return len(self._archive.results.names())

    def frame_runs(self) -> FrameRuns:
        """Which frames are stored."""
        return self._archive.frame_runs()

    def columns_at(self, frames: Numbers, names: Iterable[str] | None = None) -> dict[str, F32]:
        """Per-frame columns (all, or those of ``names``) at these ascending frame numbers, NaN if undetermined."""
        results = self._archive.results
        return results.read_at(results.names() if names is None else names, frames)

    def times_at(self, frames: Numbers) -> npt.NDArray[np.float64]:
        """Capture times of these ascending frame numbers in s from the stream's start, NaN where there is no frame."""
        return self._archive.results.times_at(frames)

    def times(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Capture times of frames in s from the stream's start, NaN where there is no frame."""
        return self._archive.results.times(start, stop)

    @property
    def origin_unix_ms(self) -> float | None:
        """UTC milliseconds that the stream's seconds count from; None before the first chunk."""
        return self._archive.origin_unix_ms

    # -- to continue after a stop or a crash -------------------------------------------------------------

    def save(self, snapshot: Snapshot | None) -> None:
        """Make all results durable, then save the state of the analysis (None: it has ended)."""
        self._archive.results.sync()
        self.log.sync()
        self.log.checkpoint(force=snapshot is None)
        self.save_profiles()
        self._write("state", snapshot or {})
        if snapshot is not None:
            self.saved()

    def save_profiles(self) -> None:
        """Write the waterfalls."""
        profiles = {name: waterfall.plain() for name, waterfall in self.waterfalls.items()}
        self._write("profiles", profiles)

    def load(self) -> Snapshot | None:
        """The snapshot of the last :meth:`save`; None if there is none that this version can read."""
        files, path = self._archive.files, self.folder / "state"
        version = read_kept(files, path, SnapshotVersion)
        if version is None:
            return None
        if version.version != SNAPSHOT_VERSION:
            log.warning(
                "stream %s: its analysis was begun by another version of atomstream; it starts from the first frame",
                self._archive.folder.name,
            )
            return None
        saved = read_kept(files, path, Snapshot)
        try:
            IndexSet.parse("" if saved is None else saved.passed, max_index=MAX_CHUNK_INDEX)
            MissingIndices(() if saved is None else saved.missing)
        except (ValueError, TypeError):
            files.note_damage(path, "it is damaged; the analysis starts from the first frame")
            return None
        return saved

    def _read_waterfalls(self) -> dict[str, Waterfall]:
        path = self.folder / "profiles"
        kept = read_kept(self._archive.files, path, dict[str, Plain]) or {}
        try:
            return {name: Waterfall.from_plain(plain) for name, plain in kept.items()}
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            self._archive.files.note_damage(path, "the file is damaged; earlier line profiles are lost")
            return {}

    def _write(self, name: str, content: Plain | Snapshot) -> None:
        write_checked(self._archive.files, self.folder / name, msgspec.msgpack.encode(content))

    def begin(self, what: str = LIVE) -> None:
        """Note on disk that a live analysis or a re-analysis runs, for the next start of the server.

        ``IDLE``: a live analysis that waits for the next chunk was closed.
        """
        disk = self._archive.files.file_system
        disk.unlink(self.folder / RUNNING)  # overwrite() would leave the end of a longer text
        disk.overwrite(self.folder / RUNNING, what.encode())

    def left_running(self) -> str | None:
        """The argument of the last :meth:`begin` that was not followed by :meth:`end`, or None."""
        self._archive.files.clear_way(self.folder / RUNNING)
        with contextlib.suppress(FileNotFoundError):
            noted = read_plain(self.folder / RUNNING).decode("ascii", "replace") or LIVE
            return REANALYSIS if noted == "again" else noted  # "again": versions before 0.1.0
        return None

    def end(self) -> None:
        """Note that the analysis has ended: everything is on disk, and the next start has nothing to continue."""
        self.save(None)
        self._archive.finish()
        for name in (RUNNING, "state"):
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files."""
        self.log.close()


def _nothing() -> None:
    """In a single process nobody else needs the files."""


def _last_time(batch: AnalyzerBatch) -> float | UnsetType:
    """Capture time of a batch's last frame in s from the stream's start."""
    if not batch.count or TIME not in batch.columns:
        return UNSET
    newest_s = float(unpacked(TIME, batch.columns[TIME])[-1])
    return newest_s if np.isfinite(newest_s) else UNSET
