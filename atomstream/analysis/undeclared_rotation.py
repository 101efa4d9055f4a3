"""Undeclared rotation: detects from the pictures whether the pattern rotates, without a stated speed.

While the substrate rotates, the diffraction spots move, so two pictures soon differ; after a turn, or after 1/n of it
on an n-fold surface, the same picture returns. At rest all pictures agree, apart from the brightness of their spots.
So the similarity of two pictures must not depend on brightness: each picture is divided by its local contrast, the
specular spot is left out, and the noise is taken out of the correlation. A pattern that only moves as a whole is
aligned before it is compared. A pattern that alternates between two states (a shutter, a reconstruction) keeps each
state for a while, which a rotating pattern does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream.analysis.pictures import bridge, hidden_part
from atomstream.analysis.shapes import Box
from atomstream.records import Frames
from atomstream.results import F32, F64, Int

Int8: TypeAlias = npt.NDArray[np.int8]

PICTURES_HZ = 5.0
"""Rate, about, at which pictures are compared; slower cameras: each frame."""

HISTORY = 96
"""Number of compared pictures: 19 s at 5 a second."""

BANDS = 10
"""Number of row bands of a reduced picture; spots are higher than wide, so columns need more bins."""

COLUMNS = 128
"""Largest number of columns of a reduced picture, about."""

ROWS_PER_BAND = 12
"""Largest number of rows that are averaged in a band, about; more cost time and reduce the noise little."""

WINDOW_SHARE = 0.125
"""Width of the window of the local contrast, as a share of the picture: more than a spot, about one spacing."""

NOISE_FLOOR = 6.0
"""Local contrast below this many noise widths counts as noise."""

CONTRAST_FLOOR = 0.03
"""Local contrast below this share of the largest one counts as none: camera defects, compression."""

HOT_NOISE, HOT_SHARE = 16.0, 0.5
"""A bin whose halves differ by more than this many noise widths plus this share of its contrast has a hot pixel."""

MIN_RELIABLE = 0.15
"""Least share of a picture's variance that is structure instead of noise; other pictures are left out."""

LEVELS = 40.0
"""Integer steps per unit of the local contrast in a stored picture."""

MAX_SHIFT_SHARE = 0.05
"""Largest shift of the whole pattern along x that is taken out, as a share of the picture's width."""

UNCHANGED = 0.75
"""Two pictures with a larger similarity are not aligned: it would cost time and change nothing."""

SAME = 0.45
"""Least similarity of a picture that returned."""

OTHER = 0.3
"""Largest similarity of two pictures that show another azimuth."""

SETTLED = 0.9
"""Two successive pictures with a larger similarity show no motion."""

JUDGED = 12
"""Number of last pictures that are judged."""

MIN_SHARE = 0.7
"""Least share of the judged pictures that must have returned, and of those that must differ from the one before."""

STILL_PICTURES = 15
"""Number of last pictures that must all agree before the pattern counts as stopped."""

MIN_CONTRAST = 0.3
"""Pictures with less than this share of the usual contrast are left out: a shutter, a drop-out of the beam."""

CONTRAST_PICTURES = 48
"""Number of last pictures whose median contrast is the usual one: a turning crystal is bright at few azimuths only."""

CONFIRMATIONS = 2
"""Number of searches in a row that must find a return before the pattern counts as turning."""

MOVES = "the pattern keeps moving, as if the substrate turned, but 0 rpm was stated"


