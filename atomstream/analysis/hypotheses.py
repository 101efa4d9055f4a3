"""Explanations of an oscillation other than growth. This is the one place where it is decided whether it is growth.

Each explanation is a function that returns a reason if it holds. The window of a fit alone shows too few oscillations,
noise (white or coloured), a camera that is too slow, a shutter, a transient, the rotation, and an end of the
oscillation. What else was measured shows the light, the motion of the spot, the laser, and two readings that are
equally fair. The first reason is given to the user instead of a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from atomstream.analysis import varpro
from atomstream.analysis.evidence import (
    READING_CYCLES,
    exceeds_random_walk,
    explained_share,
    has_stopped,
    is_significant,
    is_two_level,
    larger_trend,
    rotation_overlap,
    second_reading,
    slow_reading,
    staircase_share,
)
from atomstream.analysis.laser import Laser
from atomstream.analysis.light_oscillation import (
    LIGHT_OSCILLATES,
    MAX_LIGHT_SHARE,
    interfering_light,
    light_share,
)
from atomstream.analysis.motion import MAX_MOTION_SHARE, SPOT_MOVES, motion_share
from atomstream.analysis.trace import IntensityTrace
from atomstream.analysis.varpro import Fit, Window, cut_window

MIN_CYCLES = 1.5
"""Fewest oscillations for a rate."""

MAX_ROTATION_OVERLAP = 1.6
"""Largest :func:`~atomstream.analysis.evidence.rotation_overlap` of a usable rate. With more, side bands of the
rotation shift the rate by about 1 % in simulated growths."""

STRONG_HARMONICS = 6
"""Number of rotation harmonics that are examined. Higher ones are weak, so their side bands do not shift the rate."""

TRANSIENT_DECAY = 1.5
"""Decay, in units of the frequency, beyond which an oscillation is a transient."""

MAX_FREQUENCY = 0.22
"""Largest oscillation frequency, in units of the sample rate: five samples per period."""

MAX_OVERTONE = 4.0
"""Largest amplitude of the second harmonic relative to the first. With more, the signal oscillates at twice the
frequency: a vibration of 6 Hz is not growth of 3 layers per second."""

MIN_PULSES_PER_LAYER = 4.0
"""Fewest laser pulses per layer: faster oscillations are not separated from the pulses."""


CAUTION_PERIODS = 2.0
"""Number of periods without another cause before a rate is given at about the frequency of an earlier other cause. A
weak cause is recognised in some fits only."""

CAUTION_RANGE = 1.3
"""Largest ratio of two frequencies that are about the same."""

CAUTION_CYCLES = 1.3
"""If a window holds this many times the oscillations of an earlier one, it is judged without the earlier verdict: it
separates frequencies and shapes that the shorter window could not."""


@dataclass(frozen=True, slots=True)
class OtherCause:
    """Another cause than growth, ``why``, of an oscillation of ``hz`` in a window of ``cycles`` up to ``time_s``."""

    why: str
    time_s: float
    hz: float
    cycles: float

    def holds_for(self, fit: Fit) -> bool:
        """Return True if a fit to no longer window shows about the same oscillation soon afterwards."""
        soon = fit.t_end - self.time_s < CAUTION_PERIODS / self.hz
        alike = 1.0 / CAUTION_RANGE < fit.frequency / self.hz < CAUTION_RANGE
        return soon and alike and fit.cycles < CAUTION_CYCLES * self.cycles


@dataclass(frozen=True, slots=True)
class Oscillating:
    """A fitted oscillation and its window."""

    window: Window
    fit: Fit


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else was measured while an oscillation was seen.

    ``trace`` holds the light and the spot's motion from ``start_s`` (s) on. ``laser`` holds the pulse rate;
    ``is_pulses`` is True if the oscillation may be one of pulses by its shape. ``known_hz`` is the rate of an earlier
    segment (0: none), ``rotation_hz`` that of the substrate (0: at rest).
    """

    trace: IntensityTrace
    start_s: float
    laser: Laser
    is_pulses: bool
    known_hz: float
    rotation_hz: float


def reason_against(window: Window, fit: Fit) -> str:
    """Return why a fit is not a measurement of growth; "" if growth is the best explanation of its window."""
    oscillation = Oscillating(window, fit)
    return next((reason for explain in EXPLANATIONS if (reason := explain(oscillation))), "")


def other_cause(fit: Fit, around: Surroundings) -> str:
    """Return what else caused a fitted oscillation; "" if only growth explains it."""
    causes = CAUSES_WHILE_TURNING if around.rotation_hz else CAUSES
    return next((reason for explain in causes if (reason := explain(fit, around))), "")


def _too_short(e: Oscillating) -> str:
    if e.fit.cycles >= MIN_CYCLES:
        return ""
    more = max((MIN_CYCLES - e.fit.cycles) / e.fit.frequency, 0.1)
    seen = math.floor(10.0 * e.fit.cycles) / 10.0  # rounded down, so that the message shows fewer than needed
    return f"only {seen:.1f} oscillations seen, {MIN_CYCLES} are needed; about {more:.2g} s more would help"


