"""Laser of pulsed deposition: its pulse rate, found in the trace while it arrives, and the trace without the pulses."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atomstream.analysis.pulse_shape import pulse_evidence
from atomstream.analysis.pulses import find_pulse_rate, notch, pulse_train_rate
from atomstream.analysis.trace import IntensityTrace
from atomstream.analysis.varpro import Fit
from atomstream.results import F64

CHECK_S = (0.5, 4.0)
"""Interval of the search for a pulse rate, in s: at the start of a trace, and later."""

CHECK_SHARE = 0.25
"""Within these limits, the interval is this share of the trace's length, because the cost of a search grows with it."""

SLOW_TRACE_S = 120.0
"""Length of the trace in which a slow laser is searched, in s."""

PULSES_FOR_RATE = 2.8
"""Fewest pulses from whose shape their rate is taken."""

SLOWER_FACTOR = 2.0
"""An oscillation slower than a known laser by more than this factor is not one of its pulses."""

KEPT_S = 60.0
KEPT_PULSES = 30.0
"""Time in s, and number of pulses, after which a pulse rate that is no longer detected is reset; the longer one
counts."""


MIN_WAVE_EVIDENCE = 2.0
"""Logarithm of the likelihood ratio that a smooth wave must have over pulses, to be an oscillation of layers."""

CERTAIN_PULSES = 6.0
"""Logarithm of the likelihood ratio of pulses over a smooth wave with which their rate is taken for the laser's."""


@dataclass(frozen=True, slots=True)
class PulsesSeen:
    """Laser pulses at ``hz`` (Hz) that an oscillation may be; ``certain`` if it cannot be a smooth wave."""

    hz: float
    certain: bool


@dataclass(slots=True)
class Laser:
    """Pulse rate ``hz`` of the laser (0: none), last seen at ``seen_s`` (s)."""

    hz: float = 0.0
    seen_s: float = -math.inf
    next_check_s: float = 0.0

    def update(self, trace: IntensityTrace, start_s: float, now: float) -> None:
        """Search the pulses in the trace from ``start_s`` to ``now`` (s), every few seconds."""
        if now < self.next_check_s:
            return
        self.next_check_s = now + min(CHECK_S[1], max(CHECK_S[0], CHECK_SHARE * (now - start_s)))
        traces = (trace.raw_since(start_s), trace.since(max(start_s, now - SLOW_TRACE_S)))
        candidates = ((part, find_pulse_rate(*part)) for part in traces)
        # The cusps of layer growth have harmonics too, but are symmetric in time.
        found = next((hz for part, hz in candidates if hz and pulse_train_rate(*part, hz)), None)
        if found is None and self.hz:
            found = pulse_train_rate(*trace.since(now - 20.0), self.hz)
        if found is not None:
            self.hz, self.seen_s = found, now

    def pulses_in(self, fit: Fit, trace: IntensityTrace) -> PulsesSeen | None:
        """Return the pulses that a fitted oscillation may be, None if it is a wave.

        An oscillation that is much slower than the known pulse rate is none of its pulses.
        """
        if self.hz > SLOWER_FACTOR * fit.frequency:
            return None
        t, y = trace.since(fit.t_end - fit.span_s)
        hz = pulse_train_rate(t, y, fit.frequency)
        if hz is not None:
            return PulsesSeen(hz, True)
        evidence, hz = pulse_evidence(t, y, fit.frequency)
        return PulsesSeen(hz, evidence > CERTAIN_PULSES) if evidence > -MIN_WAVE_EVIDENCE else None

    def notice(self, fit: Fit, hz: float) -> bool:
        """Take the pulse rate ``hz`` (Hz) seen in the window of a fit; return True if there are enough pulses."""
        if fit.cycles < PULSES_FOR_RATE:
            return False
        self.hz, self.seen_s = hz, fit.t_end
        return True

    def expire(self, now: float) -> None:
        """Set the pulse rate to 0 if it was not detected for a long time before ``now`` (s)."""
        if self.hz and now - self.seen_s > max(KEPT_S, KEPT_PULSES / self.hz):
            self.hz = 0.0

    def removed(self, t: F64, y: F64) -> tuple[F64, F64]:
        """Return a trace t (s), y (N,) without the pulses; half a pulse period is missing at both ends."""
        return notch(t, y, self.hz) if self.hz > 0.0 and len(t) >= 32 else (t, y)
