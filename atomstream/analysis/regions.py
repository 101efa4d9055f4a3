"""Boxes and lines on the picture: background-subtracted intensity, saturation, tracking, profiles, frame features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from atomstream.analysis.illumination import SAMPLE_PIXELS, sample_picture
from atomstream.analysis.pattern import Pattern, correct_profiles
from atomstream.analysis.shapes import Box, Line
from atomstream.records import Frames
from atomstream.results import F32, F64, Bool

RING_PIXELS = 240
"""Pixels from which the background is taken: more cost time and change it by less than its noise."""


@dataclass(frozen=True, slots=True)
class BoxTrace:
    """Measurements of one box, (N,): background-subtracted sum (counts), background (counts/px), saturation 0-1.

    ``x``, ``y`` are the box's centre in px. ``motion`` is the relative change of the intensity that the spot's
    displacement would cause in a box at rest; NaN for a box that does not follow a spot.
    """

    intensity: F64
    background: F64
    saturated: F64
    x: F64
    y: F64
    motion: F64


def measure_box(frames: Frames, box: Box, saturation: int) -> BoxTrace:
    """Measure a box in frames (N, H, W): intensity = sum(box) - area * background.

    The background is the mean of the middle fifth of the values in a ring around the box, in counts per px.
    Pixels of at least the grey level ``saturation`` count as saturated.
    """
    y0, y1, x0, x1 = box.bounds(*frames.shape[1:])
    crop = frames[:, y0:y1, x0:x1]
    background = _ring_background(frames, box)
    area = (y1 - y0) * (x1 - x0)
    total = crop.sum(axis=(1, 2), dtype=np.int64)
    saturated = (crop >= saturation).sum(axis=(1, 2)) / area
    n = len(frames)
    place = np.full(n, box.x), np.full(n, box.y)
    return BoxTrace(total - area * background, background, saturated, *place, np.full(n, np.nan))


def ring_offsets(box: Box) -> tuple[F64, F64]:
    """Return rows and columns of the pixels of the ring around a box, relative to its centre, at most about 240."""
    margin = max(2, round(0.15 * max(box.width, box.height)))
    height, width = max(1, round(box.height)), max(1, round(box.width))
    ring = np.ones((height + 2 * margin, width + 2 * margin), dtype=bool)
    ring[margin : margin + height, margin : margin + width] = False
    indices = np.flatnonzero(ring)
    indices = indices[:: math.ceil(len(indices) / RING_PIXELS)]
    rows, columns = indices // ring.shape[1], indices % ring.shape[1]
    return rows - 0.5 * (ring.shape[0] - 1), columns - 0.5 * (ring.shape[1] - 1)


def middle_mean(pixels: F64, outside: Bool) -> F64:
    """Return the mean of the middle fifth of each row of pixels (N, P), without those ``outside`` (N, P); 0 for none.

    It is as robust as the median, but without steps of one grey level.
    """
    ordered = np.sort(np.where(outside, np.inf, pixels), axis=1)
    counts = pixels.shape[1] - outside.sum(axis=1)
    middle = np.zeros(len(pixels))
    for count in set(counts.tolist()) - {0}:
        rows, low = counts == count, int(0.4 * count)
        middle[rows] = ordered[rows, low : max(low + 1, count - low)].mean(axis=1)
    return middle


def _ring_background(frames: Frames, box: Box) -> F64:
    """Return the background (N,) of frames (N, H, W): the mean of the middle fifth of the pixels around a box."""
    height, width = frames.shape[1:]
    rows, columns = (
        (offsets + 0.5 * (max(1, round(size)) - 1)).astype(np.intp) + round(centre - 0.5 * (size - 1))
        for offsets, centre, size in zip(
            ring_offsets(box), (box.y, box.x), (box.height, box.width), strict=True
        )
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = frames.reshape(len(frames), -1)[:, rows[inside] * width + columns[inside]]
    return middle_mean(pixels.astype(np.float64), np.zeros(pixels.shape, dtype=bool))


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
    frames: Frames, times: F64, pattern: Pattern, boxes: dict[str, BoxTrace]
) -> FrameFeatures:
    """Compute the features of frames (N, H, W) with the measurements of their boxes; 0.3 ms per frame of 480x640."""
    top, end = pattern.band
    sums = frames[:, top:end].sum(axis=1, dtype=np.uint32)
    profiles: F32 = (sums / np.float32(end - top)).astype(np.float32)
    correct_profiles(profiles, frames, pattern.band, pattern.hot_pixels)
    return FrameFeatures(times, sample_picture(frames), profiles, boxes)


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


def block_means(picture: F32, factor: int) -> F32:
    """Return a picture (H, W) averaged over blocks of ``factor`` x ``factor`` px; odd edges are left out."""
    height, width = (size // factor * factor for size in picture.shape)
    blocks = picture[:height, :width].reshape(height // factor, factor, width // factor, factor)
    mean: F32 = blocks.mean(axis=(1, 3)).astype(np.float32, copy=False)
    return mean


def bin_factor(height: int, width: int, target: int = SAMPLE_PIXELS) -> int:
    """Return the binning factor that leaves at most about ``target`` pixels (4 to 8 for usual cameras)."""
    factor = 1
    while height * width / factor**2 > target and factor < 64:
        factor += 1
    return factor
