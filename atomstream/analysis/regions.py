"""Boxes and lines on the picture: background-subtracted intensity, saturation, tracking, profiles, frame features."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from atomstream.analysis.illumination import sample_picture
from atomstream.analysis.pattern import Pattern, correct_profiles
from atomstream.errors import ConfigError
from atomstream.records import Frames
from atomstream.results import F32, F64

RING_PIXELS = 240
"""Pixels used for the background median: more cost time and change it by less than its noise."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the picture: centre (x, y), width and height in px; a ``tracked`` box follows its spot.

    Raises ConfigError for a size below 1 px or a value that is not finite.
    """

    x: float
    y: float
    width: float
    height: float
    name: str = "box"
    tracked: bool = False

    def __post_init__(self) -> None:
        if (
            not all(map(math.isfinite, (self.x, self.y, self.width, self.height)))
            or min(self.width, self.height) < 1
        ):
            raise ConfigError(
                f"region {self.name!r}: a box needs a finite centre, width and height of at least 1 px"
            )

    def bounds(self, height: int, width: int, margin: int = 0) -> tuple[int, int, int, int]:
        """Return (y0, y1, x0, x1) of the box, enlarged by ``margin`` px and cut to the frame; never empty."""
        return (*_extent(self.y, self.height, margin, height), *_extent(self.x, self.width, margin, width))


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line (x0, y0)-(x1, y1) in px for a profile, averaged over ``width`` px (1-999) across it.

    Raises ConfigError for another width or ends that are not finite.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    name: str = "line"
    width: float = 1.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x0, self.y0, self.x1, self.y1))) or not 1 <= self.width <= 999:
            raise ConfigError(f"region {self.name!r}: a line needs finite ends and a width of 1 to 999 px")


Region = Box | Line


@dataclass(frozen=True, slots=True)
class BoxTrace:
    """Measurements of one box, (N,): background-subtracted sum (counts), background (counts/px), saturation 0-1."""

    intensity: F64
    background: F64
    saturated: F64
    mean: F64
    """Mean of the box over the frames without background, in the shape of the box."""
    origin: tuple[int, int]
    """Row and column of the crop's first pixel."""
    motion: F64
    """Relative change of the intensity by the spot's displacement from a box at rest; NaN where unknown."""


def measure_box(frames: Frames, box: Box, saturation: int) -> BoxTrace:
    """Measure a box in frames (N, H, W): intensity = sum(box) - area * median(ring around it).

    Pixels of at least the grey level ``saturation`` count as saturated.
    """
    y0, y1, x0, x1 = box.bounds(*frames.shape[1:])
    crop = frames[:, y0:y1, x0:x1]
    background = _ring_median(frames, box, (y0, y1, x0, x1))
    area = (y1 - y0) * (x1 - x0)
    total = crop.sum(axis=(1, 2), dtype=np.int64)
    saturated = (crop >= saturation).sum(axis=(1, 2)) / area
    mean = crop.mean(axis=0) - background.mean()
    return BoxTrace(
        total - area * background, background, saturated, mean, (y0, x0), np.full(len(frames), np.nan)
    )


def _ring_median(frames: Frames, box: Box, inner: tuple[int, int, int, int]) -> F64:
    height, width = frames.shape[1:]
    margin = max(2, round(0.15 * max(box.width, box.height)))
    y0, y1, x0, x1 = box.bounds(height, width, margin)
    ring = np.ones((y1 - y0, x1 - x0), dtype=bool)
    ring[inner[0] - y0 : inner[1] - y0, inner[2] - x0 : inner[3] - x0] = False
    indices = np.flatnonzero(ring)
    if len(indices) == 0:
        return np.zeros(len(frames))
    indices = indices[:: math.ceil(len(indices) / RING_PIXELS)]
    rows, columns = indices // (x1 - x0) + y0, indices % (x1 - x0) + x0
    pixels = frames.reshape(len(frames), -1)[:, rows * width + columns]
    # Mean of the middle fifth: as robust as the median, but without steps of one grey level.
    ordered = np.sort(pixels, axis=1)
    low = int(0.4 * len(indices))
    middle: F64 = ordered[:, low : max(low + 1, len(indices) - low)].mean(axis=1)
    return middle


def _extent(centre: float, size: float, margin: int, limit: int) -> tuple[int, int]:
    first = round(centre - 0.5 * (size - 1)) - margin
    last = first + max(1, round(size)) + 2 * margin
    return max(0, min(first, limit - 1)), min(limit, max(last, 1))


