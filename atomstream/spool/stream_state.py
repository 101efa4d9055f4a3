"""The state of a stream in the spool: its manifest (``stream.json``) and the result of its journal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard, get_args

import google_crc32c

from atomstream.arguments import check_attributes
from atomstream.config import normalise_endpoint
from atomstream.errors import ConfigError, SpoolError
from atomstream.protocol import MAX_CHUNK_POINTS, MAX_CHUNK_SIZE, MAX_FPS, MAX_RPM, MIN_FPS
from atomstream.records import ChunkState, Json, StreamSpec
from atomstream.spool.disk_errors import READ_REFUSED, disk_errors
from atomstream.spool.journal import JournalEntry
from atomstream.spool.stored_values import (
    stored_body,
    stored_dims,
    stored_dtype,
    stored_flag,
    stored_integer,
    stored_number,
    stored_text,
)
from atomstream.system.files import FileSystem
from atomstream.system.own_files import DOCUMENT_BYTES, read_bounded

FORMAT: Final = "atomstream spool 1"

_CHUNK_STATES: Final[tuple[str, ...]] = get_args(ChunkState)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Height and width of the frames in pixels, and their dtype. The first chunk of a stream defines them."""

    height: int
    width: int
    dtype: Literal["uint8", "uint16"]


@dataclass(frozen=True, slots=True)
class LateSignals:
    """Additional arguments of ``initialize`` for the registration of a stream of signals."""

    points_per_chunk: int
    synth_source_id: str | int | None = None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LateRegistration:
    """What is left to be done on the server for a stream that began while the server was unreachable.

    ``sample``, ``tags``, ``project_id`` and ``azimuth`` are the arguments of ``initialize``. ``server_id`` is the
    stream's id on the server; empty until the stream is created there. ``events``, ``calibration`` and
    ``attributes`` are the bodies of requests that are to be sent then. ``complete`` is True when nothing is left to do.
    ``signals`` is None for a stream of frames.
    """

    sample: str | None = None
    project_id: str | None = None
    tags: tuple[str, ...] = ()
    azimuth: str | None = None
    server_id: str = ""
    events: tuple[dict[str, Json], ...] = ()
    calibration: dict[str, Json] | None = None
    attributes: dict[str, Json] | None = None
    complete: bool = False
    signals: LateSignals | None = None


