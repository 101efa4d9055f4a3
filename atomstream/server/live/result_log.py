"""The numbered records of one stream's results, in an append-only log with delta encoding.

Each batch record has the values, segments and views after it. Unchanged ones are omitted, and every
``KEY_EACH``-th record is complete: in ten hours of chunks of 0.1 s there are 360 000 records, of 2.2 kB when complete
and 0.7 kB when not. To read one of them, at most ``KEY_EACH`` are read. A checkpoint holds the merged content of the
records up to some number, so that a start of the server reads only the rest.
"""

from __future__ import annotations

import contextlib
import errno
import math
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import google_crc32c
import msgspec
from msgspec import UNSET

from atomstream.counted import counted
from atomstream.protocol import MAX_CHUNK_INDEX, MAX_CHUNK_SIZE
from atomstream.results import Event, Plain
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.live.messages import (
    BatchFields,
    BatchMessage,
    CurrentResults,
    EndMessage,
    LostMessage,
    MissingChunks,
    NumberedMessage,
    SegmentRecord,
    StoredBatch,
    StoredRecord,
)
from atomstream.server.live.missing_chunks import MissingIndices
from atomstream.server.live.shared_records import SharedWriter
from atomstream.server.live.view_tracks import ViewTrack
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain
from atomstream.system.record_log import RecordLog, is_lost

log = get_logger("atomstream.server")
T = TypeVar("T")
M = TypeVar("M", bound=NumberedMessage)
KEPT: Final = CurrentResults.__struct_fields__
"""Fields of a batch that delta encoding applies to."""
KEY_EACH: Final = 64
CHECKPOINT_BYTES: Final = 1 << 20
"""A checkpoint is written when the log has grown by this number of bytes, or by the size of the last checkpoint."""
MAX_FRAMES: Final = MAX_CHUNK_INDEX * MAX_CHUNK_SIZE
MAX_EVENTS: Final = 10_000
"""Newest events of the analysis in memory, about 6 MB; older ones are in the log only."""
_FACTS: Final = (
    "newest",
    "events",
    "frames_received",
    "analysed",
    "_closed_at",
    "ended",
    "missing",
    "made_unix_ms",
)
_OLD_KEYS: Final = {
    "found": "detected_regions",
    "lacks": "missing",
    "again": "reanalysis",
    "fed": "frames_received",
}
"""Keys of records and checkpoints that earlier versions wrote."""


class Checkpoint(msgspec.Struct, frozen=True):
    """The content of the file: positions of the records, their merged content, and the views' histories as bytes."""

    places: Plain
    noted: Plain
    view_tracks: list[tuple[int, bytes]] | None = None
    """Absent in checkpoints of an earlier version, whose log is read from its start."""


def _n_known(checkpoint: Checkpoint) -> int:
    """The number of the records that a checkpoint knows; 0 if it is damaged."""
    offsets = checkpoint.places.get("offsets")
    return len(offsets) // array("Q").itemsize if isinstance(offsets, bytes) else 0


class CheckpointFacts(msgspec.Struct, frozen=True):
    """The values of a :class:`ResultLog` in a checkpoint."""

    events: list[Event]
    frames_received: int
    analysed: Annotated[int, msgspec.Meta(ge=0, le=MAX_FRAMES)]
    closed_at: int = msgspec.field(name="_closed_at")
    ended: bool = False
    missing: list[MissingChunks] = []
    made_unix_ms: float | None = None


