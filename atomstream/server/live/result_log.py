"""The numbered records of one stream's results, in an append-only log with delta encoding.

Each batch record says how values, segments and views are after it. Unchanged ones are omitted, and every
``KEY_EACH``-th record is complete: in ten hours of chunks of 0.1 s there are 360 000 records, of 2.2 kB when complete
and 0.7 kB when not. To read one of them, at most ``KEY_EACH`` are read. A checkpoint holds what the records amount to
up to some number, so that a start of the server reads only the rest.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import google_crc32c
import msgspec

from atomstream.results import Plain
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.live.view_tracks import ViewTrack
from atomstream.system.record_log import RecordLog, is_lost

log = logging.getLogger("atomstream.server")
KEPT: Final = ("values", "segments", "views", "detected_regions")
"""Keys of a batch record that delta encoding applies to."""
KEY_EACH: Final = 64
CHECKPOINT_BYTES: Final = 1 << 20
"""A checkpoint is written when the log has grown by so much, or by the size of the last checkpoint."""
MAX_EVENTS: Final = 10_000
"""Newest events of the analysis in memory, about 6 MB; older ones are in the log only."""
_FACTS: Final = ("newest", "events", "fed", "analysed", "_closed_at", "ended", "missing", "made_unix_ms")
_OLD_KEYS: Final = {"found": "detected_regions", "lacks": "missing", "again": "reanalysis"}
"""Keys of records that versions before 0.1.0 wrote."""


class ResultLog:
    """The log of one stream, and what its records amount to. Blocks; one writer at a time, any number of readers.

    ``time_of`` returns the capture time of a frame in s.
    """

    def __init__(self, folder: Path, files: ArchiveFiles, time_of: Callable[[int], float]) -> None:
        self._folder = folder
        self._files = files
        self._time_of = time_of
        self.newest: Plain = nothing()
        """Values, segments, views and detected regions after the newest batch."""
        self.events: list[Plain] = []
        """Newest events of the analysis. The list is replaced and never changed."""
        self.view_points: dict[int, ViewTrack] = {}
        self.fed = 0
        """Frames that the analysis had received at the newest batch."""
        self.analysed = 0
        """Frames that have results."""
        self.ended = False
        self.missing: dict[int, str] = {}
        """Stored chunks that are not in the results, with the reason, as of the end of the analysis."""
        self.made_unix_ms: float | None = None
        self._closed_at = -1  # frames that the last final batch had received
        self._lock = threading.Lock()
        self._since_key = KEY_EACH
        self._stood: tuple[int, Plain] = (
            0,
            nothing(),
        )  # of the last record that was read: readers go on by one
        self._log = self._open()

    def _open(self) -> RecordLog:
        kept = read_checked(self._folder / "checkpoint")
        if kept and "view_tracks" not in kept:  # of an earlier version: everything is read from the log
            kept = None
        records = RecordLog(self._folder / "results.log", kept and kept["places"], self._files.file_system)
        if kept and records.n_cached:
            facts = current_keys(kept["noted"])
            for name in _FACTS:
                setattr(self, name, facts[name])
            self.missing = dict(facts["missing"])
            self.newest = current_keys(self.newest)
            self.view_points = {number: ViewTrack(raw) for number, raw in kept["view_tracks"]}
        for number in range(records.n_cached + 1, len(records) + 1):
            self._note(current_keys(records.read(number)))
        self._checked = (records.positions["end"], 0) if records.n_cached else (0, 0)
        return records

    @property
    def seq(self) -> int:
        """Number of the newest record, 0 before the first."""
        return len(self._log)

    def has_batch(self, fed: int, *, final: bool) -> bool:
        """True if the batch after ``fed`` frames is recorded: after a crash the analysis makes some again."""
        return fed <= (self._closed_at if final else self.fed)

    def add(self, record: Plain) -> Plain:
        """Append a record of any type; returns it with its number ``seq``.

        Raises:
            OSError: of the disk; nothing was appended.
        """
        with self._lock:
            kept = self._shortened(record)
            number = self._log.append(kept)
            self._since_key = 0 if kept.get("key") else self._since_key + 1
            self._note(kept)
        return {**record, "seq": number}

    def _shortened(self, record: Plain) -> Plain:
        if record["type"] != "batch":
            return record
        short = shortened(record, self.newest) if self._since_key < KEY_EACH else None
        return short or {**record, "key": True}

    def _note(self, record: Plain) -> None:
        if record["type"] == "end":
            self.ended = True
            self.missing = dict(record.get("missing", ()))
        if record["type"] != "batch":
            return
        self.ended = False
        self.newest = applied(self.newest, record)
        earlier = [] if record.get("reanalysis") else self.events
        if record["events"] or record.get("reanalysis"):
            self.events = [*earlier, *record["events"]][-MAX_EVENTS:]
        self.fed = max(self.fed, record["fed"])
        if record["final"]:
            self._closed_at = record["fed"]
        self.analysed = max(self.analysed, record["start"] + record["count"])
        self.made_unix_ms = record["made_unix_ms"]
        self._note_views(record)

    def _note_views(self, record: Plain) -> None:
        for view in record.get("views", ()):
            track = self.view_points.setdefault(view["view_id"], ViewTrack())
            if not len(track) or track[-1]["turns"] != view["turns"]:
                period = self.newest["values"].get("oscillation_period", {}).get("value")
                frame = max(0, record["start"] + record["count"] - 1)
                track.add(view, frame=frame, time_s=self._time_of(frame), oscillation_period=period)

    def read(self, seq: int) -> Plain:
        """The complete record of that number, without the per-frame columns.

        Raises:
            IndexError: there is no such record.
        """
        record = {**self._record(seq), "seq": seq}
        if is_lost(record):  # damaged on disk: the same message as for a reader that was too slow
            return {"type": "lost", "count": 1, "first": seq, "last": seq, "seq": seq}
        if record["type"] != "batch":
            return record
        at, before = self._stood
        stood = applied(before, record) if at == seq - 1 else standing_at(self._record, seq)
        self._stood = (seq, stood)
        return {name: value for name, value in {**record, **stood}.items() if name != "key"}

    def _record(self, number: int) -> Plain:
        return current_keys(self._log.read(number))

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
            facts["missing"] = list(self.missing.items())
            views = [(number, track.raw()) for number, track in self.view_points.items()]
            body = msgspec.msgpack.encode({"places": places, "noted": facts, "view_tracks": views})
        write_checked(self._files, self._folder / "checkpoint", body)
        self._checked = (places["end"], len(body))

    def close(self) -> None:
        """Close the file."""
        self._log.close()


# -- delta encoding --------------------------------------------------------------------------------------


def current_keys(record: Plain) -> Plain:
    """A record of any version with the keys of this version."""
    if _OLD_KEYS.keys().isdisjoint(record):
        return record
    return {_OLD_KEYS.get(name, name): value for name, value in record.items()}


def nothing() -> Plain:
    """The results before the first batch."""
    return {"values": {}, "segments": [], "views": [], "detected_regions": []}


def shortened(record: Plain, before: Plain) -> Plain | None:
    """The batch record without what is equal in ``before``; None if something was removed since."""
    old, new = _numbered(before["segments"]), _numbered(record["segments"])
    if not (before["values"].keys() <= record["values"].keys() and old.keys() <= new.keys()):
        return None
    short = {name: value for name, value in record.items() if name not in KEPT or value != before[name]}
    earlier = before["values"]
    if "values" in short:
        short["values"] = {
            name: value for name, value in short["values"].items() if earlier.get(name) != value
        }
    if "segments" in short:
        short["segments"] = [segment for number, segment in new.items() if old.get(number) != segment]
    return short


def applied(before: Plain, record: Plain) -> Plain:
    """The results after a record, shortened or complete."""
    if record["type"] != "batch":
        return before
    if record.get("key"):
        return {name: record[name] for name in KEPT}
    after = {name: record.get(name, before[name]) for name in KEPT}
    after["values"] = {**before["values"], **record.get("values", {})}
    segments = {**_numbered(before["segments"]), **_numbered(record.get("segments", []))}
    after["segments"] = [segments[number] for number in sorted(segments)]
    return after


def standing_at(read: Callable[[int], Plain], number: int) -> Plain:
    """The results after record ``number``; ``read`` returns records by number."""
    later: list[Plain] = []
    for at in range(number, 0, -1):
        later.append(read(at))
        if later[-1].get("key"):
            break
    stood = nothing()
    for record in reversed(later):
        stood = applied(stood, record)
    return stood


def _numbered(segments: list[Plain]) -> dict[int, Plain]:
    return {segment["number"]: segment for segment in segments}


# -- small files with a checksum -------------------------------------------------------------------------


def write_checked(files: ArchiveFiles, path: Path, body: bytes) -> None:
    """Write a file atomically, with its CRC-32C at the end."""
    files.write_atomic(path, body + google_crc32c.value(body).to_bytes(4, "little"))


def read_checked(path: Path) -> Plain | None:
    """The msgpack map in a file of :func:`write_checked`; None if it is absent or damaged."""
    with contextlib.suppress(FileNotFoundError):
        raw = path.read_bytes()
        if len(raw) > 4 and google_crc32c.value(raw[:-4]).to_bytes(4, "little") == raw[-4:]:
            content: Plain = msgspec.msgpack.decode(raw[:-4])
            return content
        log.warning("%s is damaged; its content is computed again", path)
    return None
