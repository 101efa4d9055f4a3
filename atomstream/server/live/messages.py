"""Messages between server and worker, numbered records of results, messages of the feed, and regions as maps.

Every map that live results have on the pipe, on disk and on the wire is described here. docs/live_api.md describes
the messages of the feed for other programs; the records on disk have the same fields.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import BinaryIO, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from atomstream.analysis import Box, Line
from atomstream.errors import ConfigError
from atomstream.results import (
    REGION,
    TIME,
    Batch,
    Event,
    Measurement,
    Plain,
    Segment,
    View,
    column_name,
    finite,
    packed,
)

RegionMap: TypeAlias = Plain
"""A region as the API has it: a box or a line, by its key ``type``."""
CalibrationMap: TypeAlias = Plain
"""Fields of a calibration by name; fields that are not known are absent."""
AnnotationEntry: TypeAlias = Plain
"""An annotation of the user as it is stored; the key ``what`` is its kind."""
Snapshot: TypeAlias = Plain
"""State of an analyzer, to continue from."""
AzimuthChanges: TypeAlias = Plain
"""``label`` and ``enabled`` of an azimuth's view, as far as the user has changed them."""
Report: TypeAlias = Plain
"""Body of a reply (or a part of it), as docs/live_api.md or the hosted service's protocol describes it."""


def from_region(region: Box | Line) -> RegionMap:
    """Map of a region, as the API has it."""
    if isinstance(region, Box):
        names = ("name", "x", "y", "width", "height", "tracked")
        return {"type": "box", **{name: getattr(region, name) for name in names}}
    names = ("name", "x0", "y0", "x1", "y1", "width")
    return {"type": "line", **{name: getattr(region, name) for name in names}}


def to_region(plain: RegionMap) -> Box | Line:
    """Region of a map. Raises ConfigError if the map is invalid."""
    fields = {name: value for name, value in plain.items() if name != "type"}
    try:
        return Box(**fields) if plain.get("type") == "box" else Line(**fields)
    except TypeError as error:
        raise ConfigError(f"region {plain.get('name')!r}: {error}") from None


def check_regions(regions: Iterable[RegionMap]) -> list[RegionMap]:
    """Fill in defaults. Raises ConfigError for invalid regions and for two with the same name or column."""
    made = [to_region(plain) for plain in regions]
    columns = [column_name(f"{REGION}{region.name}") for region in made]
    if len(set(columns)) != len(columns):
        raise ConfigError(
            "regions: each needs a name of its own (upper and lower case, blanks and signs do not count)"
        )
    if any(not region.name.strip() or len(region.name) > 50 for region in made):
        raise ConfigError("regions: a name has 1 to 50 characters")
    return [from_region(region) for region in made]


# -- results of the analysis -------------------------------------------------------------------------------


class MeasurementRecord(msgspec.Struct, frozen=True, gc=False):
    """A :class:`~atomstream.results.Measurement` as it is stored and sent: None in place of NaN.

    A struct and not the dataclass: msgspec encodes it several times as fast, and a batch has dozens.
    """

    value: float | None
    sigma: float | None = None
    unit: str = ""
    why: str = ""
    note: str = ""


class SegmentRecord(msgspec.Struct, frozen=True):
    """A :class:`~atomstream.results.Segment` as it is stored and sent: None in place of NaN."""

    number: int
    start_s: float | None
    end_s: float | None
    label: str
    rate: MeasurementRecord
    cycles: float | None
    counted: MeasurementRecord
    recovery: MeasurementRecord


class ViewRecord(msgspec.Struct, frozen=True):
    """A :class:`~atomstream.results.View` as it is stored and sent: None in place of NaN."""

    view_id: int
    angle_deg: float | None
    confidence: float | None
    spacing_px: MeasurementRecord
    specular_intensity: float | None
    turns: int


class AnalyzerBatch(msgspec.Struct, frozen=True):
    """A :class:`~atomstream.results.Batch` of a worker. Of late chunks only ``start``, ``count``, ``columns`` are set.

    ``columns`` are little-endian float32 bytes (times: float64); columns of NaN only are absent.
    ``frames_received`` is the number of frames that the analyzer had received before it made the batch: more than
    ``start + count`` while it needs later frames for the values of a frame. ``profile`` and ``lines`` are
    float32 bytes.
    """

    start: int
    count: int
    columns: dict[str, bytes]
    values: dict[str, MeasurementRecord] = {}
    events: list[Event] = []
    segments: list[SegmentRecord] = []
    views: list[ViewRecord] = []
    profile: bytes = b""
    lines: dict[str, bytes] = {}
    frames_received: int = 0
    detected_regions: list[RegionMap] = []


