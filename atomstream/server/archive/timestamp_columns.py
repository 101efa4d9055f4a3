"""The timestamp columns of a stream: when each frame was captured, and which chunks are stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX, MAX_CHUNK_SIZE, MAX_TIME_MS
from atomstream.server.archive.column import Values
from atomstream.server.archive.metadata import ORIGIN
from atomstream.server.archive.records import ChunkTimes
from atomstream.server.archive.zarr_group import ZarrGroup

COUNTS: Final = "chunk_frames"
SYNCED: Final = "synced_chunks"
"""The attribute of ``chunk_frames`` with the chunks whose timestamps are durable, as ``"0-5,9"``."""


@dataclass(frozen=True, slots=True)
class _Spec:
    name: str
    dimension: str
    dtype: str
    fill: float
    about: dict[str, str]
    values: Callable[[ChunkTimes, float], Sequence[Any] | Values | None]


def _one(value: float | None) -> list[float] | None:
    return None if value is None else [value]


_SPECS: Final = (
    _Spec("time", "time", "float64", math.nan, {"units": "s", "long_name": "capture time since the start"},
          lambda stamps, origin: (stamps.times_unix_ms() - origin) / 1000.0),
    _Spec("frame_id", "time", "int64", -1, {"long_name": "the camera's frame counter; -1: not known"},
          lambda stamps, _: stamps.meta.ids),
    _Spec("angle_deg", "time", "float64", math.nan, {"units": "degree", "long_name": "manipulator angle"},
          lambda stamps, _: stamps.meta.angles_deg),
    _Spec("chunk_start_unix_ms", "chunk", "float64", math.nan, {"units": "ms", "long_name": "UTC of first frame"},
          lambda stamps, _: _one(stamps.start_unix_ms)),
    _Spec("chunk_clock_offset_ms", "chunk", "float64", math.nan,
          {"units": "ms", "long_name": "offset of the host's clock; the timestamps include it"},
          lambda stamps, _: _one(stamps.clock_offset_ms)),
    _Spec("chunk_clock_uncertainty_ms", "chunk", "float64", math.nan,
          {"units": "ms", "long_name": "uncertainty of that offset"},
          lambda stamps, _: _one(stamps.clock_uncertainty_ms)),
    _Spec("chunk_frames", "chunk", "int32", 0, {"long_name": "frames stored of each chunk; 0: missing"},
          lambda stamps, _: [stamps.dims[0]]),
)  # fmt: skip
NAMES: Final = frozenset(spec.name for spec in _SPECS)
_ALWAYS: Final = ("time", "chunk_start_unix_ms", COUNTS)


def write_stamps(
    group: ZarrGroup, chunk_size: int, origin_ms: float, chunks: Mapping[int, ChunkTimes | None]
) -> dict[str, list[Path]]:
    """Write the timestamps of ``chunks`` into the columns; None clears those of a chunk that has disappeared.

    Readers see them at once. Returns the changed files of each column, to be passed to :func:`sync_stamps`.
    Optional columns (ids, angles, clock) are created with the first chunk that has them.

    Raises:
        OSError: from the disk; writing again is harmless.
    """
    touched: dict[str, list[Path]] = {}
    for spec in _SPECS:
        given = {
            index: None if stamps is None else spec.values(stamps, origin_ms)
            for index, stamps in chunks.items()
        }
        wanted = spec.name in _ALWAYS or any(values is not None for values in given.values())
        if not (wanted or group.has(spec.name)):
            continue
        width = chunk_size if spec.dimension == "time" else 1
        column = group.column(spec.name, spec.dimension, spec.dtype, spec.fill, spec.about)
        pieces = ((index * width, _padded(values, width, spec)) for index, values in given.items())
        touched[spec.name] = column.put(pieces)
    group.documents["time"]["attributes"][ORIGIN] = origin_ms
    group.documents[COUNTS]["attributes"].setdefault(SYNCED, "")
    return touched


def sync_stamps(group: ZarrGroup, touched: Mapping[str, Iterable[Path]], stored: str) -> None:
    """Make the files ``touched`` by :func:`write_stamps` durable, and note that they hold the chunks ``stored``.

    Raises:
        OSError: from the disk; calling it again is harmless.
    """
    for name, paths in touched.items():
        group.sync_files(name, paths)
    group.documents[COUNTS]["attributes"][SYNCED] = stored
    for name in filter(group.has, NAMES):
        group.write_document(name)


def _padded(values: Sequence[Any] | Values | None, width: int, spec: _Spec) -> Values:
    # To the chunk's full width, so that a chunk that is stored again leaves no value of the previous one.
    full: Values = np.full(width, spec.fill, dtype=spec.dtype)
    if values is not None:
        full[: len(values)] = values
    return full


def recorded_origin(group: ZarrGroup) -> float | None:
    """The zero of ``time`` in UTC ms; None if it, or a required column, is missing."""
    if not all(group.has(name) for name in _ALWAYS):
        return None
    origin = group.documents["time"].get("attributes", {}).get(ORIGIN)
    if not isinstance(origin, (int, float)) or not abs(origin) <= MAX_TIME_MS:
        return None
    return float(origin)


def drop_invalid(group: ZarrGroup) -> list[str]:
    """Drop the documents that do not describe these columns; returns the columns' names."""
    wrong = [
        spec.name
        for spec in _SPECS
        if spec.name in group.documents and group.shape_of(spec.name) != (spec.dimension, spec.dtype)
    ]
    for name in wrong:
        group.drop(name)
    return wrong


def recorded_chunks(group: ZarrGroup, chunk_size: int = MAX_CHUNK_SIZE) -> tuple[dict[int, int], set[int]]:
    """Number of frames by chunk index, from the column ``chunk_frames``; and the indices whose columns are durable.

    Numbers that no chunk can have are damage; those chunks do not count as durable. For the other chunks a power cut
    may have kept one column and lost the next.
    """
    found: dict[int, int] = {}
    for start, values in group.stored(COUNTS):
        (places,) = np.nonzero(values)
        found.update(zip((places + start).tolist(), values[places].tolist(), strict=True))
    synced = group.documents[COUNTS].get("attributes", {}).get(SYNCED)
    possible = {index for index, count in found.items() if 1 <= count <= chunk_size}
    if synced is None:
        return found, possible
    covered = IndexSet.parse_lenient(str(synced), max_index=MAX_CHUNK_INDEX)
    return found, {index for index in possible if index in covered}
