"""Rotating substrate: refined rotation speed, azimuth of each frame, mean picture per azimuth, and views.

The nominal speed may be wrong by 10 %: the true speed is found from the lag at which pictures repeat. Where they
repeat at lags that fit no speed near the nominal one, it was stated wrongly, and nothing is computed with it.

A *view* is an azimuth at which the picture is mirror-symmetric about the specular column, that is, the beam lies in
a mirror plane of the surface. A view keeps its number while the sample turns, also if it is not found in some turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from atomstream.analysis.azimuth import matching_view
from atomstream.analysis.change import ChangeTracker
from atomstream.analysis.lattice import fit_comb
from atomstream.analysis.pattern import Pattern, find_spacing
from atomstream.analysis.pictures import hidden_part
from atomstream.analysis.regions import FrameFeatures, bin_factor, binned
from atomstream.analysis.repetition import FOLDS, repeat_lag, return_lag, turn_of
from atomstream.analysis.tracking import Tracker
from atomstream.records import Frames
from atomstream.results import F32, F64, Bool, Event, Measurement, View, measured, undetermined

BINS = 180
"""Azimuth bins of 2 degrees each."""

RING_SIZE = 480
"""Number of pictures in the ring buffer from which the speed is found."""

PIXELS = 1200
"""Largest number of pixels of a binned picture, about."""

SAME_SPEED = 0.03
"""Largest relative difference between the nearest repetition and a turn, both from the same pictures."""

MIN_TURNS = 1.6
"""Turns that must be filmed before another speed than the stated one is taken from an n-fold pattern."""

MISFITS = 2
"""Number of searches in a row in which the pictures must contradict the stated speed."""

MAX_VIEWS = 12

MAX_GAP_DEG = 8.0
"""Largest gap between filmed azimuths, in degrees. Views are a few degrees wide: one could lie unseen in a wider
gap."""


@dataclass(slots=True)
class RotationTracker:
    """Follows the rotation of the substrate.

    ``hz`` is the best known speed (turns per second), ``angle`` the azimuth (deg) of the next frame and
    ``last_angles`` (N,) those of the last piece. ``ring`` (M, P) holds every ``ring_step``-th picture, normalised.
    For each of the :data:`BINS` azimuth bins there are ``frames_per_bin`` and exponential means of the binned
    ``pictures``, the streak ``profiles``, the specular ``intensity`` and its ``variance``.
    ``turn_means`` are mean pictures of whole turns. ``reason`` is a sentence about a stated speed that the pictures
    contradict, "" if they do not; ``misfits`` is the number of searches in a row that contradict it.
    """

    nominal_hz: float
    fps: float
    hz: float
    hz_sigma: float = math.nan
    angle: float = 0.0
    last_angles: F64 = field(default_factory=lambda: np.empty(0))
    ring_step: int = 1
    frame_count: int = 0
    ring: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    pictures: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    profiles: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    frames_per_bin: F64 = field(default_factory=lambda: np.zeros(BINS))
    intensity: F64 = field(default_factory=lambda: np.full(BINS, np.nan))
    variance: F64 = field(default_factory=lambda: np.zeros(BINS))
    shape: tuple[int, ...] = ()
    centre: float = math.nan
    turn: int = 0
    next_refine: int = 0
    current_views: list[View] = field(default_factory=list)
    known_views: dict[int, View] = field(default_factory=dict)
    next_view_id: int = 0
    binning: int = 1
    turn_sum: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    turn_frames: int = 0
    misfits: int = 0
    reason: str = ""
    turn_means: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @classmethod
    def for_speed(cls, rpm: float, fps: float, next_view_id: int = 0) -> RotationTracker:
        """Make a tracker for a nominal speed of ``rpm`` (1/min); new views are numbered from ``next_view_id`` on."""
        hz = rpm / 60.0
        # 2.3 turns must fit into the ring buffer from which the speed is found.
        ring_step = max(1, math.ceil(2.3 * fps / hz / RING_SIZE))
        return cls(hz, fps, hz, ring_step=ring_step, next_view_id=next_view_id)

    def feed(self, frames: Frames, features: FrameFeatures, centre: float) -> None:
        """Add frames (N, H, W) and their features; ``centre`` is the specular column in px."""
        n = len(frames)
        before = self.last_angles[-1] if len(self.last_angles) else 0.0
        self.last_angles = (self.angle + 360.0 * self.hz / self.fps * np.arange(n)) % 360.0
        self.angle = (self.angle + 360.0 * self.hz / self.fps * n) % 360.0
        factor = bin_factor(frames.shape[1], frames.shape[2], PIXELS)
        small = binned(frames, factor)
        self.binning = factor
        self.shape, self.centre = small.shape[1:], centre / factor - 0.5 + 0.5 / factor
        flat = small.reshape(n, -1)
        picked = flat[(-self.frame_count) % self.ring_step :: self.ring_step]
        self.frame_count += n
        if len(picked):
            self._append_to_ring(picked)
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
            base = self.turn_means if self.turn_means.shape[1:] == mean.shape[1:] else mean[:0]
            self.turn_means = np.concatenate([base, mean])
        self.discard_turn()

    def discard_turn(self) -> None:
        """Discard the sum of the current turn: frames of it are missing, or the light stepped."""
        self.turn_sum, self.turn_frames = self.turn_sum[:0], 0

    def _append_to_ring(self, picked: F32) -> None:
        unit = picked - picked.mean(axis=1, keepdims=True)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True) + 1e-6
        base = self.ring if self.ring.shape[1:] == unit.shape[1:] else unit[:0]
        self.ring = np.concatenate([base, unit])[-RING_SIZE:]

    def _fill_bins(self, flat: F32, features: FrameFeatures) -> None:
        if self.pictures.shape[1:] != flat.shape[1:]:
            self.pictures = np.zeros((BINS, flat.shape[1]), np.float32)
            self.profiles = np.zeros((BINS, features.profiles.shape[1]), np.float32)
        bright = features.boxes["specular"].intensity
        for i, place in enumerate((self.last_angles * BINS / 360.0).astype(np.intp) % BINS):
            is_first = self.frames_per_bin[place] == 0
            share = np.float32(1.0 if is_first else 0.15)
            self.pictures[place] += share * (flat[i] - self.pictures[place])
            self.profiles[place] += share * (features.profiles[i] - self.profiles[place])
            change = bright[i] - (bright[i] if is_first else self.intensity[place])
            self.intensity[place] = bright[i] if is_first else self.intensity[place] + share * change
            self.variance[place] = (
                0.0 if is_first else (1 - share) * (self.variance[place] + share * change**2)
            )
            self.frames_per_bin[place] += 1

    def skip(self, n_frames: int) -> None:
        """Skip ``n_frames`` missing frames: the azimuth advances, the ring buffer starts again."""
        self.angle = (self.angle + 360.0 * self.hz / self.fps * n_frames) % 360.0
        self.ring = self.ring[:0]
        self.discard_turn()

    def update(self, now: float, pattern: Pattern, spot: Tracker, change: ChangeTracker) -> list[Event]:
        """Refine the speed each half turn; find views and compare pictures once a turn. Return new events."""
        events: list[Event] = []
        if (
            self.frame_count >= self.next_refine
            and len(self.ring) * self.ring_step * self.hz / self.fps > 1.2
        ):
            self.next_refine = self.frame_count + round(0.5 * self.fps / self.hz)
            events = self._refine(now, self._hidden(pattern, spot))
        turn = int(self.frame_count * self.hz / self.fps)
        if turn > self.turn:
            self.turn = turn
            self._find_views(pattern, spot)
        if events:
            change.restart()
            self.discard_turn()
        return [*events, *self._compare_turns(now, pattern, spot, change)]

    def _compare_turns(
        self, now: float, pattern: Pattern, spot: Tracker, change: ChangeTracker
    ) -> list[Event]:
        """Search for changes in the mean pictures of whole turns, which do not depend on the azimuth."""
        y, x = (spot.y - pattern.y) / self.binning, (spot.x - pattern.x) / self.binning
        turns, self.turn_means = self.turn_means, self.turn_means[:0]
        return [e for turn in turns for e in change.feed(now, turn.reshape(self.shape), (y, x))]

    def _refine(self, now: float, hidden: Bool) -> list[Event]:
        """Find the speed from the pictures; the ``hidden`` pixels (P,) are those of the specular spot."""
        step_s = self.ring_step / self.fps
        lag, sigma = repeat_lag(self.ring, 1.0 / (step_s * self.nominal_hz))
        returned = return_lag(self.ring, hidden)
        if returned is not None:
            turn_s = turn_of(returned * step_s, 1.0 / self.nominal_hz)
            if turn_s is None:
                return self._contradict(now, returned * step_s)
            self.misfits = 0
            if (
                abs(turn_s * self.nominal_hz - 1.0) > SAME_SPEED
                and MIN_TURNS * turn_s > len(self.ring) * step_s
            ):
                return []  # a turn of 4 returns instead of 3, or of 6 instead of 4, is not excluded yet
            if self.reason:
                self.reason = ""
                self._discard_azimuths()
            if not abs(lag * step_s / turn_s - 1.0) < SAME_SPEED:
                lag, sigma = turn_s / step_s, 0.3
        if not math.isfinite(lag):
            return []
        hz = 1.0 / (step_s * lag)
        before, self.hz_sigma = self.hz, hz * sigma / lag
        # Where the pictures agree with the nominal speed, the nominal one is used: a motor is more exact than the fit.
        self.hz = self.nominal_hz if abs(hz - self.nominal_hz) < max(2.0 * self.hz_sigma, 0.004 * hz) else hz
        if abs(self.hz / before - 1.0) < 0.01:
            return []
        self._discard_azimuths()
        return [
            Event(now, "rotation_refined", f"the substrate turns at {60 * self.hz:.4g} rpm", 60 * self.hz)
        ]

    def _contradict(self, now: float, return_s: float) -> list[Event]:
        """Note that the pattern returns after a time in s that does not fit the stated speed; return a new event."""
        self.misfits += 1
        if self.misfits < MISFITS or self.reason:
            return []
        stated = 60.0 * self.nominal_hz
        speeds = (60.0 / (fold * return_s) for fold in FOLDS)
        first, second = sorted(speeds, key=lambda rpm: abs(math.log(rpm / stated)))[:2]
        self.reason = (
            f"the pattern returns after about {return_s:.3g} s, which does not fit the stated {stated:.4g} rpm, "
            f"but for example {first:.3g} or {second:.3g} rpm: set the rotation"
        )
        self._discard_azimuths()
        return [Event(now, "rotation_seen", self.reason, 1.0 / return_s)]

    def _discard_azimuths(self) -> None:
        """Discard the pictures by azimuth and the views: azimuths from a wrong speed are wrong."""
        self.frames_per_bin[:] = 0
        self.current_views, self.known_views = [], {}

    def _hidden(self, pattern: Pattern, spot: Tracker) -> Bool:
        """Return which pixels (P,) of a binned picture the specular spot covers."""
        hidden = np.zeros(self.shape, dtype=bool)
        rows = hidden_part(spot.y, pattern.fwhm_y, self.shape[0], self.binning)
        hidden[rows, hidden_part(spot.x, pattern.fwhm_x, self.shape[1], self.binning)] = True
        return hidden.ravel()

    def _find_views(self, pattern: Pattern, spot: Tracker) -> None:
        """Find the azimuths of highest mirror symmetry about the specular column."""
        seen = self.frames_per_bin > 0
        if self.reason or not covers_whole_turn(seen):
            return
        symmetry = mirror_symmetry(self.pictures.reshape(BINS, *self.shape), self.centre)
        self.current_views = []
        for place in find_view_bins(symmetry, seen):
            self.current_views.append(
                self._make_view(place, float(np.clip(symmetry[place], 0.0, 1.0)), pattern, spot)
            )
        self.known_views.update({view.view_id: view for view in self.current_views})

    def _view_id(self, angle: float) -> int:
        number = matching_view(angle, self.known_views, {view.view_id for view in self.current_views})
        if number is None:
            number, self.next_view_id = self.next_view_id, self.next_view_id + 1
        return number

    def _make_view(self, place: int, confidence: float, pattern: Pattern, spot: Tracker) -> View:
        angle = (place + 0.5) * 360.0 / BINS
        number = self._view_id(angle)
        turns = self.known_views[number].turns + 1 if number in self.known_views else 1
        profile = self.profiles[place].astype(np.float64)
        spacing = find_spacing(profile, spot.x, min(pattern.fwhm_x, 8.0))
        comb = (
            fit_comb(profile, spot.x, spacing, min(0.7 * pattern.fwhm_x, 0.3 * spacing)) if spacing else None
        )
        value = (
            measured(comb.spacing, comb.sigma, "px")
            if comb
            else undetermined("no streak pair in this view", "px")
        )
        return View(number, angle, confidence, value, float(self.intensity[place]), turns)

    def views(self) -> tuple[View, ...]:
        """Return the views found in the last whole turn."""
        return tuple(self.current_views)

    def rpm(self) -> Measurement:
        """Return the speed in 1/min; its uncertainty is None until the pictures confirmed it."""
        if self.reason:
            return undetermined(self.reason, "1/min")
        if not math.isfinite(self.hz_sigma):
            return measured(60 * self.hz, None, "1/min", "as set; not yet confirmed by the pictures")
        return measured(60 * self.hz, 60 * self.hz_sigma, "1/min")


def covers_whole_turn(seen: Bool) -> bool:
    """Return True if the filmed azimuth bins ``seen`` (bins,) leave no gap in which a view would be missed."""
    bins = np.flatnonzero(seen)
    if len(bins) < 3:
        return False
    gaps = np.diff(bins, append=bins[0] + len(seen))
    return bool(gaps.max() * 360.0 <= MAX_GAP_DEG * len(seen))


def find_view_bins(symmetry: F64, seen: Bool) -> list[int]:
    """Return the bins of the sharpest maxima of the symmetry (bins,), the sharpest first, at most 12.

    Only ``seen`` bins count. Bins that were not filmed are interpolated around the turn, for slow cameras.
    """
    bins = np.flatnonzero(seen)
    whole = np.interp(np.arange(len(seen)), bins, symmetry[bins], period=len(seen))
    # A view is a sharp maximum; elsewhere the symmetry changes slowly with the azimuth.
    sharp = whole - ndimage.median_filter(whole, 15, mode="wrap")
    peak = ndimage.maximum_filter1d(sharp, 9, mode="wrap") == sharp
    noise = 1.4826 * float(np.median(np.abs(sharp[bins]))) + 1e-9
    found = [int(i) for i in np.flatnonzero(peak & seen & (sharp > 4.0 * noise))]
    return sorted(found, key=lambda i: -float(sharp[i]))[:MAX_VIEWS]


def mirror_symmetry(pictures: F32, centre: float) -> F64:
    """Return the correlation (N,) of pictures (N, H, W) with their mirror image about column ``centre``, -1 to 1."""
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


def _columns(pictures: F32, for_speed: F64) -> F32:
    low = np.clip(np.floor(for_speed).astype(np.intp), 0, pictures.shape[2] - 2)
    part = (for_speed - low).astype(np.float32)
    mixed: F32 = pictures[:, :, low] * (1 - part) + pictures[:, :, low + 1] * part
    return mixed
