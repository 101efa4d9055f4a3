"""Request bodies from our values, and values from reply bodies. No I/O.

Keys, their order and their types are those of the recorded protocol. Keys that only an atomstream server reads are
sent only to a server that announced itself as one. Parsers raise ``ValueError`` for an unexpected reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from atomstream.index_ranges import IndexSet
from atomstream.protocol import CHUNK_FILE, MAX_CHUNK_INDEX
from atomstream.records import Json, ShardInfo, StreamSpec

LAST_MS: Final = 253402300799999.0
"""The end of the year 9999 in Unix milliseconds."""

MAX_ID_CHARS: Final = 200

_ID: Final = re.compile(rf"[!-~]{{1,{MAX_ID_CHARS}}}")

MAX_URL_CHARS: Final = 16 << 10
"""Length of an upload URL; those of S3 with temporary credentials have about 2000 characters."""


@dataclass(frozen=True, slots=True)
class NamedItem:
    """A physical sample, tag or project in the server's catalogue."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ListedStream:
    """A stream in the server's list; ``length_s`` is the length of its frames in s, ``project`` its project's name."""

    data_id: str
    name: str
    status: str
    length_s: float
    project: str | None


@dataclass(frozen=True, slots=True)
class NewStreamBody:
    """The arguments of a new stream: ``fps`` in frames per second, ``rpm`` in rotations per minute."""

    name: str
    fps: float
    rpm: float
    project_id: str | None = None
    azimuth: str | None = None


@dataclass(frozen=True, slots=True)
class NewSignalsBody:
    """The arguments of a new stream of signals."""

    name: str
    points_per_chunk: int
    project_id: str | None = None
    synth_source_id: str | int | None = None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CreatedStream:
    """A stream that the server has created. ``announced`` is True if it is an atomstream server."""

    data_id: str
    announced: bool


def pack(body: dict[str, Json]) -> bytes:
    """``body`` as JSON without blanks, like that of the recorded client."""
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def new_stream_body(new: NewStreamBody) -> dict[str, Json]:
    """Body of ``POST /rheed/stream/``. Optional keys are omitted, never null."""
    body: dict[str, Json] = {
        "data_item_name": new.name,
        "rotational_period": new.fps * 60.0 / new.rpm if new.rpm else None,
        "rotations_per_min": float(new.rpm),
        "fps_capture_rate": float(new.fps),
    }
    optional = {"project_id": new.project_id, "azimuth_label": new.azimuth}
    return body | {key: value for key, value in optional.items() if value is not None}


def new_signals_body(new: NewSignalsBody) -> dict[str, Json]:
    """Body of ``POST /tool-state/stream/initialize``. Rules for marks are sent only if there are any."""
    body: dict[str, Json] = {
        "stream_name": new.name,
        "points_per_chunk": new.points_per_chunk,
        "project_id": new.project_id,
    }
    if new.synth_source_id is not None:
        body["synth_source_id"] = new.synth_source_id
    if new.marks:
        body["marks"] = list(new.marks)
    return body


def signals_id(data: Json) -> str:
    """The ``data_id`` in ``{"data_id", "processed_data_id"}``."""
    return stream_id(_object(data).get("data_id"))


def upload_query(index: int) -> str:
    """Query of the request for an upload URL: the file of the chunk in the archive."""
    return f"original_filename={CHUNK_FILE.format(index=index)}&num_parts=1&staging_type=stream"


def upload_body(spec: StreamSpec, info: ShardInfo) -> dict[str, Json]:
    """Body of the request for an upload URL. All values are strings.

    Raises:
        TypeError: uint16 frames for a server that is not an atomstream server: it would misread them.
    """
    body: dict[str, Json] = {
        "data_id": spec.data_id,
        "data_stream": "rheed",
        "is_stream": "1",
        "is_rotating": "1" if spec.is_rotating else "0",
        "raw_frame_rate": str(float(spec.fps)),
        "avg_frame_rate": str(float(spec.fps)),
        "chunk_size": str(spec.chunk_size),
        "dims": ",".join(map(str, info.dims)),
    }
    return body | _time_keys(spec, info) | _dtype_key(spec, info)


def _time_keys(spec: StreamSpec, info: ShardInfo) -> dict[str, Json]:
    timestamp = info.timestamp
    keys: dict[str, Json] = {
        "start_unix_ms_utc": str(round(timestamp.start_ms)),
        "end_unix_ms_utc": str(round(timestamp.start_ms + 1000.0 * info.dims[0] / spec.fps)),
    }
    if timestamp.clock_offset_ms is not None:
        keys["clock_offset_ms"] = str(round(timestamp.clock_offset_ms))
        keys["clock_uncertainty_ms"] = f"{timestamp.clock_uncertainty_ms or 0.0:.1f}"
    return keys


