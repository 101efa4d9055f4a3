"""The online engine: feed frames as they come, get batches of results; every state survives a crash of its host."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from atomstream.analysis import online
from atomstream.analysis.calibration import Calibration
from atomstream.analysis.online import BatchBuilder
from atomstream.analysis.regions import Region
from atomstream.analysis.serialization import VERSION, pack, unpack
from atomstream.analysis.stream_state import AnalysisState
from atomstream.errors import ConfigError
from atomstream.records import Frames
from atomstream.results import F64, Batch, Bool, Event


class Analyzer:
    """Analyses one stream's frames in order, as they come.

    ``fps`` (frames a second, > 0) and ``rpm`` (rotations a minute, 0: at rest) are what the stream says; the frames'
    own times and the refined rotation are used where they exist. ``chunk_size`` only tells how long pieces will be.
    Results do not depend on how the frames are cut into calls of :meth:`feed`. Not for several threads at once.
    Raises ConfigError for settings that can't be meant.
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
            raise ConfigError(f"fps must be a positive number of frames a second, not {fps!r}")
        if not math.isfinite(rpm):
            raise ConfigError(f"rpm must be a finite number of rotations a minute, not {rpm!r}")
        self._stage = AnalysisState(
            fps=float(fps), rpm=abs(float(rpm)), calibration=calibration or Calibration()
        )
        self._stage.continuous = growth_is_continuous
        if layer_unit:
            self._stage.layer_unit = layer_unit
        self.chunk_size = chunk_size

    @property
    def frames_fed(self) -> int:
        """Index of the next frame that is expected."""
        return self._stage.next_index

    def feed(self, index_start: int, frames: Frames, times_s: npt.ArrayLike | None = None) -> Batch:
        """Analyse frames (N, H, W) or (H, W), uint8 or uint16, of which the first has index ``index_start``.

        ``times_s`` (N,) are seconds from the stream's start; index / fps without them or where they are NaN.
        Frames that were fed before are passed over, missing ones taken as a gap. Returns what is finished: it may
        hold fewer or more frames than were given. Raises ConfigError for another dtype, another frame size than
        before, or times of another length.
        """
        block = self._checked(frames)
        times = self._times(index_start, len(block), times_s)
        if index_start > self._stage.next_index:
            self.gap(index_start - self._stage.next_index)
        skip = min(len(block), self._stage.next_index - index_start)
        out = BatchBuilder(self._stage)
        online.take(self._stage, block[skip:], times[skip:], out)
        return out.batch()

    def gap(self, n_frames: int) -> None:
        """Say that the next ``n_frames`` frames are missing: they are marked, and passed."""
        if n_frames > 0:
            online.take_gap(self._stage, n_frames)

    def mark(self, label: str, kind: str = "note", time_s: float | None = None) -> Event:
        """Note an event of the user's at ``time_s`` (default: now); shutter, laser, growth, pause cut segments."""
        event = Event(self._stage.now_s if time_s is None else float(time_s), kind, label, by="user")
        online.take_mark(self._stage, event)
        return event

    def set_rotation(self, rpm: float) -> None:
        """Say that the rotation changed from now on: a new segment begins."""
        online.take_rotation(self._stage, abs(float(rpm)))

    def set_regions(self, regions: Iterable[Region]) -> None:
        """Set the user's boxes and lines from the next frame on; a tracked box named ``specular`` replaces ours."""
        online.take_regions(self._stage, list(regions))

    def set_calibration(self, calibration: Calibration) -> None:
        """Set the calibration from now on; relative results stay as they are."""
        self._stage.calibration = calibration

    @property
    def regions(self) -> tuple[Region, ...]:
        """Boxes and lines as they stand: the specular box and the streak band first, then the user's."""
        return online.current_regions(self._stage)

    def finish(self) -> Batch:
        """Analyse what is still held back and fit once more: the stream has ended."""
        out = BatchBuilder(self._stage)
        online.finish(self._stage, out)
        return out.batch()

    def state(self) -> dict[str, Any]:
        """Everything the engine knows, as plain values that msgpack takes."""
        return {"version": VERSION, "chunk_size": self.chunk_size, "stage": pack(self._stage)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Analyzer:
        """Make the engine again that :meth:`state` described. Raises ConfigError for a state of another version."""
        if state.get("version") != VERSION:
            raise ConfigError(f"analysis state: version {state.get('version')!r}, this is version {VERSION}")
        engine = cls.__new__(cls)
        engine.chunk_size = int(state.get("chunk_size", 0))
        engine._stage = unpack(state["stage"], online.CLASSES)
        return engine

    def _checked(self, frames: Frames) -> Frames:
        array = np.asarray(frames)
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or array.dtype.kind != "u" or array.dtype.itemsize > 2:
            raise ConfigError(f"frames must be (N, H, W) of uint8 or uint16, not {array.dtype} {array.shape}")
        if min(array.shape[1:]) < 1:
            raise ConfigError(f"frames of shape {array.shape[1:]} hold no pixels")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        shape = self._stage.shape
        if shape and tuple(array.shape[1:]) != shape:
            raise ConfigError(f"frames of shape {array.shape[1:]} in a stream of shape {shape}")
        return cast("Frames", array)

    def _times(self, start: int, count: int, times_s: npt.ArrayLike | Sequence[float] | None) -> F64:
        if times_s is None:
            return (start + np.arange(count)) / self._stage.fps
        times: F64 = np.asarray(times_s, dtype=np.float64)
        if times.shape != (count,):
            raise ConfigError(f"times_s must hold one time a frame: {count}, not shape {times.shape}")
        # a camera's clock may hiccup; time itself does not go back
        known = np.isfinite(times)
        if not known.all():
            times = self._continued(start, times, known)
        return np.asarray(np.maximum.accumulate(np.maximum(times, self._stage.now_s)))

    def _continued(self, start: int, times: F64, known: Bool) -> F64:
        """Fill frames without a time from the last frame with one, at the stated frame rate."""
        stage, place = self._stage, np.arange(len(times))
        last = np.maximum.accumulate(np.where(known, place, -1))
        since = np.where(last >= 0, times[last], stage.now_s if stage.last_index >= 0 else 0.0)
        frames = np.where(last >= 0, place - last, start + place - max(0, stage.last_index))
        return np.asarray(since + frames / stage.fps)
