"""The description of a stream in its folder (``stream.json``); the catalogue can be rebuilt from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from atomstream.errors import StreamError
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.server.archive.records import Geometry
from atomstream.system.own_files import read_plain

Status: TypeAlias = Literal[
    "stream_active", "stream_interrupted", "stream_finalizing", "stream_error", "success", "error"
]

STATUSES: tuple[str, ...] = get_args(Status)


class NamedId(msgspec.Struct, frozen=True):
    """Id and name of a sample, tag or project. The name is for people who read the file without the catalogue."""

    id: str
    name: str


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


def read_about(about: dict[str, Any]) -> StreamMetadata:
    """The :class:`StreamMetadata` in an archive's ``about``; raises msgspec.ValidationError for other content."""
    return msgspec.convert(about, StreamMetadata)


def write_about(about: StreamMetadata) -> dict[str, Any]:
    """``about`` as plain JSON values."""
    plain: dict[str, Any] = msgspec.to_builtins(about)
    return plain


ABOUT: Final = "stream.json"


def read_about_file(folder: Path) -> dict[str, Any]:
    """Read ``stream.json`` in ``folder``.

    Raises:
        StreamError: it is missing or damaged. OSError: from the disk.
    """
    try:
        about = json.loads(read_plain(folder / ABOUT))
    except FileNotFoundError:
        raise StreamError(f"{folder} holds no stream: it has no {ABOUT}.", data_id=folder.name) from None
    except ValueError as error:
        raise StreamError(f"{folder / ABOUT} is damaged: {error}.", data_id=folder.name) from None
    if not isinstance(about, dict):
        raise StreamError(f"{folder / ABOUT} does not describe a stream.", data_id=folder.name)
    return about


def plain(value: Any) -> Any:
    """The value as a Zarr attribute: named things by their name, because netCDF allows no nested attributes."""
    if isinstance(value, dict):
        return value.get("name")
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def lost_in(about: Mapping[str, Any]) -> IndexSet:
    """The lost indices that a description lists; what somebody's editor made invalid is ignored."""
    return IndexSet.parse_lenient(str(about.get("lost") or ""), max_index=MAX_CHUNK_INDEX)