@dataclass(slots=True)
class Tracker:
    """Follows a spot by its background-subtracted centroid, exponentially averaged over ``time_constant_s``.

    ``x``, ``y`` are the centroid in px. ``box`` moves by whole pixels and only if the centroid is more than 0.6 px
    off its centre, so that a spot between two pixels does not cause jumps in the trace.
    """

    box: Box
    x: float = field(default=math.nan)
    y: float = field(default=math.nan)
    time_constant_s: float = 0.5

    def __post_init__(self) -> None:
        if math.isnan(self.x):
            self.x, self.y = self.box.x, self.box.y

    def update(self, trace: BoxTrace, elapsed_s: float) -> None:
        """Move the box to the centroid of the mean crop of the last ``elapsed_s``; a box not tracked stays."""
        if not self.box.tracked:
            return
        centroid = _bright_centroid(trace.mean)
        if centroid is None:
            return
        share = 1.0 - math.exp(-elapsed_s / self.time_constant_s)
        limit = 0.25 * min(self.box.width, self.box.height)
        self.y += share * _clamped(trace.origin[0] + centroid[0] - self.y, limit)
        self.x += share * _clamped(trace.origin[1] + centroid[1] - self.x, limit)
        if abs(self.x - self.box.x) > 0.6 or abs(self.y - self.box.y) > 0.6:
            self.box = replace(self.box, x=float(round(self.x)), y=float(round(self.y)))


def _bright_centroid(crop: F64) -> tuple[float, float] | None:
    """Return the centroid (y, x) of the pixels above 30 % of the peak; None if the crop is noise."""
    smooth = ndimage.uniform_filter(crop, 3)
    peak = float(smooth.max())
    noise = 1.4826 * float(np.median(np.abs(np.diff(crop, axis=-1)))) if crop.shape[-1] > 1 else 0.0
    if peak <= 4.0 * noise / 3.0 or peak <= 0:
        return None
    weight = np.clip(smooth - 0.3 * peak, 0, None)
    y, x = ndimage.center_of_mass(weight)
    return float(y), float(x)


def _clamped(step: float, limit: float) -> float:
    return min(limit, max(-limit, step))


def line_profile(picture: F64, line: Line) -> F64:
    """Return the profile of a picture (H, W) along a line: one value per px of its length, averaged over its width."""
    length = math.hypot(line.x1 - line.x0, line.y1 - line.y0)
    along = np.linspace(0.0, 1.0, max(2, round(length) + 1))
    across = np.arange(round(line.width)) - 0.5 * (round(line.width) - 1)
    nx, ny = (-(line.y1 - line.y0) / length, (line.x1 - line.x0) / length) if length else (0.0, 1.0)
    xs = line.x0 + along[:, None] * (line.x1 - line.x0) + across * nx
    ys = line.y0 + along[:, None] * (line.y1 - line.y0) + across * ny
    values: F64 = ndimage.map_coordinates(picture, [ys, xs], order=1, mode="nearest").mean(axis=1)
    return values


def saturation_level(frames: Frames) -> int:
    """Return the grey level at which the camera clips: 255 for uint8; for uint16 that of 10, 12, 14 or 16 bits.

    For uint16 it is found from the largest value in the frames, if that lies within 0.1 % below a power of two.
    Otherwise nothing is clipped yet and 65535 is returned.
    """
    if frames.dtype == np.uint8:
        return 255
    top = int(frames.max(initial=0))
    for bits in (10, 12, 14, 16):
        if (1 << bits) * 0.999 <= top < (1 << bits):
            return top
    return 65535


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """Features of N consecutive frames.

    ``times`` (N,) in s; ``pictures`` (N, P) sampled pixels; ``profiles`` (N, W) means over the streak rows; ``boxes``
    the measurements of all boxes by name (the specular one is ``specular``).
    """

    times: F64
    pictures: F32
    profiles: F32
    boxes: dict[str, BoxTrace]

    def __len__(self) -> int:
        return len(self.times)


def compute_features(
    frames: Frames, times: F64, pattern: Pattern, boxes: list[Box], saturation: int
) -> FrameFeatures:
    """Compute the features of frames (N, H, W); measured: about 0.3 ms per frame of 480x640."""
    top, end = pattern.band
    sums = frames[:, top:end].sum(axis=1, dtype=np.uint32)
    profiles: F32 = (sums / np.float32(end - top)).astype(np.float32)
    correct_profiles(profiles, frames, pattern.band, pattern.hot_pixels)
    traces = {box.name: measure_box(frames, box, saturation) for box in boxes}
    return FrameFeatures(times, sample_picture(frames), profiles, traces)


def binned(frame: Frames, factor: int) -> F32:
    """Average frames (N, H, W) over factor x factor pixels. Adding slices is ten times faster than reshape-sum."""
    n, height, width = frame.shape
    height, width = height // factor * factor, width // factor * factor
    rows = frame[:, 0:height:factor, :width].astype(np.uint32)
    for k in range(1, factor):
        rows += frame[:, k:height:factor, :width]
    total = rows[:, :, 0::factor].copy()
    for k in range(1, factor):
        total += rows[:, :, k::factor]
    mean: F32 = total.astype(np.float32) / np.float32(factor * factor)
    return mean.reshape(n, height // factor, width // factor)


def bin_factor(height: int, width: int, target: int = 5000) -> int:
    """Return the binning factor that leaves at most about ``target`` pixels (4 to 8 for usual cameras)."""
    factor = 1
    while height * width / factor**2 > target and factor < 64:
        factor += 1
    return factor
