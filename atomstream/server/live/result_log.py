"""The numbered records of one stream's results, in an append-only log with delta encoding.

Each batch record has the values, segments and views after it. Unchanged ones are omitted, and every
``KEY_EACH``-th record is complete: in ten hours of chunks of 0.1 s there are 360 000 records, of 2.2 kB when complete
and 0.7 kB when not. To read one of them, at most ``KEY_EACH`` are read. A checkpoint holds what the records amount to
up to some number, so that a start of the server reads only the rest.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import google_crc32c
import msgspec
from msgspec import UNSET

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
from atomstream.server.live.view_tracks import ViewTrack
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain
from atomstream.system.record_log import RecordLog, is_lost

log = get_logger("atomstream.server")
M = TypeVar("M", bound=NumberedMessage)
KEPT: Final = CurrentResults.__struct_fields__
"""Fields of a batch that delta encoding applies to."""
KEY_EACH: Final = 64
CHECKPOINT_BYTES: Final = 1 << 20
"""A checkpoint is written when the log has grown by so much, or by the size of the last checkpoint."""
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


class ResultLog:
    """The log of one stream, and what its records amount to. Blocks; one writer at a time, any number of readers.

    ``time_of`` returns the capture time of a frame in s.
    """

    def __init__(self, folder: Path, files: ArchiveFiles, time_of: Callable[[int], float]) -> None:
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
        kept = read_checked(self._folder / "checkpoint")
        if kept and "view_tracks" not in kept:  # of an earlier version: everything is read from the log
            kept = None
        records = RecordLog(self._folder / "results.log", kept and kept["places"], self._files.file_system)
        if kept and records.n_cached:
            facts = current_form(kept["noted"])
            for name in _FACTS:
                setattr(self, name, facts[name])
            self.missing = MissingIndices(msgspec.convert(facts["missing"], list[MissingChunks]))
            self.newest = msgspec.convert(current_form(facts["newest"]), CurrentResults)
            self.events = msgspec.convert(facts["events"], list[Event])
            self.view_points = {number: ViewTrack(raw) for number, raw in kept["view_tracks"]}
        for number in range(records.n_cached + 1, len(records) + 1):
            self._note(typed(number, records.read(number)))
        self._checked = (records.positions["end"], 0) if records.n_cached else (0, 0)
        return records

    @property
    def seq(self) -> int:
        """Number of the newest record, 0 before the first."""
        return len(self._log)

    def has_batch(self, frames_received: int, *, final: bool) -> bool:
        """True if the batch after so many frames is recorded: after a crash the analysis makes some again."""
        return frames_received <= (self._closed_at if final else self.frames_received)

    def add(self, record: M) -> M:
        """Append a record of any type; returns it with its number ``seq``.

        Raises:
            OSError: of the disk; nothing was appended.
        """
        with self._lock:
            stored = self._stored_form(record)
            number = self._log.append(stored)
            self._since_key = (
                0 if isinstance(stored, StoredBatch) and stored.key is True else self._since_key + 1
            )
            self._note(stored)
        return msgspec.structs.replace(record, seq=number)

    def _stored_form(self, record: NumberedMessage) -> StoredRecord:
        if not isinstance(record, BatchMessage):
            return record
        short = shortened(record, self.newest) if self._since_key < KEY_EACH else None
        return short or complete(record)

    def _note(self, record: StoredRecord) -> None:
        if isinstance(record, EndMessage):
            self.ended = True
            self.missing = MissingIndices(() if record.missing is UNSET else record.missing)
        if not isinstance(record, StoredBatch):
            return
        self.ended = False
        self.newest = applied(self.newest, record)
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
        return typed(number, self._log.read(number))

    def sync(self) -> None:
        """Make all records durable."""
        self._log.sync()

    def checkpoint(self, *, force: bool) -> None:
        """Write a checkpoint, unless the log has grown too little for it to pay off."""
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
    """The results after a record, shortened or complete."""
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


def read_checked(path: Path) -> Plain | None:
    """The msgpack map in a file of :func:`write_checked`; None if it is absent or damaged."""
    with contextlib.suppress(FileNotFoundError):
        raw = read_plain(path)
        if len(raw) > 4 and google_crc32c.value(raw[:-4]).to_bytes(4, "little") == raw[-4:]:
            content: Plain = msgspec.msgpack.decode(raw[:-4])
            return content
        log.warning("%s is damaged; its content is computed again", path)
    return None