@dataclass(frozen=True, slots=True)
class StreamManifest:
    """The data needed to continue a stream in another process.

    ``geometry`` is None before the first chunk. ``late`` is None if the stream was created on the server at once.
    """

    endpoint: str
    spec: StreamSpec
    geometry: Geometry | None = None
    late: LateRegistration | None = None

    def to_fields(self) -> dict[str, Any]:
        """The manifest as plain values, for ``stream.json`` and the journal."""
        fields = {"format": FORMAT, **asdict(self)}
        if self.late is None:
            del fields["late"]
        elif self.late.signals is None:
            del fields["late"]["signals"]
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> StreamManifest:
        """The manifest from the values of :meth:`to_fields`.

        Raises:
            SpoolError: a value is missing, or the format is another one.
        """
        if fields.get("format") != FORMAT:
            raise SpoolError(f"its format is {fields.get('format')!r}, and this atomstream reads {FORMAT!r}")
        try:
            geometry = fields["geometry"]
            return cls(
                endpoint=normalise_endpoint(stored_text(fields["endpoint"])),
                spec=_spec(**fields["spec"]),
                geometry=_geometry(**geometry) if geometry else None,
                late=_late(**fields["late"]) if fields.get("late") else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise SpoolError(f"a field of the stream's description is missing or wrong ({error!r})") from None


def _spec(
    data_id: Any,
    fps: Any,
    rpm: Any,
    chunk_size: Any,
    name: Any = "",
    announced: Any = False,
    kind: Any = "frames",
) -> StreamSpec:
    if kind not in ("frames", "signals"):
        raise ValueError("expected frames or signals")
    return StreamSpec(
        data_id=stored_text(data_id),
        fps=stored_number(fps, MIN_FPS, MAX_FPS),
        rpm=stored_number(rpm, 0.0, MAX_RPM),
        chunk_size=stored_integer(chunk_size, 1, MAX_CHUNK_SIZE),
        name=stored_text(name),
        announced=stored_flag(announced),
        kind=kind,
    )


def _geometry(height: Any, width: Any, dtype: Any) -> Geometry:
    _, height, width = stored_dims((1, height, width))
    return Geometry(height, width, stored_dtype(dtype))


def _late(
    sample: Any,
    project_id: Any,
    tags: Any,
    azimuth: Any,
    server_id: Any,
    events: Any,
    calibration: Any,
    attributes: Any,
    complete: Any,
    signals: Any = None,
) -> LateRegistration:
    if not isinstance(tags, (list, tuple)) or not isinstance(events, (list, tuple)):
        raise TypeError("tags and events are lists")
    return LateRegistration(
        sample=None if sample is None else stored_text(sample),
        project_id=None if project_id is None else stored_text(project_id),
        tags=tuple(stored_text(tag) for tag in tags),
        azimuth=None if azimuth is None else stored_text(azimuth),
        server_id=stored_text(server_id),
        events=tuple(stored_body(event) for event in events),
        calibration=None if calibration is None else stored_body(calibration),
        attributes=None if attributes is None else check_attributes(attributes),
        complete=stored_flag(complete),
        signals=None if signals is None else _late_signals(**signals),
    )


def _late_signals(points_per_chunk: Any, synth_source_id: Any, marks: Any) -> LateSignals:
    if not isinstance(marks, (list, tuple)):
        raise TypeError("marks are a list")
    if isinstance(synth_source_id, int):
        source: str | int | None = stored_integer(synth_source_id, -(1 << 63), (1 << 63) - 1)
    else:
        source = None if synth_source_id is None else stored_text(synth_source_id)
    return LateSignals(
        stored_integer(points_per_chunk, 1, MAX_CHUNK_POINTS),
        source,
        tuple(stored_text(mark) for mark in marks),
    )


def write_manifest(disk: FileSystem, path: Path, manifest: StreamManifest) -> None:
    """Write ``stream.json`` atomically and durably.

    Raises:
        SpoolFullError, SpoolError: the write failed.
    """
    fields = manifest.to_fields()
    text = json.dumps({**fields, "crc32c": _checksum(fields)}, indent=2)
    with disk_errors("write the stream's description", path):
        disk.write_atomic(path, [text.encode()])


def read_manifest(disk: FileSystem, path: Path) -> StreamManifest:
    """Read ``stream.json`` and compare its checksum.

    Raises:
        SpoolError: the file is missing, damaged, or was edited.
    """
    with disk_errors("read the stream's description", path, READ_REFUSED), disk.open_read(path) as file:
        raw = read_bounded(file, path, DOCUMENT_BYTES)
    try:
        fields = json.loads(raw)
        stated = fields.pop("crc32c")
        damaged = not isinstance(fields, dict)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        damaged = True
    if damaged:
        raise SpoolError(f"The stream's description {path} is damaged.")
    if stated != _checksum(fields):
        raise SpoolError(f"The stream's description {path} was damaged or edited.")
    return StreamManifest.from_fields(fields)


def _checksum(fields: Mapping[str, Any]) -> int:
    crc: int = google_crc32c.value(json.dumps(fields, sort_keys=True).encode())
    return crc


@dataclass(slots=True)
class JournalState:
    """The state of a stream after all entries of its journal are applied; each chunk is in exactly one state."""

    states: dict[int, ChunkState] = field(default_factory=dict)
    """State of every accepted chunk, by index."""
    digests: dict[int, bytes] = field(default_factory=dict)
    """Digest of each chunk's frames, where the journal has one."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why a chunk was dropped, quarantined or purged."""
    finalizing: bool = False
    ended: bool = False
    finalize_options: Mapping[str, Any] = field(default_factory=dict)
    """Detail of the ``finalizing`` entry."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """Detail of the ``manifest`` entry."""

    @classmethod
    def from_entries(cls, entries: Iterable[JournalEntry]) -> JournalState:
        """The state after ``entries``, applied in their order."""
        state = cls()
        for entry in entries:
            state.apply(entry)
        return state

    def apply(self, entry: JournalEntry) -> None:
        """Apply one more entry."""
        if entry.kind == "manifest":
            self.manifest = entry.detail
        elif entry.kind in {"finalizing", "ended", "reopened"}:
            self._apply_to_stream(entry)
        else:
            self._apply_to_chunk(entry)

    def pending(self) -> list[int]:
        """Indices of the chunks in the state "pending", in increasing order."""
        return sorted(index for index, state in self.states.items() if state == "pending")

    def next_index(self) -> int:
        """One more than the highest accepted index; 0 if there is none."""
        return max(self.states, default=-1) + 1

    def counts(self) -> dict[ChunkState, int]:
        """Number of chunks in each state."""
        counter = Counter(self.states.values())
        return {state: counter[state] for state in get_args(ChunkState)}

    def _apply_to_stream(self, entry: JournalEntry) -> None:
        self.finalizing = entry.kind != "reopened"
        self.ended = entry.kind == "ended"
        if entry.kind != "ended":
            self.finalize_options = entry.detail

    def _apply_to_chunk(self, entry: JournalEntry) -> None:
        if entry.digest:
            self.digests[entry.index] = entry.digest
        if entry.kind == "accepted":
            self.states.setdefault(entry.index, "pending")
            return
        self.states[entry.index] = entry.kind if _is_chunk_state(entry.kind) else "pending"
        self.reasons.pop(entry.index, None)
        if entry.reason:
            self.reasons[entry.index] = entry.reason


def _is_chunk_state(kind: str) -> TypeGuard[ChunkState]:
    return kind in _CHUNK_STATES