class ResultLog:
    """The log of one stream, and the merged content of its records. Blocks; one writer at a time, any number of
    readers.

    ``time_of`` returns the capture time of a frame in s. ``shared`` receives each record before it is appended.
    """

    def __init__(
        self,
        folder: Path,
        files: ArchiveFiles,
        time_of: Callable[[int], float],
        shared: SharedWriter | None = None,
    ) -> None:
        self._shared = shared
        self._folder = folder
        self._files = files
        self._time_of = time_of
        self.newest = CurrentResults()
        """Results after the newest batch."""
        self.events: list[Event] = []
        """Newest events of the analysis. The list is replaced and never changed."""
        self.view_points: dict[int, ViewTrack] = {}
        self.frames_received = 0
        """Frames that the analysis had received at the newest batch."""
        self.analysed = 0
        """Frames that have results."""
        self.ended = False
        self.missing = MissingIndices()
        """Stored chunks that are not in the results, as of the end of the analysis."""
        self.made_unix_ms: float | None = None
        self._closed_at = -1  # frames that the last final batch had received
        self._lock = threading.Lock()
        self._since_key = KEY_EACH
        # The number of the record that was read last, and the results after it: readers continue with the next one.
        self._last_read = (0, CurrentResults())
        self._log = self._open()

    def _open(self) -> RecordLog:
        path = self._folder / "results.log"
        kept = read_kept(self._files, self._folder / "checkpoint", Checkpoint)
        records = RecordLog(
            path,
            None if kept is None else kept.places,
            self._files.file_system,
            self._note_lost,
        )
        try:
            missing = 0 if kept is None else _n_known(kept) - len(records)
            if missing > 0:
                self._note_lost(
                    f"the last {counted(missing, 'record')} of it, which its checkpoint knows, are missing"
                )
            n_cached = records.n_cached if records.n_cached and self._take_over(kept) else 0
            for number in range(n_cached + 1, len(records) + 1):
                self._note(self._typed(number, records.read(number)))
        except BaseException:
            records.close()
            raise
        self._checked = (records.positions["end"], 0) if n_cached else (0, 0)
        return records

    def _note_lost(self, what: str) -> None:
        self._files.note_damage(
            self._folder / "results.log", f"{what}. An analysis of the stream computes its results again"
        )

    def _take_over(self, kept: Checkpoint | None) -> bool:
        """Set the state to that of a checkpoint; False if it is not valid, and nothing was changed."""
        if kept is None or kept.view_tracks is None:
            return False
        try:
            facts = current_form(kept.noted)
            found = msgspec.convert({name: facts[name] for name in _FACTS}, CheckpointFacts)
            newest = msgspec.convert(current_form(facts["newest"]), CurrentResults)
            missing = MissingIndices(found.missing)
            views = {number: ViewTrack(raw) for number, raw in kept.view_tracks}
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError, IndexError):
            self._files.note_damage(self._folder / "checkpoint", _COMPUTED)
            return False
        self.newest, self.view_points = newest, views
        self.events, self.missing = found.events, missing
        self.frames_received, self.analysed = found.frames_received, found.analysed
        self._closed_at, self.ended, self.made_unix_ms = found.closed_at, found.ended, found.made_unix_ms
        return True

    @property
    def seq(self) -> int:
        """Number of the newest record, 0 before the first."""
        return len(self._log)

    def position(self) -> tuple[int, int]:
        """The entry of the shared log that was appended last, and the record that it has: both of one moment."""
        with self._lock:
            return (0 if self._shared is None else self._shared.after), len(self._log)

    def copy(self) -> bytes:
        """Return the content of the file; its last record is complete."""
        with self._lock:
            return read_plain(self._folder / "results.log", 1 << 40)  # results of a month at the highest rate

    def has_batch(self, frames_received: int, *, final: bool) -> bool:
        """True if the batch that was made after ``frames_received`` frames is recorded: after a crash the analysis
        makes some batches again."""
        return frames_received <= (self._closed_at if final else self.frames_received)

    def add(self, record: M) -> M:
        """Append a record of any type; returns it with its number ``seq``.

        Raises:
            OSError: of the disk; nothing was appended. OutdatedWriterError: another process owns the stream.
        """
        with self._lock:
            stored = self._stored_form(record)
            if self._shared is not None:
                self._shared.record(len(self._log) + 1, stored, record)
            number = self._append(stored)
        return msgspec.structs.replace(record, seq=number)

    def add_stored(self, stored: StoredRecord) -> NumberedMessage:
        """Append a record that another process has made in its stored form; returns its complete message."""
        with self._lock:
            number = self._append(stored)
        if not isinstance(stored, StoredBatch):
            return msgspec.structs.replace(stored, seq=number)
        return BatchMessage(**_facts_of(stored), **msgspec.structs.asdict(self.newest), seq=number)

    def _append(self, stored: StoredRecord) -> int:
        number = self._log.append(stored)
        self._since_key = 0 if isinstance(stored, StoredBatch) and stored.key is True else self._since_key + 1
        self._note(stored)
        return number

    def _stored_form(self, record: NumberedMessage) -> StoredRecord:
        if not isinstance(record, BatchMessage):
            return record
        short = shortened(record, self.newest) if self._since_key < KEY_EACH else None
        return short or complete(record)

    def _note(self, record: StoredRecord) -> None:
        if isinstance(record, EndMessage):
            self.ended = True
            self.missing = MissingIndices(() if record.missing is UNSET else record.missing)
        self.newest = applied(self.newest, record)
        if not isinstance(record, StoredBatch):
            return
        self.ended = False
        reanalysis = record.reanalysis is True
        if record.events or reanalysis:
            self.events = [*([] if reanalysis else self.events), *record.events][-MAX_EVENTS:]
        self.frames_received = max(self.frames_received, record.frames_received)
        if record.final:
            self._closed_at = record.frames_received
        self.analysed = max(self.analysed, record.start + record.count)
        self.made_unix_ms = record.made_unix_ms
        self._note_views(record)

    def _note_views(self, record: StoredBatch) -> None:
        for view in () if record.views is UNSET else record.views:
            track = self.view_points.setdefault(view.view_id, ViewTrack())
            if not len(track) or track[-1]["turns"] != view.turns:
                period = self.newest.values.get("oscillation_period")
                frame = max(0, record.start + record.count - 1)
                track.add(
                    view,
                    frame=frame,
                    time_s=self._time_of(frame),
                    oscillation_period=None if period is None else period.value,
                )

    def read(self, seq: int) -> NumberedMessage:
        """The complete record of that number, without the per-frame columns.

        Raises:
            IndexError: there is no such record.
        """
        record = self._record(seq)
        if not isinstance(record, StoredBatch):
            return msgspec.structs.replace(record, seq=seq)
        at, before = self._last_read
        after = applied(before, record) if at == seq - 1 else results_after(self._record, seq)
        self._last_read = (seq, after)
        return BatchMessage(**_facts_of(record), **msgspec.structs.asdict(after), seq=seq)

    def _record(self, number: int) -> StoredRecord:
        return self._typed(number, self._log.read(number))

    def _typed(self, number: int, record: Plain) -> StoredRecord:
        """The record of that number; a ``LostMessage`` if it is damaged, or was never one of atomstream."""
        try:
            made = typed(number, record)
            if isinstance(made, StoredBatch) and not is_possible(made):
                raise ValueError("its numbers are impossible")
            if isinstance(made, EndMessage) and made.missing is not UNSET:
                MissingIndices(made.missing)
        except (msgspec.MsgspecError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            self._note_lost(f"record {number} can't be used and is left out: {error}")
            return LostMessage(count=1, first=number, last=number)
        return made

    def sync(self) -> None:
        """Make all records durable."""
        self._log.sync()

    def checkpoint(self, *, force: bool) -> None:
        """Write a checkpoint, unless the log has grown by little since the last one."""
        with self._lock:
            places = self._log.positions
            end, nbytes = self._checked
            if not force and places["end"] - end < max(CHECKPOINT_BYTES, nbytes):
                return
            facts = {name: getattr(self, name) for name in _FACTS}
            facts["missing"] = self.missing.parts()
            views = [(number, track.raw()) for number, track in self.view_points.items()]
            body = msgspec.msgpack.encode({"places": places, "noted": facts, "view_tracks": views})
        write_checked(self._files, self._folder / "checkpoint", body)
        self._checked = (places["end"], len(body))

    def close(self) -> None:
        """Close the file."""
        self._log.close()


# -- delta encoding --------------------------------------------------------------------------------------


def current_form(record: Plain) -> Plain:
    """A record of any version with the keys of this version, and missing chunks as ranges."""
    if not _OLD_KEYS.keys().isdisjoint(record):
        record = {_OLD_KEYS.get(name, name): value for name, value in record.items()}
    missing = record.get("missing")
    if missing and isinstance(missing[0], list):  # pairs of index and reason
        indices = MissingIndices()
        for index, reason in missing:
            indices.add(index, reason)
        record = {**record, "missing": msgspec.to_builtins(indices.parts())}
    return record


def typed(number: int, record: Plain) -> StoredRecord:
    """The record of that number, written by any version; a ``LostMessage`` if it is damaged on disk."""
    if is_lost(record):  # the same message as for a reader that was too slow
        return LostMessage(count=1, first=number, last=number)
    made: StoredRecord = msgspec.convert(current_form(record), StoredRecord)
    return made


def is_possible(record: StoredBatch) -> bool:
    """Whether the frames of a batch can be those of a stream."""
    numbers = (record.start, record.count, record.frames_received)
    return all(0 <= number <= MAX_FRAMES for number in numbers) and math.isfinite(record.made_unix_ms)


def _facts_of(record: BatchFields) -> dict[str, Any]:
    return {name: getattr(record, name) for name in BatchFields.__struct_fields__}


def complete(record: BatchMessage) -> StoredBatch:
    """The complete record of a batch."""
    return StoredBatch(**_facts_of(record), **{name: getattr(record, name) for name in KEPT}, key=True)


def shortened(record: BatchMessage, before: CurrentResults) -> StoredBatch | None:
    """The record of a batch without what is equal in ``before``; None if something was removed since."""
    old, new = _numbered(before.segments), _numbered(record.segments)
    if not (before.values.keys() <= record.values.keys() and old.keys() <= new.keys()):
        return None
    values = {name: value for name, value in record.values.items() if before.values.get(name) != value}
    segments = [segment for number, segment in new.items() if old.get(number) != segment]
    same_regions = record.detected_regions == before.detected_regions
    return StoredBatch(
        **_facts_of(record),
        values=values or UNSET,
        segments=segments or UNSET,
        views=UNSET if record.views == before.views else record.views,
        detected_regions=UNSET if same_regions else record.detected_regions,
    )


def applied(before: CurrentResults, record: StoredRecord) -> CurrentResults:
    """The results after a record, shortened or complete.

    After a lost one nothing is known: a shortened record after it omits what the lost one may have changed.
    """
    if isinstance(record, LostMessage):
        return CurrentResults()
    if not isinstance(record, StoredBatch):
        return before
    values = {} if record.values is UNSET else record.values
    segments = [] if record.segments is UNSET else record.segments
    views = before.views if record.views is UNSET else record.views
    regions = before.detected_regions if record.detected_regions is UNSET else record.detected_regions
    if record.key is not True:
        values = {**before.values, **values}
        merged = {**_numbered(before.segments), **_numbered(segments)}
        segments = [merged[number] for number in sorted(merged)]
    return CurrentResults(values, segments, views, regions)


def results_after(read: Callable[[int], StoredRecord], number: int) -> CurrentResults:
    """The results after record ``number``; ``read`` returns records by number."""
    later: list[StoredRecord] = []
    for at in range(number, 0, -1):
        record = read(at)
        later.append(record)
        if isinstance(record, StoredBatch) and record.key is True:
            break
    results = CurrentResults()
    for record in reversed(later):
        results = applied(results, record)
    return results


def _numbered(segments: list[SegmentRecord]) -> dict[int, SegmentRecord]:
    return {segment.number: segment for segment in segments}


# -- small files with a checksum -------------------------------------------------------------------------


def write_checked(files: ArchiveFiles, path: Path, body: bytes) -> None:
    """Write a file atomically, with its CRC-32C at the end."""
    files.write_atomic(path, body + google_crc32c.value(body).to_bytes(4, "little"))


def read_kept(files: ArchiveFiles, path: Path, kind: type[T]) -> T | None:
    """The content of a file of :func:`write_checked` as ``kind``; None if it is absent, empty or damaged.

    A damaged one is noted, and something else in its place is moved away, so that it can be written again.
    """
    files.clear_way(path)
    try:
        raw = read_plain(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        files.note_damage(path, "it is a link and is not read")
        return None
    if len(raw) > 4 and google_crc32c.value(raw[:-4]).to_bytes(4, "little") == raw[-4:]:
        if raw[:-4] == _EMPTY:
            return None
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, ValueError):
            return msgspec.msgpack.decode(raw[:-4], type=kind)
    files.note_damage(path, _COMPUTED)
    return None


_EMPTY: Final = msgspec.msgpack.encode({})

_COMPUTED: Final = "it is damaged; its content is computed again"
