"""The results of one stream on disk, and what of them is kept at hand.

::

    frames.zarr/<column>     one value a frame, beside the frames
    analysis/results.log     numbered records: values, events, segments as they stood after so many frames
    analysis/checkpoint      what the records amount to up to some number, so that a start reads only the rest
    analysis/state           where the analyser stood some seconds ago; a shortcut after a crash, no truth
    analysis/profiles        the waterfalls
    analysis/running         is there while the analysis has not ended

Columns are written before the record that names their frames, and the record before anybody hears of it; so
after the death of the process at any moment, whatever a reader was told is there. What the analyser makes again
from its earlier state is recognised by how many frames it had been fed, and is not recorded twice.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt

from atomstream.analysis.serialization import VERSION
from atomstream.results import TIME, Plain, packed, unit_of, unpacked
from atomstream.server.archive.result_columns import F32
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.result_log import (
    KEPT,
    KEY_EACH,
    applied,
    current_keys,
    nothing,
    shortened,
    standing_at,
)
from atomstream.server.live.view_tracks import ViewTrack, renumbered
from atomstream.server.live.waterfall import Waterfall
from atomstream.system.record_log import RecordLog, is_lost

log = logging.getLogger("atomstream.server")
CHECKPOINT_BYTES: Final = 1 << 20
"""A checkpoint is renewed when the log has grown by so much, or by the checkpoint's own size."""
MAX_EVENTS: Final = 10_000
"""Newest events of the analysis that are kept at hand, some 6 MB; older ones are in the log alone."""
NOTED: Final = ("newest", "events", "fed", "analysed", "_closed_at", "ended", "missing", "made_unix_ms")
STREAKS: Final = "streaks"
RUNNING: Final = "running"
LIVE, REANALYSIS = "live", "reanalysis"


