"""Follows a spot frame by frame, with sub-pixel resolution, and measures its intensity in a window centred on it.

The displacement of each frame is the least-squares shift of a reference picture of the spot (B. D. Lucas & T. Kanade,
Proc. IJCAI, 674 (1981)), which the tracker averages from the frames themselves. A box that moves late, or by whole
pixels, loses a part of the spot that depends on its motion: vibration would look like growth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from atomstream.analysis.regions import BoxTrace, measure_box, middle_mean, ring_offsets
from atomstream.analysis.shapes import Box
from atomstream.records import Frames
from atomstream.results import F64

MARGIN_PX = 2
"""Pixels around the box in the reference picture, for the soft edge of the window and the rounding of its place."""

REFERENCE_S = 1.0
"""Time constant of the reference picture."""

CENTRING_S = 0.5
"""Time constant with which the window's centre moves to the place of the largest intensity in the reference."""

REST_S = 10.0
"""Time constant of the rest position, from which the displacement of ``BoxTrace.motion`` is measured."""

TOLERANCE = 0.03
"""Error of the position, in units of the half width, that changes the intensity by less than 0.1 %."""

MAX_STEPS = 6
"""Largest number of iterations per frame."""

BOX_WIDTHS = 1.4
"""Width of the box in units of the spot's full width at half maximum, assumed for boxes of the user."""


LOST_AMPLITUDE = 0.6
"""Amplitude, relative to the reference picture, below which the spot is also searched in the surroundings."""

FOUND_GAIN = 1.5
"""A position found there is taken if its amplitude is larger by this factor."""


class _Shift(NamedTuple):
    """Position (px) of the spot in one frame, amplitude relative to the reference, variances of the position."""

    y: float
    x: float
    amplitude: float
    variance_y: float
    variance_x: float


