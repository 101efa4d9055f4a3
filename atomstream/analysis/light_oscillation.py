"""Oscillations of the light instead of the film: mains hum, a shutter, the beam's current.

They change the whole picture by one factor, and a camera slower than twice the mains frequency aliases the hum to any
slow frequency. Growth changes the spot, but hardly the background between the streaks, and mostly in antiphase.
"""

from __future__ import annotations

import math

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.linear_part import Model
from atomstream.analysis.varpro import (
    MAX_POINTS,
    cut_window,
    downsampled,
    rotation_harmonics,
    rotation_points,
)
from atomstream.results import F64

MAX_LIGHT_SHARE = 0.22
"""Relative amplitude of the background in phase with the spot, over that of the spot: about 0.7 for hum (less than 1
because of the camera's dark level), near 0 for growth. The limit is nearer to growth, since a false rate
is worse than none."""

LIGHT_OSCILLATES = (
    "the whole picture brightens and dims with the spot: beam, mains hum or a shutter, not the film"
)


def light_share(t: F64, y: F64, background: F64, fit: varpro.Fit, rotation_hz: float) -> float:
    """Return how much of the oscillation ``fit`` of a trace t (s), y (N,) is in its background too, about 0 to 1.

    Both are fitted with the frequency and decay of ``fit``. The result is the ratio of the relative amplitudes, for
    the part that is in phase.
    """
    span = fit.cycles / fit.frequency
    points = rotation_points(fit.frequency, span) if rotation_hz else MAX_POINTS
    columns = []
    for trace in (y, background):
        window = cut_window(t, trace / max(float(np.abs(trace).mean()), 1e-12), span, rotation_hz, points)
        basis = varpro.design(window.t, fit.frequency, fit.decay, Model(1, False))
        turning = rotation_harmonics(window.t, rotation_hz)
        basis = basis if turning is None else np.concatenate([basis, turning], axis=1)
        a, b = np.linalg.lstsq(basis, window.y, rcond=1e-6)[0][2:4]
        columns.append(complex(a, -b))
    spot, light = columns
    share = (light * spot.conjugate()).real / max(abs(spot) ** 2, 1e-300)
    return share if math.isfinite(share) else 0.0


MIN_INTERFERENCE = 0.12
"""Smallest amplitude of another oscillation of the light, relative to the spot's, that shifts a rate noticeably."""

INTERFERENCE_RANGE = (0.45, 1.8)
"""Range of the frequencies in which such another oscillation is searched, in units of the fitted frequency."""

MIN_LIGHT_LINE = 6.0
"""Smallest height of the line of the other oscillation in the background's spectrum, in units of the spectrum's
median."""

MIN_LINE_CYCLES = 2.5
"""Fewest oscillations of the light in a window."""

MAX_LINE_MISFIT = 0.7
"""Largest share of the background's variation that its oscillation leaves unexplained."""

MIN_SEPARATION = 0.3
"""Smallest difference of both frequencies, in oscillations per window: growth changes the background at its own
frequency, too."""


def interfering_light(t: F64, y: F64, background: F64, fit: varpro.Fit) -> float:
    """Return the frequency in Hz at which the light oscillates close to the fitted oscillation; 0.0 if it does not.

    The trace of the spot is ``t`` (s), ``y``; ``background`` is that of the rest of the picture, each (N,). Mains hum
    that a slow camera samples appears at any low frequency. It changes spot and background alike.
    """
    part = t >= fit.t_end - fit.span_s
    if part.sum() < 24:
        return 0.0
    at, spot = downsampled(t[part], y[part] / max(abs(float(y[part].mean())), 1e-12))
    light = downsampled(t[part], background[part] / max(abs(float(background[part].mean())), 1e-12))[1]
    basis = varpro.design(at, fit.frequency, fit.decay, Model(2, True), fit.drift)
    amplitude = math.hypot(*np.linalg.lstsq(basis, spot, rcond=1e-9)[0][3:5])
    rest = light - basis[:, :3] @ np.linalg.lstsq(basis[:, :3], light, rcond=1e-9)[0]
    taper = np.hanning(len(at) + 2)[1:-1]
    hz = np.fft.rfftfreq(4 * len(at), float(at[-1] - at[0]) / (len(at) - 1))
    spectrum = 2.0 * np.abs(np.fft.rfft(rest * taper, 4 * len(at))) / taper.sum()
    low, high = INTERFERENCE_RANGE
    near = np.flatnonzero((hz > low * fit.frequency) & (hz < high * fit.frequency))
    if len(near) == 0:
        return 0.0
    line = near[int(np.argmax(spectrum[near]))]
    clear = spectrum[line] > MIN_LIGHT_LINE * float(np.median(spectrum[1:]))
    apart = abs(float(hz[line]) - fit.frequency) * fit.span_s > MIN_SEPARATION
    strong = spectrum[line] > MIN_INTERFERENCE * amplitude
    if not (clear and apart and strong) or hz[line] * fit.span_s < MIN_LINE_CYCLES:
        return 0.0
    turn = 2.0 * math.pi * float(hz[line]) * (at - at[0])
    wave = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    missed = rest - wave @ np.linalg.lstsq(wave, rest, rcond=1e-9)[0]
    # A step of the light has a line in its spectrum, too, but is not an oscillation.
    return float(hz[line]) if float(missed @ missed) < MAX_LINE_MISFIT * float(rest @ rest) else 0.0