@dataclass(slots=True)
class PictureHistory:
    """The last pictures at even intervals and their similarities.

    ``pictures`` (<= 96, B, C) are reduced pictures, ``norms`` (<= 96,) their lengths without the noise (NaN for one
    that is not reliable), ``similarity`` (<= 96, <= 96) their correlation after alignment (NaN with one that is not
    reliable, also on the diagonal), ``times`` (<= 96,) in s.
    """

    times: F64 = field(default_factory=lambda: np.empty(0))
    pictures: Int8 = field(default_factory=lambda: np.empty((0, 0, 0), np.int8))
    norms: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    similarity: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def add(self, time_s: float, picture: Int8, norm: float) -> None:
        """Add a reduced picture (B, C) with its ``norm``; one of another shape begins a new history."""
        if self.pictures.shape[1:] != picture.shape:
            self.times, self.norms = self.times[:0], self.norms[:0]
            self.pictures, self.similarity = picture[None][:0], self.similarity[:0, :0]
        kept = slice(max(0, len(self.times) + 1 - HISTORY), None)
        old, norms, n = self.pictures[kept], self.norms[kept], len(self.times[kept])
        matrix = np.ones((n + 1, n + 1), np.float32)
        matrix[:n, :n] = self.similarity[kept, kept]
        matrix[n, :n] = matrix[:n, n] = similarities(old, norms, picture, norm)
        matrix[n, n] = 1.0 if math.isfinite(norm) else math.nan
        self.similarity = matrix
        self.pictures, self.norms = np.concatenate([old, picture[None]]), np.append(norms, np.float32(norm))
        self.times = np.append(self.times[kept], time_s)

    def return_s(self) -> float | None:
        """Return the time in s after which the pictures of a rotating pattern return, None if it does not rotate."""
        found = returns(self.similarity)
        if found is None:
            return None
        now, latest, best = found
        first = _middle(self.times[now] - self.times[latest])
        # The best of several returns is a multiple of the period and gives it more exactly.
        surest = _middle(self.times[now] - self.times[best])
        return surest / max(1, round(surest / first))

    def is_still(self) -> bool:
        """Return True if the last pictures agree; False if most of them are not reliable."""
        recent = self.similarity[-STILL_PICTURES:, -STILL_PICTURES:]
        reliable = np.isfinite(np.diagonal(recent))
        return bool(reliable.sum() >= 0.5 * STILL_PICTURES) and not bool((recent < SAME).any())

    def keeps_moving(self) -> bool:
        """Return True if each of the last pictures differs from the one before, and later ones show another azimuth.

        The median of many pairs decides: in dim pictures of a pattern at rest, noise alone makes single pairs differ.
        """
        return moves_on(self.similarity) and turning_lag(self.similarity) is not None


def _middle(times: F64) -> float:
    """Return the lower median of times (N,): the mean of two middle ones may be not a multiple of the period."""
    return float(np.quantile(times, 0.5, method="lower"))


def moves_on(similarity: F32) -> bool:
    """Return True if most of the last pictures differ from the one before."""
    steps = np.diagonal(similarity, 1)[-JUDGED:]
    moving = steps[np.isfinite(steps)] < SETTLED
    return len(moving) >= 0.5 * JUDGED and bool(moving.mean() >= MIN_SHARE)


def returns(similarity: F32) -> tuple[Int, Int, Int] | None:
    """Return which of the last pictures returned, with the latest and the best earlier picture that agrees with each.

    None if the pattern does not turn. ``similarity`` (N, N) is that of pictures at even intervals. A picture has
    returned if an earlier one agrees, one between them differs, and the ones before both agree too, by the time in
    which the pattern becomes another: so the pattern does not go back the way it came.
    """
    n = len(similarity)
    before = turning_lag(similarity)
    if before is None or n < JUDGED + 2 * before or not moves_on(similarity):
        return None
    rows = np.arange(n - JUDGED, n)
    other = (similarity[rows] < OTHER) & (np.arange(n) < rows[:, None])
    last_other = np.where(other.any(axis=1), n - 1 - np.argmax(other[:, ::-1], axis=1), 0)
    pair = np.minimum(
        similarity[rows, before:], similarity[rows - before, :-before]
    )  # of picture ``before`` and later
    pair[~(np.arange(before, n) < last_other[:, None]) | ~np.isfinite(pair)] = -1.0
    reliable = np.isfinite(np.diagonal(similarity))
    judged = reliable[rows] & reliable[rows - before]
    returned = pair.max(axis=1) > SAME
    if returned.sum() < MIN_SHARE * max(1, judged.sum()) or judged.sum() < 0.5 * JUDGED:
        return None
    latest = n - 1 - np.argmax((pair > SAME)[:, ::-1], axis=1)
    return rows[returned], latest[returned], before + pair.argmax(axis=1)[returned]


def turning_lag(similarity: F32) -> int | None:
    """Return after how many pictures most of the last ones show another azimuth, None if they do not."""
    for lag in range(1, min(JUDGED, len(similarity) - 1)):
        steps = np.diagonal(similarity, lag)[-JUDGED:]
        steps = steps[np.isfinite(steps)]
        if len(steps) and float(np.median(steps)) < OTHER:
            return lag
    return None