@dataclass(slots=True)
class Tracker:
    """Follows the spot in ``box``; a box that is not ``tracked`` stays.

    ``x``, ``y`` are the spot's mean position in the last block, ``now_x``, ``now_y`` that in the last frame and
    ``rest_x``, ``rest_y`` its slow mean, all in px. ``reference`` (h, w) is the mean picture of the spot, whose place
    is (``centre_y``, ``centre_x``) px from the middle pixel. ``basis`` (4, h * w) is the model of a crop times its
    ``weights`` (spot, constant, displacements y and x), ``inverse`` (4, 4) that of the normal equations, and
    ``covariance_x``, ``covariance_y`` are variances for noise of one grey level.
    """

    box: Box
    x: float = math.nan
    y: float = math.nan
    now_x: float = math.nan
    now_y: float = math.nan
    rest_x: float = math.nan
    rest_y: float = math.nan
    frames_seen: int = 0
    is_first_block: bool = True
    centre_x: float = 0.0
    centre_y: float = 0.0
    reference: F64 = field(default_factory=lambda: np.empty((0, 0)))
    weights: F64 = field(default_factory=lambda: np.empty(0))
    basis: F64 = field(default_factory=lambda: np.empty((0, 0)))
    inverse: F64 = field(default_factory=lambda: np.empty((0, 0)))
    covariance_x: float = 0.0
    covariance_y: float = 0.0
    total_weight: float = 1.0
    block_sum: F64 = field(default_factory=lambda: np.empty((0, 0)))
    block_place: F64 = field(default_factory=lambda: np.zeros(5))
    """Sums over the frames of the block: number, position (y, x) and offset from the middle pixel (y, x)."""

    def __post_init__(self) -> None:
        if math.isnan(self.x):
            self.x = self.now_x = self.rest_x = self.box.x
            self.y = self.now_y = self.rest_y = self.box.y
        if self.box.tracked and not self.reference.size:
            self._set_reference(self._gaussian())

    def measure(self, frames: Frames, saturation: int, step_s: float) -> BoxTrace:
        """Follow the spot through frames (N, H, W), ``step_s`` (s) apart; return its measurements in each."""
        if not self.box.tracked:
            return measure_box(frames, self.box, saturation)
        n = len(frames)
        crops = np.empty((n, *self.reference.shape))
        place, middle, rest = np.empty((n, 2)), np.empty((n, 2)), np.empty((n, 2))
        for i in range(n):
            middle[i] = self._follow(frames[i], crops[i])
            place[i] = self.now_y, self.now_x
            self.frames_seen += 1
            share = max(1.0 / self.frames_seen, 1.0 - math.exp(-step_s / REST_S))
            self.rest_y += share * (self.now_y - self.rest_y)
            self.rest_x += share * (self.now_x - self.rest_x)
            rest[i] = self.rest_y, self.rest_x
        rows, columns = self._windows(place - middle)
        limits = frames.shape[1:]
        for weights, first, limit in zip((rows, columns), middle.T, limits, strict=True):
            pixel = first[:, None] + np.arange(weights.shape[1]) - weights.shape[1] // 2
            weights[(pixel < 0) | (pixel >= limit)] = 0.0
        area = rows.sum(axis=1) * columns.sum(axis=1)
        total = ((rows[:, None, :] @ crops)[:, 0] * columns).sum(axis=1)
        inner = crops[:, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
        saturated = (inner >= saturation).sum(axis=(1, 2)) / (inner.shape[1] * inner.shape[2])
        y, x = place[:, 0].copy(), place[:, 1].copy()
        background = self._backgrounds(frames, y, x)
        motion = self._captured(y - rest[:, 0], x - rest[:, 1])
        return BoxTrace(total - area * background, background, saturated, x, y, motion)

    def end_block(self, elapsed_s: float, light_is_on: bool = True) -> None:
        """Move the box to the mean position of the block's frames and update the reference picture."""
        count, *sums = (float(v) for v in self.block_place)
        if not self.box.tracked or count == 0:
            return
        y, x, offset_y, offset_x = (v / count for v in sums)
        mean = self.block_sum / count
        self.block_sum, self.block_place = np.zeros_like(mean), np.zeros(5)
        if not light_is_on:
            return
        self.y, self.x = y, x
        if abs(x - self.box.x) > 0.6 or abs(y - self.box.y) > 0.6:
            self.box = replace(self.box, x=float(round(x)), y=float(round(y)))
        share = 1.0 - math.exp(-elapsed_s / REFERENCE_S)
        if self.is_first_block:
            self.is_first_block, share = False, 1.0
        self.centre_y += share * (offset_y - self.centre_y)
        self.centre_x += share * (offset_x - self.centre_x)
        self._centre(mean := self.reference + share * (mean - self.reference), elapsed_s)
        self._set_reference(mean)

    def _gaussian(self) -> F64:
        height, width = self._shape()
        y, x = np.arange(height) - height // 2, np.arange(width) - width // 2
        rows = np.exp(-4.0 * math.log(2.0) * (y * BOX_WIDTHS / self.box.height) ** 2)
        columns = np.exp(-4.0 * math.log(2.0) * (x * BOX_WIDTHS / self.box.width) ** 2)
        return np.asarray(rows[:, None] * columns)

    def _shape(self) -> tuple[int, int]:
        return (
            2 * (math.ceil(0.5 * self.box.height) + MARGIN_PX) + 1,
            2 * (math.ceil(0.5 * self.box.width) + MARGIN_PX) + 1,
        )

    def _set_reference(self, reference: F64) -> None:
        self.reference = reference
        if not self.block_sum.size:
            self.block_sum = np.zeros_like(reference)
        slope_y, slope_x = np.gradient(reference)
        basis = np.stack([reference, np.ones_like(reference), -slope_y, -slope_x]).reshape(4, -1)
        rows, columns = self._windows(np.array([[self.centre_y, self.centre_x]]))
        self.weights = np.outer(rows[0], columns[0]).ravel()
        self.basis = basis * self.weights
        gram = self.basis @ basis.T
        gram.flat[::5] = gram.diagonal() * (1.0 + 1e-9) + 1e-12
        self.inverse = np.linalg.inv(gram)
        # The variance of each coefficient for noise of one grey level per pixel.
        variances = ((self.inverse @ self.basis) ** 2).sum(axis=1)
        self.covariance_y, self.covariance_x = float(variances[2]), float(variances[3])
        self.total_weight = float(self.weights.sum())

    def _follow(self, frame: Frames, crop: F64) -> tuple[int, int]:
        """Move ``now_x``, ``now_y`` to the spot's position in a frame (H, W).

        Writes the pixels around the position to ``crop`` (h, w) and returns its middle pixel (row, column).
        """
        start_y, start_x = self.now_y, self.now_x
        found = self._shift(frame, crop, start_y, start_x)
        if found.amplitude < LOST_AMPLITUDE:
            # A spot that jumped by more than half of its width is not found from its old place.
            other = self._shift(frame, crop, *_brightest(frame, self.box, start_y, start_x))
            if other.amplitude > FOUND_GAIN * max(found.amplitude, 0.1):
                found = other
        fit_y, fit_x, amplitude = found.y, found.x, found.amplitude
        variance_y, variance_x = found.variance_y, found.variance_x
        self.now_y = start_y + _gain(fit_y - start_y, variance_y, self.box.height) * (fit_y - start_y)
        self.now_x = start_x + _gain(fit_x - start_x, variance_x, self.box.width) * (fit_x - start_x)
        place = round(self.now_y - self.centre_y), round(self.now_x - self.centre_x)
        _crop(frame, place, crop)
        if amplitude > 0.2:
            self.block_sum += crop
            offset_y, offset_x = self.now_y - place[0], self.now_x - place[1]
            self.block_place += (1.0, self.now_y, self.now_x, offset_y, offset_x)
        return place

    def _shift(self, frame: Frames, crop: F64, fit_y: float, fit_x: float) -> _Shift:
        """Return the least-squares position of the spot in a frame (H, W), searched from (``fit_y``, ``fit_x``)."""
        reach_y, reach_x = 0.4 * self.box.height, 0.4 * self.box.width
        variance_y = variance_x = math.inf
        amplitude = 0.0
        middle = round(fit_y - self.centre_y), round(fit_x - self.centre_x)
        _crop(frame, middle, crop)
        for _ in range(MAX_STEPS):
            flat = crop.ravel()
            projected = self.basis @ flat
            found = self.inverse @ projected
            amplitude, _, moved_y, moved_x = found.tolist()
            if amplitude <= 0.05:
                break
            fit_y = middle[0] + self.centre_y + _clamped(moved_y / amplitude, reach_y)
            fit_x = middle[1] + self.centre_x + _clamped(moved_x / amplitude, reach_x)
            left = max(0.0, float((flat * self.weights) @ flat - found @ projected))
            noise = left / self.total_weight / amplitude**2
            variance_y, variance_x = self.covariance_y * noise, self.covariance_x * noise
            last = middle
            middle = round(fit_y - self.centre_y), round(fit_x - self.centre_x)
            if middle == last:
                break
            _crop(frame, middle, crop)
        return _Shift(fit_y, fit_x, amplitude, variance_y, variance_x)

    def _windows(self, centres: F64) -> tuple[F64, F64]:
        """Return the weights of rows (N, h) and columns (N, w) of crops: boxes with soft edges about ``centres``.

        ``centres`` (N, 2) are the offsets (y, x) from the middle pixel.
        """
        height, width = self.reference.shape
        return (
            _soft_box(height, centres[:, :1], self.box.height),
            _soft_box(width, centres[:, 1:], self.box.width),
        )

    def _centre(self, reference: F64, elapsed_s: float) -> None:
        """Move the spot's place in the reference towards the largest intensity in the window.

        There a small error of the position does not change the intensity.
        """
        share = 1.0 - math.exp(-elapsed_s / CENTRING_S)
        steps = []
        rows, columns = (w[0] for w in self._windows(np.array([[self.centre_y, self.centre_x]])))
        level = float(
            np.median(np.concatenate([reference[0], reference[-1], reference[:, 0], reference[:, -1]]))
        )
        for line, centre, size in (
            ((reference - level) @ columns, self.centre_y, self.box.height),
            (rows @ (reference - level), self.centre_x, self.box.width),
        ):
            low, here, high = (float(_soft_box(len(line), centre + d, size) @ line) for d in (-1.0, 0.0, 1.0))
            bend = 2.0 * here - low - high
            steps.append(_clamped(0.5 * (high - low) / bend, 0.5) if bend > 1e-3 * here > 0 else 0.0)
        self.centre_y += share * steps[0]
        self.centre_x += share * steps[1]

    def _backgrounds(self, frames: Frames, y: F64, x: F64) -> F64:
        """Return the background of each frame (N,): the middle of the values in a ring around the window."""
        height, width = frames.shape[1:]
        rows, columns = (offsets[::2] for offsets in ring_offsets(self.box))
        row, column = y[:, None] + rows, x[:, None] + columns
        outside = (row < 0) | (row > height - 1) | (column < 0) | (column > width - 1)
        # Quadratic B-splines blur by the same amount wherever the point lies between the pixels.
        near_row, near_column = np.rint(row).astype(np.intp), np.rint(column).astype(np.intp)
        row_weights, column_weights = _spline_weights(row - near_row), _spline_weights(column - near_column)
        first = np.arange(len(frames))[:, None] * (height * width)
        pixels, values = frames.reshape(-1), np.zeros(row.shape)
        for i in range(3):
            line = first + np.clip(near_row + (i - 1), 0, height - 1) * width
            for j in range(3):
                place = line + np.clip(near_column + (j - 1), 0, width - 1)
                values += row_weights[i] * column_weights[j] * pixels[place]
        return middle_mean(values, outside)

    def _captured(self, y: F64, x: F64) -> F64:
        """Return the relative change of the intensity in a box at rest by displacements (N,) of a Gaussian spot.

        The box is a quarter of the spot's width off its centre, so that the change has a part at the frequency of
        the motion and one at twice that frequency.
        """

        def share(at: F64, width: float) -> F64:
            spot = width / BOX_WIDTHS
            scaled, half = 2.355 * (at / spot + 0.25), 0.5 * 2.355 * BOX_WIDTHS
            return np.asarray(ndtr(half - scaled) - ndtr(-half - scaled))

        here = share(y, self.box.height) * share(x, self.box.width)
        return here / float(share(np.zeros(1), 1.0)[0]) ** 2 - 1.0


def _brightest(frame: Frames, box: Box, y: float, x: float) -> tuple[float, float]:
    """Return the place (y, x) of the brightest area of about the spot's size, within one box around (y, x)."""
    height, width = frame.shape
    reach_y, reach_x = math.ceil(box.height) + 2, math.ceil(box.width) + 2
    top, left = max(0, round(y) - reach_y), max(0, round(x) - reach_x)
    part = frame[top : min(height, round(y) + reach_y + 1), left : min(width, round(x) + reach_x + 1)]
    if part.size == 0:
        return y, x
    size = max(1, round(0.5 * box.height)), max(1, round(0.5 * box.width))
    smooth = ndimage.uniform_filter(part.astype(np.float64), size)
    row, column = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
    return float(top + row), float(left + column)


def _crop(frame: Frames, middle: tuple[int, int], out: F64) -> None:
    """Write the pixels around a middle pixel (row, column) to ``out``; outside the frame its edge is repeated."""
    (height, width), (rows, columns) = frame.shape, out.shape
    top, left = middle[0] - rows // 2, middle[1] - columns // 2
    if top >= 0 and left >= 0 and top + rows <= height and left + columns <= width:
        out[:] = frame[top : top + rows, left : left + columns]
        return
    row = np.clip(top + np.arange(rows), 0, height - 1)
    out[:] = frame[row[:, None], np.clip(left + np.arange(columns), 0, width - 1)]


def _soft_box(count: int, centre: F64 | float, size: float) -> F64:
    """Return the weights (..., count) of boxes of ``size`` px at ``centre`` (..., 1) px from the middle pixel.

    The edge is the running mean of a step over a triangle of 2 px. The sum over the pixels then hardly depends on
    where the box lies between them.
    """
    inner = np.clip(0.5 * size - np.abs(np.arange(count) - count // 2 - centre), -1.0, 1.0)
    weights: F64 = 0.5 + inner - 0.5 * inner * np.abs(inner)
    return weights


def _spline_weights(offset: F64) -> tuple[F64, F64, F64]:
    """Return the weights of the pixel before, at and after a point ``offset`` px from a pixel, -0.5 to 0.5."""
    return 0.5 * (0.5 - offset) ** 2, 0.75 - offset**2, 0.5 * (0.5 + offset) ** 2


def _gain(moved: float, variance: float, size: float) -> float:
    """Return the share of a measured displacement (px) that is followed, 0-1.

    Exact positions are followed at once. Noisy ones are averaged over so many frames that the error stays at the
    tolerance, except for displacements that are too large for the noise.
    """
    if not math.isfinite(variance):
        return 0.0
    tolerance = (TOLERANCE * size / BOX_WIDTHS) ** 2
    steady = min(1.0, 2.0 * tolerance / (variance + tolerance))
    return max(steady, 1.0 - 9.0 * variance / moved**2) if moved else steady


def _clamped(step: float, limit: float) -> float:
    return min(limit, max(-limit, step))
