"""``stream.json``: which stream a spool folder holds, in words that a person can read too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import google_crc32c

from atomstream.errors import SpoolError
from atomstream.records import StreamSpec
from atomstream.spool.disk import READ_REFUSED, Disk, disk_errors, write_whole

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


def write_manifest(disk: Disk, path: Path, manifest: StreamManifest) -> None:
    """Put ``stream.json`` in place, whole, so that it survives a power cut.

    Raises:
        SpoolFullError, SpoolError: the disk refused.
    """
    fields = manifest.to_fields()
    text = json.dumps({**fields, "crc32c": _checksum(fields)}, indent=2)
    with disk_errors("write down the stream's description", path):
        write_whole(disk, path, [text.encode()])


def read_manifest(disk: Disk, path: Path) -> StreamManifest:
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