def analyzer_batch(
    batch: Batch, frames_received: int = 0, detected_regions: Iterable[Box | Line] = ()
) -> AnalyzerBatch:
    """Convert a batch of the analysis."""
    columns = {column_name(name): values for name, values in batch.frames.items()}
    return AnalyzerBatch(
        start=batch.start,
        count=batch.count,
        columns={
            name: packed(values, "<f8" if name == TIME else "<f4")
            for name, values in columns.items()
            if name == TIME or np.isfinite(values).any()
        },
        values={name: _measurement(value) for name, value in batch.values.items()},
        events=[Event(finite(one.time_s), one.kind, one.label, finite(one.value)) for one in batch.events],
        segments=[_segment(segment) for segment in batch.segments],
        views=[_view(view) for view in batch.views],
        profile=packed(batch.profile, "<f4"),
        lines={name: packed(values, "<f4") for name, values in batch.lines.items()},
        frames_received=frames_received,
        detected_regions=[from_region(region) for region in detected_regions],
    )


def _measurement(value: Measurement) -> MeasurementRecord:
    return MeasurementRecord(finite(value.value), finite(value.sigma), value.unit, value.why, value.note)


def _segment(segment: Segment) -> SegmentRecord:
    return SegmentRecord(
        number=segment.number,
        start_s=finite(segment.start_s),
        end_s=finite(segment.end_s),
        label=segment.label,
        rate=_measurement(segment.rate),
        cycles=finite(segment.cycles),
        counted=_measurement(segment.counted),
        recovery=_measurement(segment.recovery),
    )


def _view(view: View) -> ViewRecord:
    return ViewRecord(
        view_id=view.view_id,
        angle_deg=finite(view.angle_deg),
        confidence=finite(view.confidence),
        spacing_px=_measurement(view.spacing_px),
        specular_intensity=finite(view.specular_intensity),
        turns=view.turns,
    )


class CurrentResults(msgspec.Struct, frozen=True):
    """Results after a batch, without the values per frame."""

    values: dict[str, MeasurementRecord] = {}
    segments: list[SegmentRecord] = []
    views: list[ViewRecord] = []
    detected_regions: list[RegionMap] = []


# -- numbered records, which are also messages of the feed -------------------------------------------------
# UNSET fields are absent. ``seq`` is the number of the record; it is absent on disk, where the position gives it.


class BatchFields(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Fields that a batch has in every form. ``reanalysis`` is True after the whole stream was analysed again."""

    start: int
    count: int
    frames_received: int
    events: list[Event]
    made_unix_ms: float
    final: bool
    chunk: int | None = None
    stored_unix_ms: float | None = None
    reanalysis: bool | UnsetType = UNSET


class StoredBatch(BatchFields, frozen=True, kw_only=True, tag="batch"):
    """A batch on disk: results that are equal to those before are absent, unless ``key`` is True."""

    values: dict[str, MeasurementRecord] | UnsetType = UNSET
    segments: list[SegmentRecord] | UnsetType = UNSET
    views: list[ViewRecord] | UnsetType = UNSET
    detected_regions: list[RegionMap] | UnsetType = UNSET
    key: bool | UnsetType = UNSET


class BatchMessage(BatchFields, frozen=True, kw_only=True, tag="batch"):
    """A complete batch. ``profile`` and ``lines`` are in live messages only."""

    values: dict[str, MeasurementRecord]
    segments: list[SegmentRecord]
    views: list[ViewRecord]
    detected_regions: list[RegionMap]
    seq: int | UnsetType = UNSET
    columns: dict[str, bytes] | UnsetType = UNSET
    profile: bytes | UnsetType = UNSET
    lines: dict[str, bytes] | UnsetType = UNSET


class EventMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="event"):
    """An event of the user."""

    event: Event
    seq: int | UnsetType = UNSET


class RegionsMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="regions"):
    """The regions were changed. ``complete``: their traces reach back to the first frame."""

    regions: list[RegionMap]
    detected_regions: list[RegionMap]
    complete: bool = False
    seq: int | UnsetType = UNSET


class EndMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="end"):
    """The analysis has ended. ``missing`` is on disk only: stored chunks without results, with the reason."""

    missing: list[tuple[int, str]] | UnsetType = UNSET
    seq: int | UnsetType = UNSET


class LostMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="lost"):
    """``count`` records were skipped for a slow subscriber, or one is damaged on disk (then with ``seq``)."""

    count: int
    first: int
    last: int
    seq: int | UnsetType = UNSET


StoredRecord: TypeAlias = StoredBatch | EventMessage | RegionsMessage | EndMessage | LostMessage
NumberedMessage: TypeAlias = BatchMessage | EventMessage | RegionsMessage | EndMessage | LostMessage


# -- messages of the feed that have no number of their own -------------------------------------------------


class HelloMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="hello"):
    """The first message. ``seq`` is the number of the newest record."""

    data_id: str
    seq: int
    status: str
    origin_unix_ms: float | None
    fps: float
    rpm: float
    chunk_size: int | None


class ProgressMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """Progress of a re-analysis, 0 to 1; None if none runs."""

    fraction: float | None


class MissingChunks(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` stored chunks that are not in the results for the same reason; ``chunks`` is a text like "3-4,7"."""

    why: str
    chunks: str
    count: int


class MissingMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="missing"):
    """Which stored chunks are not in the results. ``reanalysis``: a re-analysis runs or is scheduled."""

    reanalysis: bool
    missing: list[MissingChunks]


class HeartbeatMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="heartbeat"):
    """Sent where there is nothing else to send. ``seq`` is the number of the newest record."""

    seq: int
    unix_ms: float


FeedMessage: TypeAlias = NumberedMessage | HelloMessage | ProgressMessage | MissingMessage | HeartbeatMessage


# -- jobs for a worker, and its replies --------------------------------------------------------------------


class StreamSettings(msgspec.Struct):
    """Settings of an analyzer. ``state`` is what to continue from, None for a new analyzer."""

    fps: float
    rpm: float
    chunk_size: int
    calibration: CalibrationMap
    state: bytes | None = None


class ChunkFrames(msgspec.Struct, frozen=True):
    """Where the frames of a chunk are: in the shared memory ``map`` if there is one, else in the shard ``path``.

    ``start`` is the index of the first frame, ``times`` are float64 bytes in s, ``slots`` is the chunk size.
    """

    start: int
    times: bytes
    dims: tuple[int, int, int]
    dtype: Literal["uint8", "uint16"]
    slots: int
    path: str
    map: str | None = None


class Job(msgspec.Struct, frozen=True, tag_field="job"):
    """A job for the analyzer that the worker knows by ``key``."""

    key: str


class OpenJob(Job, frozen=True, tag="open"):
    """Start an analyzer."""

    settings: StreamSettings


class AnnotateJob(Job, frozen=True, tag="annotate"):
    """Apply entries of the user."""

    entries: list[AnnotationEntry]


class ChunkJob(Job, frozen=True, tag="chunk"):
    """Analyse a chunk; with ``state`` the last reply has a snapshot."""

    frames: ChunkFrames
    state: bool = False


class LateJob(Job, frozen=True, tag="late"):
    """Measure a late chunk."""

    frames: ChunkFrames


class GapJob(Job, frozen=True, tag="gap"):
    """Skip frames up to index ``until``."""

    until: int


class FinishJob(Job, frozen=True, tag="finish"):
    """End the analysis."""


class CloseJob(Job, frozen=True, tag="close"):
    """Forget the analyzer."""


class BatchReply(msgspec.Struct, frozen=True, tag_field="reply", tag="batch"):
    """Results of the job so far; others may follow."""

    batch: AnalyzerBatch


class DoneReply(msgspec.Struct, frozen=True, tag_field="reply", tag="done"):
    """The job is done."""

    snapshot: Snapshot | None = None


class ErrorReply(msgspec.Struct, frozen=True, tag_field="reply", tag="error"):
    """The job failed: ``shard`` (the chunk can't be read) or ``analysis`` (an error of the program)."""

    kind: Literal["shard", "analysis"]
    text: str
    trace: str = ""


AnyJob: TypeAlias = OpenJob | AnnotateJob | ChunkJob | LateJob | GapJob | FinishJob | CloseJob
Reply: TypeAlias = BatchReply | DoneReply | ErrorReply
_JOBS: Final = msgspec.msgpack.Decoder(AnyJob)
_REPLIES: Final = msgspec.msgpack.Decoder(Reply)

# -- framing on the pipe: the length of a message (uint32, little-endian), then msgpack --------------------

_LENGTH: Final = struct.Struct("<I")


def pack(message: AnyJob | Reply) -> bytes:
    """Encode a message with its length."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def read(pipe: BinaryIO) -> AnyJob | None:
    """Read the next job; None at the end of the pipe. Blocks."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    return _JOBS.decode(pipe.read(_LENGTH.unpack(head)[0]))


async def receive(pipe: asyncio.StreamReader) -> Reply:
    """Read the next reply. Raises asyncio.IncompleteReadError at the end of the pipe."""
    head = await pipe.readexactly(_LENGTH.size)
    return _REPLIES.decode(await pipe.readexactly(_LENGTH.unpack(head)[0]))
