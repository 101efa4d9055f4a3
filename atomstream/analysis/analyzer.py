"""Online analysis: :class:`Analyzer` takes frames as they arrive and returns batches of results.

Its state can be stored and restored, so that the analysis continues after a crash of its process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from atomstream.analysis import commands, corrections, marks, online
from atomstream.analysis.batch_builder import BatchBuilder
from atomstream.analysis.calibration import Calibration
from atomstream.analysis.serialization import VERSION, pack, unpack
from atomstream.analysis.shapes import Region
from atomstream.analysis.stream_state import STATE_CLASSES, AnalysisState
from atomstream.errors import ConfigError
from atomstream.frame_counter import LAST_COUNTER
from atomstream.frame_shape import is_one_picture
from atomstream.records import Frames
from atomstream.results import F64, Batch, Bool, Event, Int


class Analyzer:
    """Analyses the frames of one stream in order.

    ``fps`` (nominal frames per second, > 0) and ``rpm`` (nominal rotations per minute, 0: at rest) describe the
    stream. Frame times and a refined rotation speed are used instead where they are known. ``chunk_size`` is the
    usual number of frames per call. Without ``growth_is_continuous`` the oscillation period is not a growth rate.
    Results do not depend on how the frames are cut into calls of :meth:`feed`. Not thread-safe. Raises ConfigError
    for an invalid ``fps`` or ``rpm``.
    """

    def __init__(
        self,
        fps: float,
        rpm: float = 0.0,
        chunk_size: int = 0,
        calibration: Calibration | None = None,
        *,
        layer_unit: str | None = None,
        growth_is_continuous: bool = True,
    ) -> None:
        if not (math.isfinite(fps) and fps > 0):
            raise ConfigError(f"fps must be a positive number of frames per second, not {fps!r}")
        if not math.isfinite(rpm):
            raise ConfigError(f"rpm must be a finite number of rotations per minute, not {rpm!r}")
        self._state = AnalysisState(
            fps=float(fps), rpm=abs(float(rpm)), calibration=calibration or Calibration()
        )
        self._state.growth_is_continuous = growth_is_continuous
        if layer_unit:
            self._state.layer_unit = layer_unit
        self.chunk_size = chunk_size

    @property
    def frames_fed(self) -> int:
        """Index of the next expected frame; skipped frames are counted."""
        return self._state.next_index

    def feed(
        self,
        index_start: int,
        frames: Frames,
        times_s: npt.ArrayLike | None = None,
        frame_ids: npt.ArrayLike | None = None,
    ) -> Batch:
        """Analyse frames (N, H, W) or (H, W), uint8 or uint16; the first one has index ``index_start``.

        ``times_s`` (N,) are seconds from the start of the stream. Where they are missing or NaN, index / fps is used.
        ``frame_ids`` (N,) are the camera's frame counters (-1: not known); their gaps are events of kind ``gap``.
        Frames that were fed before are skipped; if ``index_start`` is beyond the next expected frame, the frames
        between are a gap. The returned batch may hold fewer or more frames than were given. Raises ConfigError for
        another dtype, a changed frame size, or a wrong number of times or counters.
        """
        block = self._validated_frames(frames)
        ids = None if frame_ids is None else _validated_ids(frame_ids, len(block))
        times = self._frame_times(index_start, len(block), times_s)
        state = self._state
        if index_start > state.next_index:
            self.gap(index_start - state.next_index)
        skip = min(len(block), state.next_index - index_start)
        if skip < len(block):
            commands.end_skip(state, float(times[skip]), -1 if ids is None else int(ids[skip]))
        if ids is not None:
            state.new_events += state.missing.add(times[skip:], ids[skip:], state.fps)
        if ids is None or (ids[skip:] < 0).all():
            state.new_events += state.time_gaps.add(times[skip:], state.fps)
        out = BatchBuilder(self._state)
        online.feed_frames(self._state, block[skip:], times[skip:], out)
        return out.build()

    def gap(self, n_frames: int) -> None:
        """Skip the next ``n_frames`` frame indices, for which there are no frames.

        The next frame decides how many frames are missing, by its counter or its time; then an event of kind ``gap``
        is added. None is missing after a chunk that is shorter than the others.
        """
        if n_frames > 0:
            commands.skip_indices(self._state, n_frames)

    def mark(self, label: str, kind: str = "note", time_s: float | None = None) -> Event:
        """Add a mark of the user at ``time_s`` (s, default: the last frame's time) and return its event.

        Marks of the kinds shutter, laser, growth, pause and rotation begin a new segment. Marks may come in any order
        of their times: oscillations are counted since the latest one.
        """
        event = Event(self._state.now_s if time_s is None else float(time_s), kind, label, by="user")
        marks.apply_mark(self._state, event)
        return event

    def unmark(self, label: str, kind: str, time_s: float, rpm: float = 0.0) -> bool:
        """Remove a mark of the user that was set at ``time_s`` (s); False if there is none with this label and kind.

        Segments are joined and counts continued from what is known without the frames: the uncertainties say how well.
        ``rpm`` is the rotation that was stated for the stream, which holds again if no change of it is left.
        """
        return corrections.remove_mark(self._state, Event(float(time_s), kind, label, by="user"), rpm)

    def set_rotation(self, rpm: float, time_s: float | None = None) -> None:
        """Change the rotation speed (1/min, 0: at rest) from the next frame on.

        A new segment begins at ``time_s`` (s, default: the last frame's time). A change that comes after one of a
        later time begins a segment, but does not change the speed.
        """
        commands.apply_rotation(self._state, abs(float(rpm)), None if time_s is None else float(time_s))

    def set_regions(self, regions: Iterable[Region]) -> None:
        """Set the user's boxes and lines from the next frame on.

        A tracked box named ``specular`` replaces the specular box that was found. Raises ConfigError for
        names that are not unique.
        """
        commands.apply_regions(self._state, list(regions))

    def set_calibration(self, calibration: Calibration) -> None:
        """Set the calibration from the next frame on; relative results are not changed."""
        self._state.calibration = calibration

    @property
    def regions(self) -> tuple[Region, ...]:
        """Boxes and lines at their present positions: specular box, streak band, then the user's."""
        return commands.current_regions(self._state)

    def finish(self) -> Batch:
        """End the analysis: analyse the frames still held back, repeat the fits and return the last batch."""
        commands.end_skip(self._state)
        out = BatchBuilder(self._state)
        online.finish(self._state, out)
        return out.build()

    def state(self) -> dict[str, Any]:
        """Return the complete state as plain values that msgpack can encode."""
        return {"version": VERSION, "chunk_size": self.chunk_size, "state": pack(self._state)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Analyzer:
        """Restore an analyzer from :meth:`state`. Raises ConfigError for a state of another version."""
        if state.get("version") != VERSION:
            raise ConfigError(f"analysis state: version {state.get('version')!r}, this is version {VERSION}")
        analyzer = cls.__new__(cls)
        analyzer.chunk_size = int(state.get("chunk_size", 0))
        analyzer._state = unpack(state["state"], STATE_CLASSES)
        return analyzer

    def _validated_frames(self, frames: Frames) -> Frames:
        array = np.asarray(frames)
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or array.dtype.kind != "u" or array.dtype.itemsize > 2:
            raise ConfigError(f"frames must be (N, H, W) of uint8 or uint16, not {array.dtype} {array.shape}")
        if is_one_picture(array.shape):
            raise ConfigError(
                f"frames must be (N, H, W); {array.shape} is one picture with samples per pixel"
            )
        if min(array.shape[1:]) < 1:
            raise ConfigError(f"frames of shape {array.shape[1:]} hold no pixels")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        shape = self._state.shape
        if shape and tuple(array.shape[1:]) != shape:
            raise ConfigError(f"frames of shape {array.shape[1:]} in a stream of shape {shape}")
        return cast("Frames", array)

    def _frame_times(self, start: int, count: int, times_s: npt.ArrayLike | Sequence[float] | None) -> F64:
        if times_s is None:
            return (start + np.arange(count)) / self._state.fps
        times: F64 = np.asarray(times_s, dtype=np.float64)
        if times.shape != (count,):
            raise ConfigError(f"times_s must hold one time per frame: {count}, not shape {times.shape}")
        # Times must ascend: a clock step backwards is replaced by the latest time before it.
        has_time = np.isfinite(times)
        if not has_time.all():
            times = self._extrapolated(start, times, has_time)
        return np.asarray(np.maximum.accumulate(np.maximum(times, self._state.now_s)))

    def _extrapolated(self, start: int, times: F64, has_time: Bool) -> F64:
        """Extrapolate missing times from the last frame with a time, at the nominal frame rate."""
        state, index = self._state, np.arange(len(times))
        last = np.maximum.accumulate(np.where(has_time, index, -1))
        base_times = np.where(last >= 0, times[last], state.now_s if state.last_index >= 0 else 0.0)
        frames = np.where(last >= 0, index - last, start + index - max(0, state.last_index))
        return np.asarray(base_times + frames / state.fps)


def _validated_ids(frame_ids: npt.ArrayLike, count: int) -> Int:
    """Return the counters of ``count`` frames as int64 (N,). Raises ConfigError for anything else."""
    ids = np.asarray(frame_ids)
    if ids.shape != (count,):
        raise ConfigError(f"frame_ids must hold one counter per frame: {count}, not shape {ids.shape}")
    if ids.dtype.kind not in "iu" and count:
        raise ConfigError(f"frame_ids must be integers (-1: not known), not {ids.dtype}")
    if ids.dtype == np.uint64 and count and int(ids.max()) > LAST_COUNTER:
        raise ConfigError(f"frame_ids must be below 2^63, not {int(ids.max())}")
    return ids.astype(np.int64)
