"""A rotating substrate: the true speed, the azimuth of each frame, a picture for each azimuth, and the views.

The nominal speed may be wrong by 10 %: the lag at which pictures repeat is searched around the nominal turn. With
an n-fold surface pictures repeat n times a turn too; the nearest of those lags (n = 4) lies outside the search still.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from atomstream.analysis.lattice import fit_comb
from atomstream.analysis.pattern import find_spacing
from atomstream.analysis.regions import FrameFeatures, bin_factor, binned
from atomstream.records import Frames
from atomstream.results import F32, F64, Bool, Event, Measurement, View, measured, undetermined

if TYPE_CHECKING:
    from atomstream.analysis.stream_state import PatternTrackers


# Views of a turning sample: the azimuths at which the picture mirrors itself about the specular column.
#
# An azimuth keeps its number as long as the sample turns, found or not in between: its label stays with it.

MOST_VIEWS = 12

WIDEST_GAP_DEG = 8.0
"""Between neighbouring azimuths that were filmed: views are some degrees wide, and in wider gaps whole ones hide."""

LEAST_PER_TURN = 60
"""Frames a turn from which no such gap is left in bins of 2 degrees."""

SAME_DEG = 6.0


def is_whole_turn(seen: Bool) -> bool:
    """Whether ``seen`` (bins,), the azimuths that were filmed, leaves no gap in which a view would be missed."""
    places = np.flatnonzero(seen)
    if len(places) < 3:
        return False
    gaps = np.diff(places, append=places[0] + len(seen))
    return bool(gaps.max() * 360.0 <= WIDEST_GAP_DEG * len(seen))


def view_places(symmetry: F64, seen: Bool) -> list[int]:
    """Bins of the sharpest maxima of the symmetry (bins,), the sharpest first; only ``seen`` bins count.

    What was not filmed is told from its neighbours around the turn, so that a slow camera does as well.
    """
    places = np.flatnonzero(seen)
    whole = np.interp(np.arange(len(seen)), places, symmetry[places], period=len(seen))
    # a view is a sharp maximum: symmetry changes slowly with azimuth otherwise
    sharp = whole - ndimage.median_filter(whole, 15, mode="wrap")
    peak = ndimage.maximum_filter1d(sharp, 9, mode="wrap") == sharp
    noise = 1.4826 * float(np.median(np.abs(sharp[places]))) + 1e-9
    found = [int(i) for i in np.flatnonzero(peak & seen & (sharp > 4.0 * noise))]
    return sorted(found, key=lambda i: -float(sharp[i]))[:MOST_VIEWS]


def known_as(angle_deg: float, known: dict[int, View], taken: set[int]) -> int | None:
    """Number of the nearest of the ``known`` views within ``SAME_DEG`` that is not ``taken``, None for a new one."""
    near = [
        (apart_deg(view.angle_deg, angle_deg), number)
        for number, view in known.items()
        if number not in taken
    ]
    distance, number = min(near, default=(SAME_DEG, -1))
    return number if distance < SAME_DEG else None


def apart_deg(one: float, other: float) -> float:
    """Angle between two azimuths, 0 to 180 degrees."""
    return abs((one - other + 180.0) % 360.0 - 180.0)


def mirror_symmetry(pictures: F32, centre: float) -> F64:
    """Correlation of pictures (N, H, W) with their mirror image about column ``centre``: (N,), -1 to 1."""
    width = pictures.shape[2]
    reach = int(min(centre, width - 1 - centre))
    if reach < 2:
        return np.zeros(len(pictures))
    offsets = np.arange(1, reach + 1)
    right, left = _columns(pictures, centre + offsets), _columns(pictures, centre - offsets)
    right = right - right.mean(axis=(1, 2), keepdims=True)
    left = left - left.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((right**2).sum(axis=(1, 2)) * (left**2).sum(axis=(1, 2))) + 1e-9
    result: F64 = ((right * left).sum(axis=(1, 2)) / norm).astype(np.float64)
    return result


def _columns(pictures: F32, at: F64) -> F32:
    low = np.clip(np.floor(at).astype(np.intp), 0, pictures.shape[2] - 2)
    part = (at - low).astype(np.float32)
    mixed: F32 = pictures[:, :, low] * (1 - part) + pictures[:, :, low + 1] * part
    return mixed


BINS = 180

RING = 480

PIXELS = 1200

SEARCH = 0.12


@dataclass(slots=True)
class RotationTracker:
    """Follows the rotation. ``hz`` is the best known speed, ``angle`` the azimuth (deg) of the next frame."""

    nominal_hz: float
    fps: float
    hz: float
    hz_sigma: float = math.nan
    angle: float = 0.0
    last_angles: F64 = field(default_factory=lambda: np.empty(0))
    every: int = 1
    frames: int = 0
    ring: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    pictures: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    profiles: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    seen: F64 = field(default_factory=lambda: np.zeros(BINS))
    intensity: F64 = field(default_factory=lambda: np.full(BINS, np.nan))
    variance: F64 = field(default_factory=lambda: np.zeros(BINS))
    shape: tuple[int, ...] = ()
    centre: float = math.nan
    turn: int = 0
    next_refine: int = 0
    found: list[View] = field(default_factory=list)
    known: dict[int, View] = field(default_factory=dict)
    next_view: int = 0
    factor: int = 1
    turn_sum: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    turn_frames: int = 0
    whole_turns: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @classmethod
    def at(cls, rpm: float, fps: float, next_view: int = 0) -> RotationTracker:
        """Make a tracker for a nominal speed in rotations a minute; views are numbered from ``next_view`` on."""
        hz = rpm / 60.0
        # 2.3 turns have to fit into the ring of pictures that the speed is told from
        every = max(1, math.ceil(2.3 * fps / hz / RING))
        return cls(hz, fps, hz, every=every, next_view=next_view)

    def piece(self, frames: Frames, features: FrameFeatures, centre: float) -> None:
        """Take in frames (N, H, W) of which the specular column is ``centre``."""
        n = len(frames)
        before = self.last_angles[-1] if len(self.last_angles) else 0.0
        self.last_angles = (self.angle + 360.0 * self.hz / self.fps * np.arange(n)) % 360.0
        self.angle = (self.angle + 360.0 * self.hz / self.fps * n) % 360.0
        factor = bin_factor(frames.shape[1], frames.shape[2], PIXELS)
        small = binned(frames, factor)
        self.factor = factor
        self.shape, self.centre = small.shape[1:], centre / factor - 0.5 + 0.5 / factor
        flat = small.reshape(n, -1)
        picked = flat[(-self.frames) % self.every :: self.every]
        self.frames += n
        if len(picked):
            self._keep(picked)
        self._fill_bins(flat, features)
        begins = np.flatnonzero(np.diff(self.last_angles, prepend=before) < 0)
        for part in np.split(flat, begins)[:-1]:
            self._add_to_turn(part)
            self._close_turn()
        self._add_to_turn(flat[begins[-1] if len(begins) else 0 :])

    def _add_to_turn(self, flat: F32) -> None:
        total = flat.sum(axis=0)
        self.turn_sum = self.turn_sum + total if self.turn_sum.shape == total.shape else total
        self.turn_frames += len(flat)

    def _close_turn(self) -> None:
        if self.turn_frames > 0.98 * self.fps / self.hz:
            mean = (self.turn_sum / np.float32(self.turn_frames))[None]
            base = self.whole_turns if self.whole_turns.shape[1:] == mean.shape[1:] else mean[:0]
            self.whole_turns = np.concatenate([base, mean])
        self.drop_turn()

    def drop_turn(self) -> None:
        """Forget the turn begun: frames of it are missing, or the light stepped."""
        self.turn_sum, self.turn_frames = self.turn_sum[:0], 0

    def _keep(self, picked: F32) -> None:
        unit = picked - picked.mean(axis=1, keepdims=True)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True) + 1e-6
        base = self.ring if self.ring.shape[1:] == unit.shape[1:] else unit[:0]
        self.ring = np.concatenate([base, unit])[-RING:]

    def _fill_bins(self, flat: F32, features: FrameFeatures) -> None:
        if self.pictures.shape[1:] != flat.shape[1:]:
            self.pictures = np.zeros((BINS, flat.shape[1]), np.float32)
            self.profiles = np.zeros((BINS, features.profiles.shape[1]), np.float32)
        bright = features.boxes["specular"].intensity
        for i, place in enumerate((self.last_angles * BINS / 360.0).astype(np.intp) % BINS):
            fresh = self.seen[place] == 0
            share = np.float32(1.0 if fresh else 0.15)
            self.pictures[place] += share * (flat[i] - self.pictures[place])
            self.profiles[place] += share * (features.profiles[i] - self.profiles[place])
            change = bright[i] - (bright[i] if fresh else self.intensity[place])
            self.intensity[place] = bright[i] if fresh else self.intensity[place] + share * change
            self.variance[place] = 0.0 if fresh else (1 - share) * (self.variance[place] + share * change**2)
            self.seen[place] += 1

    def skip(self, n_frames: int) -> None:
        """Pass over missing frames."""
        self.angle = (self.angle + 360.0 * self.hz / self.fps * n_frames) % 360.0
        self.ring = self.ring[:0]
        self.drop_turn()

    def slow(self, now: float, scene: PatternTrackers) -> list[Event]:
        """Refine the speed when two turns are in the ring; find views and changes once a turn."""
        events: list[Event] = []
        if self.frames >= self.next_refine and len(self.ring) * self.every * self.hz / self.fps > 1.2:
            self.next_refine = self.frames + round(0.5 * self.fps / self.hz)
            events = self._refine(now)
        turn = int(self.frames * self.hz / self.fps)
        if turn > self.turn:
            self.turn = turn
            self._find_views(scene)
        if events:
            scene.change.restart()
            self.drop_turn()
        return [*events, *self._changes(now, scene)]

    def _changes(self, now: float, scene: PatternTrackers) -> list[Event]:
        """Compare whole turns: their mean pictures do not depend on the azimuth."""
        y, x = (scene.spot.y - scene.pattern.y) / self.factor, (scene.spot.x - scene.pattern.x) / self.factor
        turns, self.whole_turns = self.whole_turns, self.whole_turns[:0]
        return [e for turn in turns for e in scene.change.feed(now, turn.reshape(self.shape), (y, x))]

    def _refine(self, now: float) -> list[Event]:
        lag, sigma = repeat_lag(self.ring, self.fps / self.every / self.nominal_hz)
        if not math.isfinite(lag):
            return []
        hz = self.fps / self.every / lag
        before, self.hz_sigma = self.hz, hz * sigma / lag
        # the nominal speed is exact where the pictures agree with it: a motor's setting beats a parabola
        self.hz = self.nominal_hz if abs(hz - self.nominal_hz) < max(2.0 * self.hz_sigma, 0.004 * hz) else hz
        if abs(self.hz / before - 1.0) < 0.01:
            return []
        self.seen[:] = 0
        self.found, self.known = [], {}  # azimuths told at a wrong speed are none of those to come
        return [
            Event(now, "rotation_refined", f"the substrate turns at {60 * self.hz:.4g} rpm", 60 * self.hz)
        ]

    def _find_views(self, scene: PatternTrackers) -> None:
        """Views: the azimuths of highest mirror symmetry about the specular column."""
        seen = self.seen > 0
        if not is_whole_turn(seen):
            return
        symmetry = mirror_symmetry(self.pictures.reshape(BINS, *self.shape), self.centre)
        self.found = []
        for place in view_places(symmetry, seen):
            self.found.append(self._view(place, float(np.clip(symmetry[place], 0.0, 1.0)), scene))
        self.known.update({view.view_id: view for view in self.found})

    def _number(self, angle: float) -> int:
        number = known_as(angle, self.known, {view.view_id for view in self.found})
        if number is None:
            number, self.next_view = self.next_view, self.next_view + 1
        return number

    def _view(self, place: int, confidence: float, scene: PatternTrackers) -> View:
        angle = (place + 0.5) * 360.0 / BINS
        number = self._number(angle)
        turns = self.known[number].turns + 1 if number in self.known else 1
        pattern = scene.pattern
        profile = self.profiles[place].astype(np.float64)
        spacing = find_spacing(profile, scene.spot.x, min(pattern.fwhm_x, 8.0))
        comb = (
            fit_comb(profile, scene.spot.x, spacing, min(0.7 * pattern.fwhm_x, 0.3 * spacing))
            if spacing
            else None
        )
        value = (
            measured(comb.spacing, comb.sigma, "px")
            if comb
            else undetermined("no streak pair in this view", "px")
        )
        return View(number, angle, confidence, value, float(self.intensity[place]), turns)

    def views(self) -> tuple[View, ...]:
        """Views found in the last turn."""
        return tuple(self.found)

    def rpm(self) -> Measurement:
        """Speed in rotations a minute."""
        if not math.isfinite(self.hz_sigma):
            return measured(60 * self.hz, None, "1/min", "as set; not yet confirmed by the pictures")
        return measured(60 * self.hz, 60 * self.hz_sigma, "1/min")


def repeat_lag(ring: F32, nominal: float) -> tuple[float, float]:
    """Lag (pictures, sub-sample) near ``nominal`` at which a series of unit pictures (N, P) repeats, and its sigma.

    NaN where the series shows no repeat.
    """
    low, high = math.floor(nominal * (1 - SEARCH)), math.ceil(nominal * (1 + SEARCH))
    high = min(high, len(ring) - 8)
    if high - low < 3:
        return math.nan, math.nan
    gram = ring @ (ring - ring.mean(axis=0)).T
    lags = np.arange(low, high + 1)
    score = np.array([float(np.diagonal(gram, int(k)).mean()) for k in lags])
    # the border may rise towards the repeat of an n-fold surface: only true maxima count
    inner = np.flatnonzero((score[1:-1] >= score[:-2]) & (score[1:-1] > score[2:])) + 1
    spread = float(np.median(np.abs(np.diff(score)))) + 1e-12
    if len(inner) == 0 or score[inner].max() - np.median(score) < 2.0 * spread:
        return math.nan, math.nan
    best = int(inner[np.argmax(score[inner])])
    reach = slice(max(0, best - 2), best + 3)
    a, b, _ = np.polyfit(lags[reach] - lags[best], score[reach], 2)
    if a >= 0:
        return math.nan, math.nan
    return float(lags[best] - b / (2 * a)), 0.15
