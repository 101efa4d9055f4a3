"""Records of live results, on disk and on the wire: batches, messages of the feed, and bodies of replies.

docs/live_api.md describes them for other programs; the records on disk have the same fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from atomstream.analysis import Box, Line
from atomstream.results import TIME, Batch, Event, Measurement, Segment, View, column_name, finite, packed
from atomstream.server.archive.metadata import Thinning
from atomstream.server.live.annotation_records import CalibrationRecord, RegionRecord, from_region

# -- results of the analysis -------------------------------------------------------------------------------


class MeasurementRecord(msgspec.Struct, frozen=True, gc=False):
    """A :class:`~atomstream.results.Measurement` on disk and on the wire: None in place of NaN.

    A struct and not the dataclass: msgspec encodes it several times as fast, and a batch has dozens.
    """

    value: float | None
    sigma: float | None = None
    unit: str = ""
    why: str = ""
    note: str = ""


class SegmentRecord(msgspec.Struct, frozen=True):
    """A :class:`~atomstream.results.Segment` on disk and on the wire: None in place of NaN."""

    number: int
    start_s: float | None
    end_s: float | None
    label: str
    rate: MeasurementRecord
    cycles: float | None
    counted: MeasurementRecord
    recovery: MeasurementRecord


class ViewRecord(msgspec.Struct, frozen=True):
    """A :class:`~atomstream.results.View` on disk and on the wire: None in place of NaN."""

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
    detected_regions: list[RegionRecord] = []


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
    detected_regions: list[RegionRecord] = []


# -- numbered records, which are also messages of the feed -------------------------------------------------
# UNSET fields are absent. ``seq`` is the number of the record; it is absent on disk, where the position gives it.


class BatchFields(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Fields that a batch has in every form. ``reanalysis`` is True after the whole stream was analysed again.

    ``newest_s`` is the capture time of the batch's last frame in s from the stream's start; absent without frames.
    """

    start: int
    count: int
    frames_received: int
    events: list[Event]
    made_unix_ms: float
    final: bool
    chunk: int | None = None
    stored_unix_ms: float | None = None
    newest_s: float | UnsetType = UNSET
    reanalysis: bool | UnsetType = UNSET


class StoredBatch(BatchFields, frozen=True, kw_only=True, tag="batch"):
    """A batch on disk: results that are equal to those before are absent, unless ``key`` is True."""

    values: dict[str, MeasurementRecord] | UnsetType = UNSET
    segments: list[SegmentRecord] | UnsetType = UNSET
    views: list[ViewRecord] | UnsetType = UNSET
    detected_regions: list[RegionRecord] | UnsetType = UNSET
    key: bool | UnsetType = UNSET


class BatchMessage(BatchFields, frozen=True, kw_only=True, tag="batch"):
    """A complete batch. ``profile`` and ``lines`` are in live messages only."""

    values: dict[str, MeasurementRecord]
    segments: list[SegmentRecord]
    views: list[ViewRecord]
    detected_regions: list[RegionRecord]
    seq: int | UnsetType = UNSET
    columns: dict[str, bytes] | UnsetType = UNSET
    profile: bytes | UnsetType = UNSET
    lines: dict[str, bytes] | UnsetType = UNSET


class EventMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="event"):
    """An event of the user was set or corrected. ``deleted``: it was deleted; ``event`` is its last content."""

    event: Event
    deleted: bool | UnsetType = UNSET
    seq: int | UnsetType = UNSET


class RegionsMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="regions"):
    """The regions were changed. ``complete``: their traces reach back to the first frame."""

    regions: list[RegionRecord]
    detected_regions: list[RegionRecord]
    complete: bool = False
    seq: int | UnsetType = UNSET


