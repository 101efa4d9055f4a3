"""The state of a stream in the spool: its manifest (``stream.json``) and the result of its journal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard, get_args

import google_crc32c

from atomstream.config import normalise_endpoint
from atomstream.errors import ConfigError, SpoolError
from atomstream.protocol import MAX_CHUNK_SIZE, MAX_FPS, MAX_RPM, MIN_FPS
from atomstream.records import ChunkState, StreamSpec
from atomstream.spool.disk_errors import READ_REFUSED, disk_errors
from atomstream.spool.journal import JournalEntry
from atomstream.spool.stored_values import (
    stored_dims,
    stored_dtype,
    stored_flag,
    stored_integer,
    stored_number,
    stored_text,
)
from atomstream.system.files import FileSystem

FORMAT: Final = "atomstream spool 1"

_CHUNK_STATES: Final[tuple[str, ...]] = get_args(ChunkState)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Height and width of the frames in pixels, and their dtype. The first chunk of a stream defines them."""

    height: int
    width: int
    dtype: Literal["uint8", "uint16"]


@dataclass(frozen=True, slots=True)
class StreamManifest:
    """The data needed to continue a stream in another process; ``geometry`` is None before the first chunk."""

    endpoint: str
    spec: StreamSpec
    geometry: Geometry | None = None

    def to_fields(self) -> dict[str, Any]:
        """The manifest as plain values, for ``stream.json`` and the journal."""
        return {"format": FORMAT, **asdict(self)}

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
            )
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise SpoolError(f"a field of the stream's description is missing or wrong ({error!r})") from None


def _spec(
    data_id: Any, fps: Any, rpm: Any, chunk_size: Any, name: Any = "", announced: Any = False
) -> StreamSpec:
    return StreamSpec(
        data_id=stored_text(data_id),
        fps=stored_number(fps, MIN_FPS, MAX_FPS),
        rpm=stored_number(rpm, 0.0, MAX_RPM),
        chunk_size=stored_integer(chunk_size, 1, MAX_CHUNK_SIZE),
        name=stored_text(name),
        announced=stored_flag(announced),
    )


def _geometry(height: Any, width: Any, dtype: Any) -> Geometry:
    _, height, width = stored_dims((1, height, width))
    return Geometry(height, width, stored_dtype(dtype))


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
        raw = file.readall() or b""
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