def _dtype_key(spec: StreamSpec, info: ShardInfo) -> dict[str, Json]:
    if info.dtype == "uint8":
        return {}
    if not spec.announced:
        raise TypeError("uint16 frames go to an atomstream server only; scale them with to_uint8 first.")
    return {"dtype": info.dtype}


PAGE: Final = 1000
"""Streams in one page of a list."""


def entries_query(keywords: Sequence[str], after: str) -> str:
    """Query of a page of ``GET /data_entries/``, from behind the stream ``after`` on."""
    words = "".join(f"&keywords={path_part(word)}" for word in keywords)
    return f"limit={PAGE}{words}" + (f"&after={path_part(after)}" if after else "")


def listed_streams(data: Json) -> list[ListedStream]:
    """``[{"data_id", "raw_name", "pipeline_status", "growth_length", "projects"}, ...]``."""
    if not isinstance(data, list):
        raise ValueError("expected a list")
    return [_listed_stream(item) for item in map(_object, data)]


def _listed_stream(item: dict[str, Any]) -> ListedStream:
    length, projects = item.get("growth_length"), item.get("projects")
    first = projects[0] if isinstance(projects, list) and projects else None
    return ListedStream(
        _id(item.get("data_id")),
        _text(item, "raw_name", empty=True),
        _text(item, "pipeline_status"),
        float(length) if isinstance(length, (int, float)) and not isinstance(length, bool) else 0.0,
        _name(_object(first)) if first is not None else None,
    )


def path_part(text: str) -> str:
    """``text`` percent-encoded as one segment of a URL path."""
    return quote(text, safe="")


def named_list(data: Json) -> list[NamedItem]:
    """``[{"id", "name", ...}]``. A null name becomes an empty one, which matches nothing."""
    if not isinstance(data, list):
        raise ValueError("expected a list")
    return [NamedItem(_id(item.get("id")), _name(item)) for item in map(_object, data)]


def changes_made(data: Json) -> tuple[str, ...]:
    """``{"changes": ["moved from 'A' to 'B'"]}``; a server before version 0.2.0 sends none."""
    changes = _object(data).get("changes", [])
    if not isinstance(changes, list) or not all(isinstance(one, str) for one in changes):
        raise ValueError("changes must be a list of strings")
    return tuple(changes)


def _name(item: dict[str, Any]) -> str:
    return "" if item.get("name") is None else _text(item, "name", empty=True)


def new_id(data: Json) -> str:
    """``{"id"}`` of the created item."""
    return _id(_object(data).get("id"))


def stream_id(data: Json) -> str:
    """The ``data_id`` of a new stream: a JSON string."""
    return _id(data)


def _id(value: Any) -> str:
    """An id, which becomes a part of paths, file names and log lines; both servers use UUIDs."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError(f"expected an id, which has 1 to {MAX_ID_CHARS} printable ASCII characters")
    return value


def stored_chunks(data: Json) -> IndexSet:
    """``{"stored": "0-5,9"}``; "" if nothing is stored."""
    text = _object(data).get("stored")
    if not isinstance(text, str):
        raise ValueError("expected the stored chunks as ranges of their indices")
    try:
        return IndexSet.parse(text, max_index=MAX_CHUNK_INDEX)
    except ValueError as error:
        raise ValueError(f"'stored' {error}") from None


def upload_url(data: Json) -> str:
    """``[{"upload_id", "url", "part": 0}]``, or the object without the list."""
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    url = _text(_object(data), "url")
    parts = urlsplit(url)
    # "parts.port" raises ValueError if the port is not a number.
    invalid = not url.isascii() or not url.isprintable() or " " in url or parts.port == 0
    invalid |= len(url) > MAX_URL_CHARS
    if invalid or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the upload URL is not an http(s) URL")
    return url


def gateway_times(data: Json) -> tuple[float, float]:
    """The times at which the server received the request and sent the reply, in Unix milliseconds."""
    fields = _object(data)
    return _time(fields, "receivedAtUnixMs"), _time(fields, "transmittedAtUnixMs")


def _time(fields: dict[str, Any], key: str) -> float:
    value = fields.get(key)
    # The bound also rejects NaN, infinity, and integers that are too large for a float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LAST_MS:
        raise ValueError(f"expected a time in milliseconds under {key!r}")
    return float(value)


def _object(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError("expected an object")
    return data


def _text(item: dict[str, Any], key: str, *, empty: bool = False) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not (value or empty):
        raise ValueError(f"expected a string under {key!r}")
    return value
