"""The description of a stream in its folder (``stream.json``); the catalogue can be rebuilt from it."""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from atomstream.errors import StreamError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX, MAX_FPS, MAX_RPM, MAX_TIME_MS, MIN_FPS
from atomstream.server.archive.records import Geometry
from atomstream.system.own_files import DOCUMENT_BYTES, read_plain

ORIGIN: Final = "start_unix_ms"
"""The attribute of ``time`` with its zero, in UTC milliseconds; and the field of a description."""

Status: TypeAlias = Literal[
    "stream_active", "stream_interrupted", "stream_finalizing", "stream_error", "success", "error"
]

STATUSES: tuple[str, ...] = get_args(Status)
ENDED_STATUSES: Final[tuple[Status, ...]] = ("success", "stream_error")
"""Statuses of streams that have ended: no more chunks are expected."""


class NamedId(msgspec.Struct, frozen=True):
    """Id and name of a sample, tag or project. The name is for people who read the file without the catalogue."""

    id: str
    name: str


class Thinning(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a thinning in a stream's description.

    One frame in ``every`` was kept, and those within ``around_s`` seconds of an event; with 0 none at all. ``since`` is
    the UTC time of the last thinning (ISO 8601). Until ``complete``, frames that are to be removed may still be there.
    """

    every: int
    around_s: float
    since: str
    frames_left: int = 0
    bytes_freed: int = 0
    complete: bool = False
    planned: bool = False
    """True once ``frame_kept`` has all values of this thinning: an interrupted one is continued from it."""
    chunks: str = ""
    """The chunks that are thinned, such as ``0-99``: one that is uploaded later stays whole. Empty: all."""


class StreamMetadata(msgspec.Struct, frozen=True):
    """Metadata of one stream; ``fps`` is in frames per second, times are ISO 8601 UTC."""

    data_id: str
    name: str
    fps: float
    rotations_per_min: float
    made: str
    last_updated: str
    rotational_period: float | None = None
    azimuth_label: str | None = None
    status: Status = "stream_active"
    project: NamedId | None = None
    sample: NamedId | None = None
    tags: tuple[NamedId, ...] = ()
    geometry: Geometry | None = None
    """Set by the first stored chunk; None before that."""
    thinning: Thinning | None = None
    """What was removed from it; None if nothing was."""
    attributes: dict[str, Any] = {}
    """What the client noted about the recording, such as camera and crop; checked by ``check_attributes``."""


def read_about(about: dict[str, Any]) -> StreamMetadata:
    """The :class:`StreamMetadata` in an archive's ``about``; raises msgspec.ValidationError for other content."""
    return msgspec.convert(about, StreamMetadata)


def checked_about(about: dict[str, Any], data_id: str) -> StreamMetadata:
    """The :class:`StreamMetadata` in the description of the stream ``data_id``, with all values checked.

    Raises:
        StreamError: a value is missing, of another type or out of range; the message names it.
    """
    try:
        found = read_about(about)
        json.dumps(about, allow_nan=False, ensure_ascii=False).encode()  # neither NaN nor half characters
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise StreamError(f"{ABOUT} is damaged: {error}.", data_id=data_id) from None
    if found.data_id != data_id:
        raise StreamError(f"{ABOUT} describes another stream: {found.data_id[:64]!r}.", data_id=data_id)
    ranges = (
        ("fps", found.fps, MIN_FPS, MAX_FPS),
        ("rotations_per_min", found.rotations_per_min, 0.0, MAX_RPM),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:
            raise StreamError(
                f"{ABOUT} is damaged: {name} is {value:g}; allowed is {low:g} to {high:g}.", data_id=data_id
            )
    return found


def geometry_in(about: Mapping[str, Any]) -> Geometry | None:
    """The geometry in a description; None if there is none, or an impossible one."""
    try:
        found = msgspec.convert(about.get("geometry"), Geometry)
    except msgspec.ValidationError:
        return None
    return found if found.is_possible else None


def origin_in(about: Mapping[str, Any]) -> float | None:
    """The zero of ``time`` in a description, UTC ms: servers that share a stream agree on it there; None for none."""
    found = about.get(ORIGIN)
    return float(found) if isinstance(found, (int, float)) and abs(found) <= MAX_TIME_MS else None


def merged_in(about: Mapping[str, Any]) -> int:
    """How many chunks of the stream are merged into one object of the store; 1: none are."""
    found = about.get(MERGED)
    return found if type(found) is int and found > 1 else 1


def write_about(about: StreamMetadata) -> dict[str, Any]:
    """``about`` as plain JSON values."""
    plain: dict[str, Any] = msgspec.to_builtins(about)
    return plain


ABOUT: Final = "stream.json"
MERGED: Final = "merged_chunks"
"""Number of chunks in an object of the store, in the description of a stream whose short chunks are merged there."""
RUNNING: Final = "analysis/running"
"""A file in a stream's folder that exists while an analysis runs."""


def is_stream_id(name: str) -> bool:
    """Whether ``name`` is a UUID in canonical form: so it can't be a path to another folder."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def read_about_file(folder: Path) -> dict[str, Any]:
    """Read ``stream.json`` in ``folder``.

    Raises:
        StreamError: it is missing or damaged. OSError: from the disk.
    """
    try:
        about = json.loads(read_plain(folder / ABOUT, DOCUMENT_BYTES))
    except FileNotFoundError:
        raise StreamError(f"{folder} holds no stream: it has no {ABOUT}.", data_id=folder.name) from None
    except (ValueError, RecursionError) as error:
        raise StreamError(f"{folder / ABOUT} is damaged: {error}.", data_id=folder.name) from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise StreamError(f"{folder / ABOUT} is not a file.", data_id=folder.name) from None
    if not isinstance(about, dict):
        raise StreamError(f"{folder / ABOUT} does not describe a stream.", data_id=folder.name)
    return about


def plain(value: Any) -> Any:
    """The value as a Zarr attribute: named things by their name, because netCDF allows no nested attributes."""
    if isinstance(value, dict):
        return value.get("name")
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def lost_in(about: Mapping[str, Any]) -> IndexSet:
    """The lost indices that a description lists. Invalid text, for example after an edit by hand, is ignored."""
    return IndexSet.parse_lenient(str(about.get("lost") or ""), max_index=MAX_CHUNK_INDEX)


def named_attributes(attributes: Any) -> dict[str, Any]:
    """A stream's attributes with names that are not the archive's own: ``crop`` becomes ``recording_crop``."""
    found = attributes if isinstance(attributes, dict) else {}
    return {f"recording_{name}": value for name, value in found.items()}
