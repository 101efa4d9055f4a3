"""What a stream's own folder says of it (``stream.json``): enough to rebuild its line in the catalogue."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import msgspec

from atomstream.server.archive_records import Geometry

Status: TypeAlias = Literal[
    "stream_active", "stream_interrupted", "stream_finalizing", "stream_error", "success", "error"
]
STATUSES: tuple[str, ...] = get_args(Status)


class NamedId(msgspec.Struct, frozen=True):
    """A sample, tag or project by id; its name too, for whoever reads the file without the catalogue."""

    id: str
    name: str


class StreamAbout(msgspec.Struct, frozen=True):
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


def read_about(about: dict[str, Any]) -> StreamAbout:
    """The :class:`StreamAbout` in an archive's ``about``; raises msgspec.ValidationError where it is none."""
    return msgspec.convert(about, StreamAbout)


def write_about(about: StreamAbout) -> dict[str, Any]:
    """``about`` as plain JSON values."""
    plain: dict[str, Any] = msgspec.to_builtins(about)
    return plain