class ResultStore:
    """Blocks; one writer at a time, any number of readers."""

    def __init__(self, archive: StreamArchive, fps: float) -> None:
        self.fps = fps
        self._archive = archive
        self.folder = archive.folder / "analysis"
        self.newest: Plain = nothing()
        self.events: list[Plain] = []
        self.view_points: dict[int, ViewTrack] = {}
        self.fed = 0
        """Frames that the analysis had been fed when the newest batch was recorded."""
        self.analysed = 0
        """Frames that have results."""
        self._closed_at = -1  # how many frames the last final batch had been fed
        self.ended = False
        self.missing: dict[int, str] = {}
        """Chunks that the results lack although they are stored, and why, as it was when the analysis ended."""
        self.made_unix_ms: float | None = None
        self._lock = threading.Lock()
        self._since_key = KEY_EACH
        self._stood: tuple[int, Plain] = (0, nothing())  # for readers, who mostly go on by one
        self._log = self._open_log()
        self.waterfalls = self._read_waterfalls()

    def _open_log(self) -> RecordLog:
        """The log, and what its records amount to: up to the checkpoint as noted there, the rest read."""
        noted = self._read("checkpoint")
        if noted and "view_tracks" not in noted:  # an earlier version's: the log has it all
            noted = None
        records = RecordLog(
            self.folder / "results.log", noted and noted["places"], self._archive.files.file_system
        )
        if noted and records.n_cached:
            facts = current_keys(noted["noted"])
            for name in NOTED:
                setattr(self, name, facts[name])
            self.missing = dict(facts["missing"])
            self.newest = current_keys(self.newest)
            self.view_points = {number: ViewTrack(raw) for number, raw in noted["view_tracks"]}
        for number in range(records.n_cached + 1, len(records) + 1):
            self._note(current_keys(records.read(number)))
        self._checked = (records.positions["end"], 0) if records.n_cached else (0, 0)
        return records

    @property
    def seq(self) -> int:
        """The number of the newest record, 0 before the first."""
        return len(self._log)

    # -- writing -----------------------------------------------------------------------------------------

    def write_columns(self, batch: Plain, only: frozenset[str] | None = None) -> None:
        """Put a batch's per-frame columns into the archive, those in ``only`` where given."""
        columns = {
            name: unpacked(name, raw)
            for name, raw in batch["columns"].items()
            if name != TIME and (only is None or name in only)
        }
        if columns:
            self._archive.results.write(batch["start"], columns, {name: unit_of(name) for name in columns})

    def replace_columns(self, batch: Plain, only: frozenset[str] | None = None) -> None:
        """Like :meth:`write_columns` over earlier results: what is undetermined now has no number any more.

        Without ``only`` that holds for all columns but traces of regions, which the user may have taken away.
        """
        gone = [
            name
            for name in self._archive.results.names()
            if name not in batch["columns"] and not name.startswith("region_") and name != TIME
        ]
        empty = np.full(batch["count"], np.nan, np.float32).tobytes()
        blank = {} if only is not None else dict.fromkeys(gone, empty)
        self.write_columns({**batch, "columns": {**blank, **batch["columns"]}}, only)

    def add_batch(self, batch: Plain, user_events: Iterable[Plain], **facts: Any) -> Plain | None:
        """Store a batch: its message for the feed, or None for one that was recorded before."""
        anew = batch["start"] < self.analysed  # after a crash the same numbers, of another version others
        (self.replace_columns if anew else self.write_columns)(batch)
        self.note_profiles(batch)
        if batch["fed"] <= (self._closed_at if facts.get("final") else self.fed) and not facts.get(
            "reanalysis"
        ):
            return None
        if facts.get("reanalysis"):
            batch = {**batch, "views": self._as_known(batch["views"])}
        record = {
            "type": "batch",
            **{name: batch[name] for name in ("start", "count", "fed", *KEPT)},
            "events": self._found_events(batch["events"], user_events),
            "made_unix_ms": 1000.0 * time.time(),
            **facts,
        }
        message = self.add(record)
        extra = {name: batch[name] for name in ("columns", "profile", "lines")}
        return {**message, **extra}

    def _as_known(self, views: list[Plain]) -> list[Plain]:
        # Numbers below were given before the sample stopped, and started somewhere else.
        since = min((view["view_id"] for view in self.newest["views"]), default=None)
        known = {
            number: points[-1]["angle_deg"]
            for number, points in self.view_points.items()
            if since is not None and number >= since
        }
        return renumbered(views, known, max(self.view_points, default=-1) + 1)

    def _found_events(self, events: Iterable[Plain], user_events: Iterable[Plain]) -> list[Plain]:
        """The analysis' own: the analyser tells those of the user back, which are recorded already."""
        said = {(event["kind"], event["label"]) for event in user_events}
        found = [event for event in events if (event["kind"], event["label"]) not in said]
        return [self._as_event(event) for event in found if event["kind"] != "rotation"]

    def _as_event(self, event: Plain) -> Plain:
        origin = self._archive.origin_unix_ms
        at = None if origin is None or event["time_s"] is None else origin + 1000.0 * event["time_s"]
        name = f"{event['kind']}-{event['time_s']:.4f}" if event["time_s"] is not None else event["kind"]
        return {"id": name, **event, "time_ms_utc": at, "by": "analysis"}

    def add(self, record: Plain) -> Plain:
        """Number and keep a record of any type; returns it as the feed tells it.

        Raises:
            OSError: the disk's; nothing was kept.
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
        known = [] if record.get("reanalysis") else self.events
        if record["events"] or record.get("reanalysis"):  # a new list: readers may be at the old one
            self.events = [*known, *record["events"]][-MAX_EVENTS:]
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
                track.add(view, **self._end_of(record), oscillation_period=period)

    def _end_of(self, record: Plain) -> Plain:
        frame = max(0, record["start"] + record["count"] - 1)
        time_s = float(self.times(frame, frame + 1)[0])
        return {"frame": frame, "time_s": time_s if np.isfinite(time_s) else frame / self.fps}

    def note_profiles(self, batch: Plain, waterfalls: dict[str, Waterfall] | None = None) -> None:
        """Add a batch's profiles to ``waterfalls``, by default the stream's own."""
        falls = self.waterfalls if waterfalls is None else waterfalls
        if not batch["count"]:
            return
        at = float(unpacked(TIME, batch["columns"][TIME])[-1])
        for name, raw in {STREAKS: batch["profile"], **batch["lines"]}.items():
            falls.setdefault(name, Waterfall()).add(at, np.frombuffer(raw, dtype="<f4"))

    # -- reading -----------------------------------------------------------------------------------------

    def message(self, seq: int, columns: Iterable[str] | None = None) -> Plain:
        """The record of that number as the feed tells it, with per-frame columns (None: all there are).

        Raises:
            IndexError: there is no such record.
        """
        record = {**self._record(seq), "seq": seq}
        if is_lost(record):  # damaged on the disk: as for a reader that was too slow
            return {"type": "lost", "count": 1, "first": seq, "last": seq, "seq": seq}
        if record["type"] != "batch":
            return record
        found = {**record, **self._standing(seq, record), "columns": self._columns(record, columns)}
        return {name: value for name, value in found.items() if name != "key"}

    def _record(self, number: int) -> Plain:
        return current_keys(self._log.read(number))

    def columns(self, start: int, stop: int) -> dict[str, F32]:
        """All per-frame columns of frames ``start`` .. ``stop``, NaN where undetermined."""
        results = self._archive.results
        return results.read(results.names(), start, stop)

    def times(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Capture times of frames in s from the stream's start, NaN where none is."""
        return self._archive.results.times(start, stop)

    @property
    def origin_unix_ms(self) -> float | None:
        """What the stream's seconds count from, in UTC milliseconds."""
        return self._archive.origin_unix_ms

    def _standing(self, seq: int, record: Plain) -> Plain:
        at, before = self._stood
        stood = applied(before, record) if at == seq - 1 else standing_at(self._record, seq)
        self._stood = (seq, stood)
        return stood

    def _columns(self, record: Plain, names: Iterable[str] | None) -> Plain:
        start, stop = record["start"], record["start"] + record["count"]
        results = self._archive.results
        wanted = results.names() if names is None else names
        read = results.read(wanted, start, stop)
        found = {name: packed(values, "<f4") for name, values in read.items() if np.isfinite(values).any()}
        return {TIME: packed(results.times(start, stop), "<f8"), **found}

    # -- the shortcut ------------------------------------------------------------------------------------

    def save(self, snapshot: Plain) -> None:
        """Make all so far last, then keep where the analyser stands."""
        self._archive.results.sync()
        self._log.sync()
        self._checkpoint(all_of_it=not snapshot)
        kept = {name: waterfall.plain() for name, waterfall in self.waterfalls.items()}
        self._write("profiles", kept)
        self._write("state", {**snapshot, "version": VERSION} if snapshot else {})

    def _checkpoint(self, all_of_it: bool) -> None:
        """Note what the records amount to: so seldom that in all it writes no more than the log itself."""
        with self._lock:
            places = self._log.positions
            end, nbytes = self._checked
            if not all_of_it and places["end"] - end < max(CHECKPOINT_BYTES, nbytes):
                return
            noted = {name: getattr(self, name) for name in NOTED}
            noted["missing"] = list(self.missing.items())
            views = [(number, track.raw()) for number, track in self.view_points.items()]
            body = msgspec.msgpack.encode({"places": places, "noted": noted, "view_tracks": views})
        self._write_body("checkpoint", body)
        self._checked = (places["end"], len(body))

    def load(self) -> Plain | None:
        """What :meth:`save` kept last; None where there is nothing whole that this version reads."""
        snapshot = self._read("state")
        if snapshot and snapshot.pop("version", None) != VERSION:
            log.warning(
                "stream %s: another version of atomstream was analysing it; it is analysed from its beginning",
                self._archive.folder.name,
            )
            return None
        return snapshot

    def _read_waterfalls(self) -> dict[str, Waterfall]:
        kept = self._read("profiles") or {}
        return {name: Waterfall.from_plain(plain) for name, plain in kept.items()}

    def _write(self, name: str, content: Plain) -> None:
        self._write_body(name, msgspec.msgpack.encode(content))

    def _write_body(self, name: str, body: bytes) -> None:
        checksum = google_crc32c.value(body).to_bytes(4, "little")
        self._archive.files.write_atomic(self.folder / name, body + checksum)

    def _read(self, name: str) -> Plain | None:
        with contextlib.suppress(FileNotFoundError):
            raw = (self.folder / name).read_bytes()
            if len(raw) > 4 and google_crc32c.value(raw[:-4]).to_bytes(4, "little") == raw[-4:]:
                content: Plain = msgspec.msgpack.decode(raw[:-4])
                return content
            log.warning("%s is damaged; what it held is made again", self.folder / name)
        return None

    def begin(self, what: str = LIVE) -> None:
        """Note what runs, the live analysis or another one (``REANALYSIS``), for the next start of the server."""
        (self.folder / RUNNING).write_text(what, encoding="ascii")

    def left_running(self) -> str | None:
        """What :meth:`begin` noted and nobody ended; None for nothing."""
        with contextlib.suppress(FileNotFoundError):
            noted = (self.folder / RUNNING).read_text(encoding="ascii") or LIVE
            return REANALYSIS if noted == "again" else noted  # "again": versions before 0.1.0
        return None

    def end(self) -> None:
        """Note that it has ended: all is on the disk, and nothing is left to be taken up."""
        self.save({})
        self._archive.finish()
        for name in (RUNNING, "state"):
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files."""
        self._log.close()
