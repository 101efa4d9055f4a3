"""Copies marks, segments, regions and calibration into the stream's Zarr group, so that the archive is self-contained.

The copy is written at most twice a second, by a thread, after a change; not by the commits of chunks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from atomstream.errors import StreamError
from atomstream.results import Event
from atomstream.server.archive.small_arrays import SmallArray
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.disk_errors import log_failure
from atomstream.server.live.annotation_records import BoxRecord, CalibrationRecord, LineRecord, RegionRecord
from atomstream.server.live.annotations import InThread
from atomstream.server.live.messages import SegmentRecord
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
PERIOD_S: Final = 0.5
"""Least time between two writes."""

CALIBRATION: Final = {
    "beam_energy": ("keV", "energy of the electron beam"),
    "screen_sample_distance": ("mm", "distance from the sample to the screen"),
    "px_per_mm": ("px/mm", "pixels of the camera per mm of the screen"),
    "incidence_deg": ("degree", "angle of incidence of the beam"),
    "layer_thickness_nm": ("nm", "thickness of one layer"),
    "miller_n": ("1", "order of the streaks whose spacing is measured"),
    "reference_spacing_px": ("px", "streak spacing of the reference"),
}
"""Units and meanings of the numbers of a calibration."""


class Annotated(NamedTuple):
    """What is known of a stream beside its frames and the results of the single frames."""

    events: Sequence[Event]
    segments: Sequence[SegmentRecord]
    regions: Sequence[RegionRecord]
    detected: Sequence[RegionRecord]
    calibration: CalibrationRecord


def small_arrays(known: Annotated) -> Iterator[SmallArray]:
    """The arrays of the group: ``mark_...``, ``segment_...``, ``box_...``, ``line_...`` and ``calibration_...``."""
    yield from _marks(known.events)
    yield from _segments(known.segments)
    regions = [("user", one) for one in known.regions] + [("analysis", one) for one in known.detected]
    yield from _boxes([(by, one) for by, one in regions if isinstance(one, BoxRecord)])
    yield from _lines([(by, one) for by, one in regions if isinstance(one, LineRecord)])
    yield from _calibration(known.calibration)


def _marks(events: Sequence[Event]) -> Iterator[SmallArray]:
    def numbers(name: str, values: list[float | None], long_name: str, unit: str) -> SmallArray:
        return SmallArray(f"mark_{name}", "mark", values, long_name, unit)

    def texts(name: str, values: list[str], long_name: str) -> SmallArray:
        return SmallArray(f"mark_{name}", "mark", values, long_name)

    yield numbers("time", [one.time_s for one in events], "time of the mark since the stream's start", "s")
    yield numbers("unix_ms", [one.time_ms_utc for one in events], "time of the mark, UTC since 1970", "ms")
    yield numbers(
        "value", [one.value for one in events], "value of the mark; its meaning depends on the kind", "1"
    )
    yield texts("unit", [one.unit for one in events], "unit of mark_value; empty if it follows from the kind")
    yield texts("kind", [one.kind for one in events], "kind of the mark")
    yield texts("label", [one.label for one in events], "text of the mark")
    yield texts("by", [one.by for one in events], "who set the mark: user or analysis")


def _segments(segments: Sequence[SegmentRecord]) -> Iterator[SmallArray]:
    def numbers(name: str, values: list[float | None], long_name: str, unit: str) -> SmallArray:
        return SmallArray(f"segment_{name}", "segment", values, long_name, unit)

    yield numbers(
        "start", [one.start_s for one in segments], "start of the segment since the stream's start", "s"
    )
    yield numbers("end", [one.end_s for one in segments], "end of the segment since the stream's start", "s")
    yield SmallArray("segment_label", "segment", [one.label for one in segments], "what began the segment")
    yield numbers(
        "rate", [one.rate.value for one in segments], "oscillations per second in the segment", "1/s"
    )
    yield numbers(
        "rate_sigma", [one.rate.sigma for one in segments], "standard uncertainty of segment_rate", "1/s"
    )
    yield SmallArray(
        "segment_rate_why",
        "segment",
        [one.rate.why for one in segments],
        "reason where segment_rate is undetermined",
    )
    counted = [one.counted for one in segments]
    yield numbers("oscillations", [one.value for one in counted], "oscillations counted in the segment", "1")
    yield numbers(
        "oscillations_sigma", [one.sigma for one in counted], "uncertainty of segment_oscillations", "1"
    )
    recovery = [one.recovery.value for one in segments]
    yield numbers("recovery", recovery, "time constant of the intensity's recovery without growth", "s")


def _boxes(boxes: Sequence[tuple[str, BoxRecord]]) -> Iterator[SmallArray]:
    yield SmallArray("box_name", "box", [one.name for _, one in boxes], "name of the region")
    yield SmallArray("box_by", "box", [by for by, _ in boxes], "who set the region: user or analysis")
    for name, long_name in (
        ("x", "centre of the region, columns from the left"),
        ("y", "centre of the region, rows from the top"),
        ("width", "width of the region"),
        ("height", "height of the region"),
    ):
        yield SmallArray(f"box_{name}", "box", [getattr(one, name) for _, one in boxes], long_name, "px")


def _lines(lines: Sequence[tuple[str, LineRecord]]) -> Iterator[SmallArray]:
    yield SmallArray("line_name", "line", [one.name for _, one in lines], "name of the line")
    for name, long_name in (
        ("x0", "column of the line's start"),
        ("y0", "row of the line's start"),
        ("x1", "column of the line's end"),
        ("y1", "row of the line's end"),
        ("width", "width over which the line is averaged"),
    ):
        yield SmallArray(f"line_{name}", "line", [getattr(one, name) for _, one in lines], long_name, "px")


def _calibration(calibration: CalibrationRecord) -> Iterator[SmallArray]:
    given = calibration != CalibrationRecord()
    for name, (unit, long_name) in CALIBRATION.items():
        value = getattr(calibration, name) if given else None
        yield SmallArray(f"calibration_{name}", "calibration", [value], long_name, unit)
    unit_of_layers = calibration.layer_unit if given else ""
    yield SmallArray("calibration_layer_unit", "calibration", [unit_of_layers], "what one layer is")


class ArchiveAnnotations:
    """Keeps the copy in the archive up to date. Used in the server's loop.

    ``read`` returns what is known now; it is called in a thread.
    """

    def __init__(self, archive: StreamArchive, read: Callable[[], Annotated], in_thread: InThread) -> None:
        self._archive = archive
        self._read = read
        self._in_thread = in_thread
        self._task: asyncio.Task[None] | None = None
        self._changed = False
        self._written_at = -PERIOD_S

    def note(self) -> None:
        """Something changed: write it soon."""
        self._changed = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_soon(), name="annotations of an archive")

    async def _write_soon(self) -> None:
        while self._changed:
            await asyncio.sleep(max(0.0, self._written_at + PERIOD_S - time.monotonic()))
            await self.flush()

    async def flush(self) -> None:
        """Write now. An error is logged: the records of the server are complete without the copy."""
        self._changed = False
        self._written_at = time.monotonic()
        try:
            await self._in_thread(lambda: self._archive.write_small(small_arrays(self._read())))
        except StreamError:
            return  # the stream was deleted
        except OSError as error:
            log_failure(
                log, error, "stream %s: marks could not be copied to its archive", self._archive.folder.name
            )

    async def close(self) -> None:
        """Write what is not written yet, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._changed:
            await self.flush()
