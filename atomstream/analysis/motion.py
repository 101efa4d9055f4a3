"""Motion of the spot: what a displacement does to the intensity in a box, and how much of an oscillation it explains.

Vibration, drift of the beam and magnetic fields move the spot at constant intensity. A box at rest then loses part of
the spot, at the frequency of the motion (box off the spot's centre) and at twice that frequency (box centred).
"""

from __future__ import annotations

import math

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.linear_part import Model
from atomstream.analysis.varpro import MAX_POINTS, cut_window, rotation_harmonics, rotation_points
from atomstream.results import F64

MAX_MOTION_SHARE = 1.0
"""Largest ratio of the motion's effect on a box at rest to an oscillation that is still taken for growth.

The box follows the spot, so only a part of the motion's effect can be left in the trace. An oscillation smaller than
the whole effect may therefore be what is left of it."""

SPOT_MOVES = (
    "the spot moves at this rate, by enough to explain the oscillation: vibration or drift, not the film"
)


def motion_share(t: F64, y: F64, motion: F64, fit: varpro.Fit, rotation_hz: float) -> float:
    """Return how much of the oscillation ``fit`` of a trace t (s), y (N,) the spot's motion could cause, 0 upwards.

    ``motion`` (N,) is the relative change of the intensity by the displacement in a box at rest; NaN: unknown. It is
    fitted with the decay of ``fit`` at its frequency and at twice that: where the position oscillates at the
    frequency of the fit, the loss of a centred box has twice the frequency, that of any other box the same one. The
    result is the ratio of the larger amplitude to the relative amplitude of the trace. It is 0 where the motion is
    unknown.
    """
    known = np.isfinite(motion)
    if known.sum() < 12:
        return 0.0
    span = fit.cycles / fit.frequency
    points = rotation_points(fit.frequency, span) if rotation_hz else MAX_POINTS
    relative = y / max(float(np.abs(y).mean()), 1e-12)

    def amplitude(samples: F64, hz: float) -> float:
        window = cut_window(t[known], samples[known], span, rotation_hz, points)
        basis = varpro.design(window.t, hz, fit.decay, Model(1, False))
        turning = rotation_harmonics(window.t, rotation_hz)
        basis = basis if turning is None else np.concatenate([basis, turning], axis=1)
        return math.hypot(*np.linalg.lstsq(basis, window.y, rcond=1e-6)[0][2:4])

    moved = max(amplitude(motion, fit.frequency), amplitude(motion, 2.0 * fit.frequency))
    share = moved / max(amplitude(relative, fit.frequency), 1e-300)
    return share if math.isfinite(share) else 0.0