def similarities(pictures: Int8, norms: F32, picture: Int8, norm: float) -> F32:
    """Return the correlation (N,) of ``pictures`` (N, B, C) with a ``picture`` (B, C) after alignment along x.

    NaN where one of the two is not reliable.
    """
    count = len(pictures)
    flat = pictures.reshape(count, picture.size).astype(np.float32)
    similar: F32 = flat @ picture.ravel().astype(np.float32) / (norms * np.float32(norm))
    moved = np.flatnonzero(similar < UNCHANGED)
    if len(moved):
        reach = max(1, round(MAX_SHIFT_SHARE * picture.shape[1]))
        padded = np.pad(picture, ((0, 0), (reach, reach))).astype(np.float32)
        shifted = np.lib.stride_tricks.sliding_window_view(padded, picture.shape[1], axis=1)
        best = (flat[moved] @ shifted.transpose(0, 2, 1).reshape(flat.shape[1], -1)).max(axis=1)
        similar[moved] = best / (norms[moved] * np.float32(norm))
    return similar


def reduced(frame: Frames) -> F32:
    """Return a frame (H, W) as means over row bands and column bins: (2, <= 10, <= 128).

    The two parts are means of alternate rows: they show the same pattern with independent noise.
    """
    height, width = frame.shape
    bands = max(1, min(BANDS, height // 2))
    per_band, per_bin = height // bands, max(1, round(width / COLUMNS))
    columns = width // per_bin
    step = max(1, per_band // ROWS_PER_BAND)
    block = frame[: per_band * bands, : columns * per_bin].reshape(bands, per_band, columns * per_bin)[
        :, ::step
    ]
    halves = []
    # Rows 0, 3, 4, 7, ... and 1, 2, 5, 6, ...: both halves have the same mean row.
    for pair in ((0, 3), (1, 2)):
        parts = [block[:, k::4] for k in pair if k < block.shape[1]]
        total = sum(part.sum(axis=1, dtype=np.uint32) for part in parts)
        rows = sum(part.shape[1] for part in parts)
        halves.append(total.reshape(bands, columns, per_bin).sum(axis=2) / np.float32(rows * per_bin))
    return np.stack(halves).astype(np.float32)


def local_contrast(
    halves: F32, hidden: tuple[slice, slice], least_noise: float = 0.0
) -> tuple[Int8, float, float]:
    """Return a reduced picture (B, C) in units of its local contrast, its length without the noise, and its contrast.

    ``halves`` (2, B, C) are from :func:`reduced`. The rectangle ``hidden`` of the specular spot is bridged. The length
    is NaN if there is no structure beyond the noise, which is ``least_noise`` or more. Noise and contrast are in
    counts.
    """
    columns = halves.shape[2]
    bridge(halves, *hidden)
    mean = _mean_matrix(columns)
    details = halves - halves @ mean
    difference = np.abs(halves[0] - halves[1])
    noise = max(least_noise, 0.5 * 1.4826 * float(np.median(difference)))
    darker = halves.min(axis=0)
    hot = difference > HOT_NOISE * noise + HOT_SHARE * np.abs(details).min(axis=0)
    if hot.any():
        halves = np.where(hot, darker, halves)
        details = halves - halves @ mean
    detail = 0.5 * (details[0] + details[1])
    power = (detail * detail) @ mean
    floor = (NOISE_FLOOR * noise) ** 2 + CONTRAST_FLOOR**2 * float(power.max())
    weight = 1.0 / (power + np.float32(floor + 1e-9))
    flat = detail * np.sqrt(weight)
    structure = float((weight * details[0] * details[1]).sum())
    reliable = structure > MIN_RELIABLE * float((flat * flat).sum())
    norm = LEVELS * math.sqrt(structure) if reliable else math.nan
    return np.clip(np.rint(LEVELS * flat), -127, 127).astype(np.int8), norm, math.sqrt(float(power.mean()))


def digitisation_noise(shape: tuple[int, ...]) -> float:
    """Return the noise, in counts, that rounding to whole counts leaves in a bin of a reduced picture.

    In a nearly black picture most bins hold the same count, so their differences show no noise at all.
    """
    height, width = shape
    rows = min(height // max(1, min(BANDS, height // 2)), ROWS_PER_BAND)
    return 1.0 / math.sqrt(12.0 * rows * max(1, round(width / COLUMNS)))


@lru_cache(maxsize=16)
def _mean_matrix(columns: int) -> F32:
    """Return the matrix (C, C) whose product with a row is its running mean; outside, the outermost value counts."""
    half = max(2, round(0.5 * WINDOW_SHARE * columns))
    matrix = np.zeros((columns, columns), np.float32)
    for column in range(columns):
        sources = np.clip(np.arange(column - half, column + half + 1), 0, columns - 1)
        np.add.at(matrix[:, column], sources, np.float32(1.0 / (2 * half + 1)))
    return matrix


@dataclass(slots=True)
class TurnDetector:
    """Detects that the pattern rotates.

    ``return_s`` is the time in s after which the pattern returns, 0 while it does not rotate; on an n-fold surface this
    may be 1/n of a turn. ``moves`` is True while the pattern keeps changing. ``contrasts`` (<= 48,) are those of
    the last pictures in counts, ``confirmed`` is the number of searches in a row with a result.
    """

    history: PictureHistory = field(default_factory=PictureHistory)
    contrasts: F64 = field(default_factory=lambda: np.empty(0))
    return_s: float = 0.0
    moves: bool = False
    confirmed: int = 0
    was_reported: bool = False

    @property
    def turning_hz(self) -> float | None:
        """How often a second the pattern returns (n times the rotation speed on an n-fold surface); None at rest."""
        return 1.0 / self.return_s if self.return_s else None

    @property
    def reason(self) -> str:
        """Why there is no growth rate: a sentence about the rotating pattern, "" at rest."""
        if self.return_s:
            return (
                f"the pattern rotates (it returns after about {self.return_s:.2g} s), but 0 rpm was stated: "
                "set the rotation"
            )
        return MOVES if self.moves else ""

    def feed(
        self, time_s: float, frame: Frames, spot: Box, fwhm: tuple[float, float], *, dark: bool = False
    ) -> None:
        """Add a frame (H, W) at ``time_s`` (s), about five a second at even intervals.

        ``spot`` is the box of the specular spot, ``fwhm`` its widths (y, x) in px. A ``dark`` frame shows nothing.
        """
        halves = reduced(frame)
        hidden = _hidden(spot, fwhm, frame.shape, halves.shape[1:])
        picture, norm, contrast = local_contrast(halves, hidden, digitisation_noise(frame.shape))
        if not dark:
            self.contrasts = np.append(self.contrasts[1 - CONTRAST_PICTURES :], contrast)
        reliable = not dark and contrast > MIN_CONTRAST * float(np.median(self.contrasts))
        self.history.add(time_s, picture, norm if reliable else math.nan)

    def skip(self, n_pictures: int) -> None:
        """Leave out ``n_pictures`` that are missing; many of them begin a new history."""
        history = self.history
        if n_pictures > HISTORY // 4 or len(history.times) == 0:
            self.history = PictureHistory()
            return
        for _ in range(n_pictures):
            history.add(float(history.times[-1]), np.zeros_like(history.pictures[0]), math.nan)

    def update(self) -> bool:
        """Judge the last pictures, about twice a second; return True when the rotation is noticed for the first
        time."""
        found = self.history.return_s()
        self.confirmed = self.confirmed + 1 if found else 0
        if found and self.confirmed >= CONFIRMATIONS:
            self.return_s = found
        elif self.history.is_still():
            self.return_s = 0.0
        self.moves = self.history.keeps_moving()
        if not self.return_s or self.was_reported:
            return False
        self.was_reported = True
        return True


def _hidden(
    spot: Box, fwhm: tuple[float, float], shape: tuple[int, ...], small: tuple[int, ...]
) -> tuple[slice, slice]:
    """Return the rows and columns of a reduced picture that the specular spot covers."""
    rows, columns = (
        hidden_part(at, width, count, full / count)
        for at, width, full, count in zip((spot.y, spot.x), fwhm, shape, small, strict=True)
    )
    return rows, columns