def _rotation(e: Oscillating) -> str:
    turns_hz = e.window.rotation_hz
    k = max(1, round(e.fit.frequency / turns_hz)) if turns_hz else 0
    if 0 < k <= STRONG_HARMONICS and rotation_overlap(e.window, e.fit) > MAX_ROTATION_OVERLAP:
        return f"the oscillation is too close to {k} times the rotation to be separated; another speed would help"
    return ""


def _unexplained(e: Oscillating) -> str:
    # A drift can look like one or two oscillations, but hardly like three.
    cycles = e.fit.cycles
    need = 0.92 if cycles < 2.0 else 0.88 if cycles < 2.5 else 0.85 if cycles < 4.0 else 0.65
    if e.window.nuisance is not None:
        need = max(need, 0.9)  # at half the rate, harmonics of rotation and growth can imitate each other
    if explained_share(e.window, e.fit) < need:
        return (
            f"no clear oscillation: the best fit explains {100 * max(0.0, e.fit.r2):.0f} % of the variation"
        )
    return ""


def _noise(e: Oscillating) -> str:
    if not is_significant(e.window, e.fit):
        return "no clear oscillation: noise alone could look like this in so few samples"
    if e.window.nuisance is None and not exceeds_random_walk(e.window, e.fit):
        return "no clear oscillation: a slow random drift could look like this"
    return ""


def _too_fast(e: Oscillating) -> str:
    rate = (len(e.window.t) - 1) / e.window.span_s
    if e.fit.frequency > MAX_FREQUENCY * rate or (
        e.window.nuisance is None and e.fit.overtone > MAX_OVERTONE
    ):
        return "the variation is too fast for this frame rate; a higher frame rate would help"
    return ""


def _shutter(e: Oscillating) -> str:
    flat = varpro.detrended(e.window.t, e.window.y, 0, e.window.nuisance)
    if is_two_level(flat, e.fit.r2):
        return "the trace switches between two levels (a shutter or an exposure step), it does not oscillate"
    if staircase_share(flat) > 0.6:
        return "the trace moves in steps (shutter, exposure or gain), it does not oscillate"
    return ""


def _stopped(e: Oscillating) -> str:
    return "the oscillation has stopped or changed within its last period" if has_stopped(e.fit) else ""


def _transient(e: Oscillating) -> str:
    if abs(e.fit.decay) > TRANSIENT_DECAY * e.fit.frequency:
        return "the variation decays within one oscillation: a transient, not layers"
    return ""


EXPLANATIONS: tuple[Callable[[Oscillating], str], ...] = (
    *(_too_short, _rotation, _unexplained, _noise, _too_fast, _shutter, _stopped, _transient),
)
"""All explanations by the window alone, in the order in which they are tried."""


def _light(fit: Fit, around: Surroundings) -> str:
    background = around.trace.with_background_since(around.start_s)
    return LIGHT_OSCILLATES if light_share(*background, fit, around.rotation_hz) > MAX_LIGHT_SHARE else ""


def _light_nearby(fit: Fit, around: Surroundings) -> str:
    hz = interfering_light(*around.trace.with_background_since(around.start_s), fit)
    if not hz:
        return ""
    return f"the light oscillates at {hz:.3g} Hz (mains hum?), too close to the oscillation of the spot"


def _motion(fit: Fit, around: Surroundings) -> str:
    motion = around.trace.with_motion_since(around.start_s)
    return SPOT_MOVES if motion_share(*motion, fit, around.rotation_hz) > MAX_MOTION_SHARE else ""


def _laser(fit: Fit, around: Surroundings) -> str:
    laser = around.laser
    if around.is_pulses:
        return (
            f"an oscillation of {fit.frequency:.3g} Hz has the shape of laser pulses; "
            "the period of a layer is not yet seen"
        )
    if laser.hz <= 0.0:
        return ""
    if fit.frequency * MIN_PULSES_PER_LAYER > laser.hz:
        return "the oscillation is not separated from the laser's pulses"
    if larger_trend(fit):
        return "a larger and slower change goes on: the period of a layer is not yet seen"
    return ""


def _second_reading(fit: Fit, around: Surroundings) -> str:
    if 0.9 < around.known_hz / fit.frequency < 1.1:
        return ""
    run_s = max(fit.span_s, min(fit.t_end - around.start_s, READING_CYCLES / fit.frequency))
    t, y = around.laser.removed(*around.trace.since(fit.t_end - run_s))
    other_hz = second_reading(cut_window(t, y, fit.span_s), fit) or slow_reading(cut_window(t, y, run_s), fit)
    if not other_hz:
        return ""
    low, high = sorted((fit.frequency, other_hz))
    return (
        f"{low:.3g} or {high:.3g} ML/s: every second oscillation differs, and the trace alone cannot show whether a "
        "layer is one oscillation or two; a known rate would help"
    )


CAUSES: tuple[Callable[[Fit, Surroundings], str], ...] = (
    *(_light, _light_nearby, _motion, _laser, _second_reading),
)
CAUSES_WHILE_TURNING: tuple[Callable[[Fit, Surroundings], str], ...] = (_light, _motion)
"""Other causes of an oscillation at rest and under rotation, in the order in which they are tried."""
