"""``stream.json``: which stream a spool folder holds, in words that a person can read too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard, get_args

import google_crc32c

from atomstream.errors import SpoolError
from atomstream.records import ChunkState, StreamSpec
from atomstream.spool.disk_errors import READ_REFUSED, disk_errors
from atomstream.spool.journal import JournalEntry
from atomstream.system.files import FileSystem, write_whole

FORMAT: Final = "atomstream spool 1"


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a stream's first chunk fixes: height and width in pixels, and the dtype."""

    height: int
    width: int
    dtype: Literal["uint8", "uint16"]


@dataclass(frozen=True, slots=True)
class StreamManifest:
    """All that is needed to go on with a stream; ``geometry`` is None before its first chunk."""

    endpoint: str
    spec: StreamSpec
    geometry: Geometry | None = None

    def to_fields(self) -> dict[str, Any]:
        """The manifest as plain values, for ``stream.json`` and the journal."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> StreamManifest:
        """The manifest of such values.

        Raises:
            SpoolError: they are not one, or of another format.
        """
        if fields.get("format") != FORMAT:
            raise SpoolError(f"its format is {fields.get('format')!r}, and this atomstream reads {FORMAT!r}")
        try:
            geometry = fields["geometry"]
            return cls(
                endpoint=str(fields["endpoint"]),
                spec=StreamSpec(**fields["spec"]),
                geometry=Geometry(**geometry) if geometry else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpoolError(f"it lacks what a stream's description has ({error!r})") from None


def write_manifest(disk: FileSystem, path: Path, manifest: StreamManifest) -> None:
    """Put ``stream.json`` in place, whole, so that it survives a power cut.

    Raises:
        SpoolFullError, SpoolError: the disk refused.
    """
    fields = manifest.to_fields()
    text = json.dumps({**fields, "crc32c": _checksum(fields)}, indent=2)
    with disk_errors("write down the stream's description", path):
        write_whole(disk, path, [text.encode()])


def read_manifest(disk: FileSystem, path: Path) -> StreamManifest:
    """Read ``stream.json`` and check it.

    Raises:
        SpoolError: it is not there, damaged, or was edited.
    """
    with disk_errors("read the stream's description", path, READ_REFUSED), disk.open_read(path) as file:
        raw = file.readall() or b""
    try:
        fields = json.loads(raw)
        stated = fields.pop("crc32c")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise SpoolError(f"The stream's description {path} is damaged.") from None
    if stated != _checksum(fields):
        raise SpoolError(f"The stream's description {path} was damaged or edited.")
    return StreamManifest.from_fields(fields)


def _checksum(fields: Mapping[str, Any]) -> int:
    crc: int = google_crc32c.value(json.dumps(fields, sort_keys=True).encode())
    return crc


# What a journal's entries add up to: each chunk in exactly one state (promise P9).

_STATES: Final[tuple[str, ...]] = get_args(ChunkState)


@dataclass(slots=True)
class JournalState:
    """The sum of a stream's journal.

    ``states`` has every accepted chunk's index; ``digests`` and ``reasons`` where one was given; ``wishes`` is
    the detail of ``finalizing``; ``manifest`` that of ``claimed``.
    """

    states: dict[int, ChunkState] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    finalizing: bool = False
    ended: bool = False
    wishes: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[JournalEntry]) -> JournalState:
        """The history that ``entries`` tell, in their order."""
        history = cls()
        for entry in entries:
            history.add(entry)
        return history

    def add(self, entry: JournalEntry) -> None:
        """Let one more entry count."""
        if entry.kind == "claimed":
            self.manifest = entry.detail
        elif entry.kind in {"finalizing", "ended", "reopened"}:
            self._add_stream_event(entry)
        else:
            self._add_chunk_event(entry)

    def pending(self) -> list[int]:
        """Indices of accepted chunks that are not settled, in order."""
        return sorted(index for index, state in self.states.items() if state == "pending")

    def next_index(self) -> int:
        """The index after the highest one ever accepted; 0 at first."""
        return max(self.states, default=-1) + 1

    def counts(self) -> dict[ChunkState, int]:
        """How many chunks are in each state."""
        found = Counter(self.states.values())
        return {state: found[state] for state in get_args(ChunkState)}

    def _add_stream_event(self, entry: JournalEntry) -> None:
        self.finalizing = entry.kind != "reopened"
        self.ended = entry.kind == "ended"
        if entry.kind != "ended":
            self.wishes = entry.detail

    def _add_chunk_event(self, entry: JournalEntry) -> None:
        if entry.digest:
            self.digests[entry.index] = entry.digest
        if entry.kind == "accepted":
            self.states.setdefault(entry.index, "pending")
            return
        self.states[entry.index] = entry.kind if _is_state(entry.kind) else "pending"
        self.reasons.pop(entry.index, None)
        if entry.reason:
            self.reasons[entry.index] = entry.reason


def _is_state(kind: str) -> TypeGuard[ChunkState]:
    return kind in _STATES
