"""What a stream's own folder says of it (``stream.json``): enough to rebuild its line in the catalogue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from atomstream.config import MAX_CHUNK_INDEX
from atomstream.errors import StreamError
from atomstream.index_ranges import IndexSet
from atomstream.server.archive.records import Geometry

Status: TypeAlias = Literal[
    "stream_active", "stream_interrupted", "stream_finalizing", "stream_error", "success", "error"
]

STATUSES: tuple[str, ...] = get_args(Status)


class NamedId(msgspec.Struct, frozen=True):
    """A sample, tag or project by id; its name too, for whoever reads the file without the catalogue."""

    id: str
    name: str


class StreamMetadata(msgspec.Struct, frozen=True):
    """One stream: ``fps`` in frames a second, rotations a minute, moments in ISO 8601 UTC."""

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
    """Set with the first stored chunk; until then nothing about the frames' shape is fixed."""


def read_about(about: dict[str, Any]) -> StreamMetadata:
    """The :class:`StreamMetadata` in an archive's ``about``; raises msgspec.ValidationError where it is none."""
    return msgspec.convert(about, StreamMetadata)


def write_about(about: StreamMetadata) -> dict[str, Any]:
    """``about`` as plain JSON values."""
    plain: dict[str, Any] = msgspec.to_builtins(about)
    return plain


# A stream's ``stream.json``: read with a clear error, and shown as attributes of the Zarr group.

ABOUT: Final = "stream.json"


def read_about_file(folder: Path) -> dict[str, Any]:
    """The description in ``folder``.

    Raises:
        StreamError: it is missing or damaged. OSError: the disk's.
    """
    try:
        about = json.loads((folder / ABOUT).read_bytes())
    except FileNotFoundError:
        raise StreamError(f"{folder} holds no stream: it has no {ABOUT}.", data_id=folder.name) from None
    except ValueError as error:
        raise StreamError(f"{folder / ABOUT} is damaged: {error}.", data_id=folder.name) from None
    if not isinstance(about, dict):
        raise StreamError(f"{folder / ABOUT} does not describe a stream.", data_id=folder.name)
    return about


def plain(value: Any) -> Any:
    """A thing with a name by its name: attributes are for people, and netCDF takes no nested ones."""
    if isinstance(value, dict):
        return value.get("name")
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def lost_in(about: Mapping[str, Any]) -> IndexSet:
    """The lost indices that a description lists; what somebody's editor made invalid is ignored."""
    return IndexSet.parse_lenient(str(about.get("lost") or ""), max_index=MAX_CHUNK_INDEX)
