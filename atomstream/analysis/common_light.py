"""Is it the film that oscillates, or the light: does the background brighten and dim with the spot?

Mains hum and a shutter change the whole picture by one factor, and a camera slower than twice the mains shows the hum
at any slow frequency. Growth changes the spot; the background between the streaks hardly, and mostly against it.
"""

from __future__ import annotations

import math

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.arrays import F64
from atomstream.analysis.window import MAX_POINTS, cut_window, harmonics, rotation_points

LIGHT_SHARE = 0.35
"""Background's relative amplitude, in phase with the spot's, over the spot's: a camera's dark level leaves of the 1 of
hum some 0.7; growth has next to none."""

THE_LIGHT = "the whole picture brightens and dims with the spot: beam, mains hum or a shutter, not the film"


def light_share(t: F64, y: F64, background: F64, fit: varpro.Fit, rotation_hz: float) -> float:
    """How much of the oscillation ``fit`` of a spot's trace ``y`` (N,) at ``t`` (s) is in its background too: 0 to 1.

    Both are fitted at the fitted frequency and decay; the ratio of the relative amplitudes that are in phase.
    """
    span = fit.cycles / fit.frequency
    points = rotation_points(fit.frequency, span) if rotation_hz else MAX_POINTS
    columns = []
    for trace in (y, background):
        window = cut_window(t, trace / max(float(np.abs(trace).mean()), 1e-12), span, rotation_hz, points)
        basis = varpro.design(window.t, fit.frequency, fit.decay, varpro.Model(1, False))
        turning = harmonics(window.t, rotation_hz)
        basis = basis if turning is None else np.concatenate([basis, turning], axis=1)
        a, b = np.linalg.lstsq(basis, window.y, rcond=1e-6)[0][2:4]
        columns.append(complex(a, -b))
    spot, light = columns
    share = (light * spot.conjugate()).real / max(abs(spot) ** 2, 1e-300)
    return share if math.isfinite(share) else 0.0
