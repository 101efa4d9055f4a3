"""Detection of pattern changes: drift-corrected, normalised pictures, incremental PCA, CUSUM test and clustering.

Incremental principal components of the recent pictures describe growth oscillation and slow trends; what they do not
describe is tested. While the substrate rotates, a picture is the mean of a whole turn, which does not depend on the
azimuth. The threshold follows from the mean interval between false alarms by Siegmund's approximation of the average
run length (D. Siegmund, Sequential Analysis, 1985). Clustering of RHEED pictures: R. K. Vasudevan et al., ACS Nano 8,
10899 (2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.optimize import brentq

from atomstream.analysis.pattern import Pattern
from atomstream.analysis.pictures import MAX_HIDDEN, bridge, correlation, hidden_part
from atomstream.analysis.regions import bin_factor, block_means
from atomstream.results import F32, F64, Event

# Online k-means clustering of pictures.

MAX_CLUSTERS = 12

NEW_CLUSTER_DISTANCE = 0.2
"""Distance between unit pictures beyond which a picture begins a new cluster; equals a correlation of 0.98."""

MAX_CLUSTER_WEIGHT = 200.0
"""Largest weight of a centre against a new picture, so that centres follow slow drifts."""


@dataclass(slots=True)
class Clusters:
    """Cluster centres (K, P); the row number of a centre is its id, which stays the same for the whole stream."""

    centres: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    counts: list[float] = field(default_factory=list)
    variances: list[float] = field(default_factory=list)

    def assign(self, vector: F32) -> tuple[int, float]:
        """Assign a unit picture (P,) to a cluster; return its id and the RMS distance of its members."""
        if self.centres.shape[1:] != vector.shape:
            self.centres, self.counts, self.variances = vector[None][:0], [], []
        squared = ((self.centres - vector) ** 2).sum(axis=1)
        nearest = int(np.argmin(squared)) if len(squared) else -1
        limit = NEW_CLUSTER_DISTANCE
        if nearest < 0 or (squared[nearest] > limit**2 and len(squared) < MAX_CLUSTERS):
            self.centres = np.concatenate([self.centres, vector[None]])
            self.counts.append(1.0)
            self.variances.append(0.0)
            return len(self.counts) - 1, 0.0
        self.counts[nearest] = min(self.counts[nearest] + 1.0, MAX_CLUSTER_WEIGHT)
        share = 1.0 / self.counts[nearest]
        self.variances[nearest] += share * (float(squared[nearest]) - self.variances[nearest])
        self.centres[nearest] += np.float32(share) * (vector - self.centres[nearest])
        return nearest, math.sqrt(max(0.0, self.variances[nearest]))


# Incremental principal component analysis: sequential Karhunen-Loeve update with running mean and forgetting factor
# (D. A. Ross, J. Lim, R.-S. Lin & M.-H. Yang, Int. J. Comput. Vis. 77, 125 (2008)). One update costs two products with
# the basis; no history of pictures is kept.

N_COMPONENTS = 8
"""Largest number of principal components."""


@dataclass(slots=True)
class Components:
    """Principal components of about the last ``memory`` pictures.

    ``mean`` (P,), ``basis`` (<= 8, P) with orthonormal rows and their singular ``values``. ``coordinates`` (N, 8)
    of recent pictures are transformed to each new basis, so that sign and rotation of the components do not matter.
    """

    memory: int = 40
    weight: float = 0.0
    mean: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    basis: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    values: F64 = field(default_factory=lambda: np.empty(0))
    coordinates: F64 = field(default_factory=lambda: np.empty((0, N_COMPONENTS)))

    def project(self, vector: F32) -> tuple[F64, float]:
        """Return the coordinates (8,) of a picture (P,), 0 for missing components, and its squared residual."""
        deviation = vector - self.mean
        coords = self.basis @ deviation
        outside = float(((deviation - coords @ self.basis) ** 2).sum())
        return _padded(coords.astype(np.float64)), outside

    def update(self, vector: F32) -> None:
        """Update mean and components with a picture (P,)."""
        if self.mean.shape != vector.shape:
            self.weight, self.mean = 1.0, vector.copy()
            self.basis, self.values = vector[None][:0], np.empty(0)
            self.coordinates = np.zeros((1, N_COMPONENTS))
            return
        keep = 1.0 - 1.0 / self.memory
        old_basis, weight = self.basis, keep * self.weight
        deviation = vector - self.mean
        moved = deviation / np.float32(weight + 1.0)
        self._update_basis(math.sqrt(weight / (weight + 1.0)) * deviation, math.sqrt(keep))
        self.weight, self.mean = weight + 1.0, self.mean + moved
        rotated = self.coordinates[:, : len(old_basis)] @ (old_basis @ self.basis.T).astype(np.float64)
        latest = self.basis @ (vector - self.mean)
        rows = np.concatenate(
            [rotated - (self.basis @ moved).astype(np.float64), latest[None].astype(np.float64)]
        )
        self.coordinates = np.stack([_padded(row) for row in rows[-self.memory :]])

    def _update_basis(self, deviation: F32, forgetting: float) -> None:
        """Update basis and singular values with one centred picture ``deviation`` (P,)."""
        coefficients = self.basis @ deviation
        residual = deviation - coefficients @ self.basis
        # Orthogonalise twice: rounding errors would add up over thousands of pictures.
        residual -= (self.basis @ residual) @ self.basis
        length = float(np.linalg.norm(residual))
        rows = np.concatenate([self.basis, (residual / np.float32(max(length, 1e-12)))[None]])
        small = np.zeros((len(rows), len(rows)))
        small[:-1, :-1] = np.diag(forgetting * self.values)
        small[-1] = [*coefficients, length]
        _, values, rotation = np.linalg.svd(small)
        significant = values[:N_COMPONENTS] > 1e-6 * max(float(values[0]), 1e-12)
        self.values = values[:N_COMPONENTS][significant]
        self.basis = (rotation[:N_COMPONENTS][significant] @ rows).astype(np.float32)


def _padded(row: F64) -> F64:
    full = np.zeros(N_COMPONENTS)
    full[: len(row)] = row
    return full


# Two-sided cumulative sum (CUSUM) test of several standardised series.

SLACK = 1.0
"""Reference value k of the CUSUM: best for shifts of two standard deviations."""

CLIP = 6.0
"""Deviates are limited to this, so that a single outlier raises no alarm."""


@dataclass(slots=True)
class Cusum:
    """Cumulative sums of upward and downward deviations, one of each per series."""

    up: F64 = field(default_factory=lambda: np.empty(0))
    down: F64 = field(default_factory=lambda: np.empty(0))

    def feed(self, deviates: F64, run_length: float) -> bool:
        """Add one standard normal deviate per series; return True if any sum passes the threshold.

        ``run_length`` is the mean number of calls between false alarms of all series together.
        """
        if self.up.shape != deviates.shape:
            self.up, self.down = np.zeros_like(deviates), np.zeros_like(deviates)
        z = np.clip(deviates, -CLIP, CLIP)
        self.up = np.maximum(0.0, self.up + z - SLACK)
        self.down = np.maximum(0.0, self.down - z - SLACK)
        limit = threshold(run_length * 2 * len(deviates))
        return bool(max(self.up.max(), self.down.max()) > limit)

    def reset(self) -> None:
        """Reset all sums to 0, for example after a change was reported."""
        self.up, self.down = self.up[:0], self.down[:0]


def threshold(run_length: float, slack: float = SLACK) -> float:
    """Return the threshold of a one-sided CUSUM for a mean run length to a false alarm (Siegmund 1985, eq. 2.57)."""

    def excess(h: float) -> float:
        b = 2.0 * slack * (h + 1.166)
        return (math.exp(b) - b - 1.0) / (2.0 * slack**2) - max(run_length, 10.0)

    return float(brentq(excess, 0.0, 40.0)) if excess(0.0) < 0 else 0.5


HISTORY = 40
"""Memory of the components, in pictures."""

MIN_BASELINE = 6
"""Fewest residuals from which the usual residual is known well enough for a test."""

LEARN_DELAY = 5
"""Delay, in pictures, before a picture updates the components. Without it, a change would become part of the components
before it is detected."""

BASELINE_PICTURES = 16
"""Number of last residuals that define the usual residual; the first, large ones soon drop out."""

MIN_LOG_SPREAD = 0.25
"""Least spread of the log residual: 28 % more residual is not a change, even with a quiet camera."""

MIN_CHANGE = 0.003
"""Least 1 - correlation with the usual picture: a smaller difference, even if significant, is not a change."""

JUMP_SCORE = 0.012
"""1 - correlation of successive pictures beyond which a lasting difference is a change, without any baseline."""

QUIET_PICTURES = 6
"""Quiet pictures required after a jump: more than in one period of an oscillation with such differences."""


@dataclass(slots=True)
class ChangeTracker:
    """Compares each picture with the recent ones.

    ``score`` is 1 - correlation with the mean of the last two pictures (0: equal, 1: uncorrelated), ``cluster`` the
    id of the present cluster (-1: none yet), ``cluster_distance`` the RMS distance of its members. ``false_alarm_s``
    is the mean time between false alarms of the drift test. ``delayed`` are pictures that have not updated the
    components yet.
    """

    false_alarm_s: float = 3600.0
    times: F64 = field(default_factory=lambda: np.empty(0))
    recent: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    delayed: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    components: Components = field(default_factory=lambda: Components(HISTORY))
    residual_logs: F64 = field(default_factory=lambda: np.empty(0))
    score: float = math.nan
    clusters: Clusters = field(default_factory=Clusters)
    cusum: Cusum = field(default_factory=Cusum)
    cluster: int = -1
    cluster_distance: float = math.nan
    holdoff_until: float = -math.inf
    before_jump: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    jump_time_s: float = math.nan
    jump_peak: float = 0.0
    quiet_count: int = 0

    def feed(
        self, now: float, picture: F32, moved: tuple[float, float], spot: Pattern | None = None
    ) -> list[Event]:
        """Add a mean picture (H, W) at time ``now`` (s); return an event if the pattern changed.

        ``moved`` (y, x) is the shift of the pattern in px since the start; it is corrected. The specular ``spot``,
        where it was at the start, is left out: its brightness oscillates with growth and with laser pulses.
        """
        vector = normalised(picture, moved, spot)
        if vector is None:
            return []
        if self.recent.shape[1:] != vector.shape:
            self._restart_baseline(vector[None][:0])
        self.cluster, self.cluster_distance = self.clusters.assign(vector)
        if len(self.times) == 0:
            self._append(now, vector)
            return []
        usual = self.recent.mean(axis=0)
        self.score = 1.0 - correlation(vector, usual)
        jump = self._is_lasting_jump(now, vector, usual)
        detected = jump | self._is_drift(vector)
        self._append(now, vector)
        if not detected or now < self.holdoff_until:
            return []
        step = float(np.median(np.diff(self.times))) if len(self.times) > 1 else 1.0
        self.holdoff_until = now + 4.0 * step
        self.cusum.reset()
        self.before_jump = self.before_jump[:0]
        self._restart_baseline(self.recent)
        return [Event(self.jump_time_s if jump else now, "change", "the pattern changed", self.score)]

    def restart(self) -> None:
        """Discard the baseline, because the light changed and with it the noise of the pictures."""
        self.cusum.reset()
        self._restart_baseline(self.recent[:0])
        self.before_jump = self.before_jump[:0]

    def _restart_baseline(self, pictures: F32) -> None:
        """Start a new baseline from the last pictures (N, P)."""
        self.times, self.recent = self.times[len(self.times) - len(pictures) :], pictures
        self.delayed = pictures[:0]
        self.components, self.residual_logs = Components(HISTORY), self.residual_logs[:0]
        for vector in pictures:
            self.components.update(vector)

    def _append(self, now: float, vector: F32) -> None:
        self.times = np.append(self.times, now)[-HISTORY:]
        self.recent = np.concatenate([self.recent, vector[None]])[-2:]
        self.delayed = np.concatenate([self.delayed, vector[None]])
        if len(self.delayed) > LEARN_DELAY or self.components.weight < 2:
            self.components.update(self.delayed[0])
            self.delayed = self.delayed[1:]

    def _is_lasting_jump(self, now: float, vector: F32, usual: F32) -> bool:
        """Return True if the picture jumped, is stable since, and differs from the one before the jump.

        This needs no baseline. Growth does not trigger it, for a large oscillation does not become stable.
        """
        if len(self.before_jump) == 0:
            if self.score > JUMP_SCORE:
                self.before_jump, self.jump_peak, self.jump_time_s, self.quiet_count = (
                    usual.copy(),
                    self.score,
                    now,
                    0,
                )
            return False
        if self.score > self.jump_peak:
            self.jump_peak, self.jump_time_s = self.score, now
        self.quiet_count = self.quiet_count + 1 if self.score < 0.25 * self.jump_peak else 0
        if self.quiet_count < QUIET_PICTURES:
            return False
        stays = 1.0 - correlation(vector, self.before_jump) > JUMP_SCORE
        self.before_jump = vector[:0]
        return stays

    def _is_drift(self, vector: F32) -> bool:
        """Return True if pictures leave the space of the recent ones: a new direction, or beyond the known range.

        Growth oscillates within a few components; this is not a change of the pattern.
        """
        if self.components.weight < 1.5:
            return False
        coords, cluster_distance = self.components.project(vector)
        usual, log_residual = self.residual_logs, math.log(cluster_distance + 1e-12)
        self.residual_logs = np.append(usual, log_residual)[-BASELINE_PICTURES:]
        if len(usual) < MIN_BASELINE:
            return False
        middle = float(np.median(usual))
        spread = max(1.4826 * float(np.median(np.abs(usual - middle))), MIN_LOG_SPREAD)
        # A residual that decreases, because the components adapt, is not a change.
        tests = [max((log_residual - middle) / spread, -1.0)]
        low, high = self.components.coordinates.min(axis=0), self.components.coordinates.max(axis=0)
        # Noise leaves the known range now and then; a slow trend does so at each picture, but only a little.
        beyond = np.maximum(coords - high, 0.0) - np.maximum(low - coords, 0.0)
        tests += [float(e) for e in beyond[:2] / (0.25 * (high - low)[:2] + 1e-9)]
        step = float(np.median(np.diff(self.times)))
        alarm = self.cusum.feed(np.array(tests), self.false_alarm_s / max(step, 1e-6))
        return alarm and 1.0 - correlation(vector, self.components.mean) > MIN_CHANGE


def normalised(picture: F32, moved: tuple[float, float], spot: Pattern | None = None) -> F32 | None:
    """Return a picture (H, W) binned to about 5000 px, shifted back, with zero mean and unit norm: (P,).

    The surroundings of the specular ``spot`` are bridged. None for a picture without contrast.
    """
    factor = bin_factor(*picture.shape)
    small = block_means(picture, factor)
    if max(abs(m) for m in moved) > 0.02 * factor:
        small = ndimage.shift(small, (-moved[0] / factor, -moved[1] / factor), order=1, mode="nearest")
    if spot is not None:
        rows = hidden_part(spot.y, spot.fwhm_y, len(small), factor)
        max_half = MAX_HIDDEN * small.shape[1] * factor
        bridge(small, rows, hidden_part(spot.x, spot.fwhm_x, small.shape[1], factor, max_half))
    vector = small.ravel() - small.mean()
    length = float(np.linalg.norm(vector))
    return None if length < 1e-6 else (vector / length).astype(np.float32)