class MissingChunks(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` stored chunks that are not in the results for the same reason; ``chunks`` is a text like "3-4,7"."""

    why: str
    chunks: str
    count: int


class EndMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="end"):
    """The analysis has ended. ``missing`` is on disk only: stored chunks without results, with the reason."""

    missing: list[MissingChunks] | UnsetType = UNSET
    seq: int | UnsetType = UNSET


class LostMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="lost"):
    """``count`` records were skipped for a slow subscriber, or one is damaged on disk (then with ``seq``)."""

    count: int
    first: int
    last: int
    seq: int | UnsetType = UNSET


StoredRecord: TypeAlias = StoredBatch | EventMessage | RegionsMessage | EndMessage | LostMessage
NumberedMessage: TypeAlias = BatchMessage | EventMessage | RegionsMessage | EndMessage | LostMessage


# -- messages of the feed without a number ---------------------------------------------------------------


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


class MissingMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="missing"):
    """Which stored chunks are not in the results. ``reanalysis``: a re-analysis runs or is scheduled."""

    reanalysis: bool
    missing: list[MissingChunks]


class HeartbeatMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="heartbeat"):
    """Sent where there is nothing else to send. ``seq`` is the number of the newest record."""

    seq: int
    unix_ms: float


FeedMessage: TypeAlias = NumberedMessage | HelloMessage | ProgressMessage | MissingMessage | HeartbeatMessage


# -- bodies of replies -----------------------------------------------------------------------------------


class AnalysisProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the analysis of a stream is: frames that are stored and, of these, those with results.

    ``newest_s`` and ``newest_stored_s`` are the capture times of the newest of them in s from the stream's start,
    ``newest_unix_ms`` is when the newest results were made. ``reanalysis``: the whole stream is analysed again;
    the numbers are those of the earlier results.
    """

    status: str
    reanalysis: bool
    frames_stored: int
    frames_analysed: int
    newest_s: float | None
    newest_stored_s: float | None
    newest_unix_ms: float | None


class AnalysisStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``GET /rheed/stream/{data_id}/analysis``."""

    data_id: str
    status: str
    why: str
    seq: int
    origin_unix_ms: float | None
    fps: float
    rpm: float
    chunk_size: int | None
    height: int | None
    width: int | None
    dtype: str | None
    n_frames: int
    frames_stored: int
    frames_analysed: int
    backlog_chunks: int
    progress: float | None
    reanalysis: bool
    missing: list[MissingChunks]
    newest_unix_ms: float | None
    newest_s: float | None
    values: dict[str, MeasurementRecord]
    segments: list[SegmentRecord]
    views: list[ViewRecord]
    detected_regions: list[RegionRecord]
    views_why: str
    events: list[Event]
    columns: dict[str, str]
    regions: list[RegionRecord]
    calibration: CalibrationRecord
    thinning: Thinning | None = None
    """What was removed of the frames; None if nothing was."""


class RegionsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``GET /rheed/stream/{data_id}/regions``; ``columns`` maps a box's name to the column of its trace."""

    regions: list[RegionRecord]
    detected_regions: list[RegionRecord]
    columns: dict[str, str]
    progress: float | None


SeriesPoint: TypeAlias = dict[str, float | int | dict[str, float | int | None] | None]
"""A point of a time series in the hosted service's protocol: its position, and the properties that were asked for."""


class AngleSeries(msgspec.Struct, frozen=True, kw_only=True):
    """The time series of one azimuth, as the hosted service has it."""

    angle: float | None
    view_id: str
    interval_id: str = "0"
    azimuth_label: str | None
    series: list[SeriesPoint]


class ViewAnnotation(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the time series contain a view, and its angle in degrees."""

    enabled: bool
    angle_deg: float | None


class AzimuthView(msgspec.Struct, frozen=True, kw_only=True):
    """A view of an azimuth, as the hosted service lists it."""

    data_id: str
    view_id: str
    interval_id: str = "0"
    processed_data_id: str
    seed_frame: int
    start_frame: int
    end_frame: int
    start_unix_ms: float | None
    end_unix_ms: float | None
    rpm: float
    azimuth_source: str
    azimuth_label: str | None
    confidence: float | None
    annotation: ViewAnnotation
