"""Online growth rate: fits of a sliding window, the end of growth, and the count of oscillations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from atomstream.analysis.continuation import (
    DOUBT_PERIODS,
    Continuation,
    compare,
    is_doubtful,
    onset_time,
    stop_time,
)
from atomstream.analysis.counts import Counts
from atomstream.analysis.evidence import is_uneven, walk_evidence
from atomstream.analysis.hypotheses import OtherCause, Surroundings, other_cause
from atomstream.analysis.illumination import CorrectedTrace
from atomstream.analysis.laser import Laser
from atomstream.analysis.layer_count import LayerCounter
from atomstream.analysis.oscillation import (
    TOO_SHORT,
    Change,
    analyse_trace,
    extends_to_start,
    rest_before_onset,
)
from atomstream.analysis.oscillation_result import Oscillation, undetermined_oscillation
from atomstream.analysis.timestamps import clock_uncertainty
from atomstream.analysis.trace import IntensityTrace, slowed
from atomstream.analysis.varpro import Fit, cut_window
from atomstream.results import F64, Measurement, measured, undetermined

HISTORY_STEP = 0.25
"""Interval, in periods, of the fits that are kept to predict the newest periods."""

HISTORY_FITS = 16
"""Number of fits that are kept."""

PREDICTION_AGE = 1.15
"""Age, in periods, of the fit that predicts the newest periods."""

CONFIRMED_PERIODS = 2.5
"""An end of growth is confirmed, and the segment ends there, when nothing oscillated for this many periods."""

MAX_WAIT_PERIODS = 1.3
"""While an oscillation may have ended, the last rate is kept for this many periods."""

CONFIRMED_CYCLES = 2.2
CONFIRMED_EVIDENCE = 20.0
"""A rate from fewer oscillations and with less evidence against a random walk, or under a pulsed laser, is given only
if the previous fit found the same rate."""

MAX_INCREASE = 0.2
INCREASE_CYCLES = 2.5
"""Largest increase of the amplitude (-decay, in units of the frequency) with which a rate from fewer oscillations than
this is given first. Layers on a smooth surface begin with their largest oscillation. An increase in few oscillations is
a rest or a longer first period before the growth, which shifts the rate by 5 to 20 %, or bumps without growth."""

MAX_BLANK_S = 7.0
"""Time without samples after which a rate is not kept, in s."""

VETO_REACH_S = 30.0
"""A rate that was found less than this time (s) before a ``veto`` is withdrawn too: its cause was probably the same."""

ROTATING_FIT_S = 1.9
"""Interval of the fits under rotation, in s; at rest it is half a second."""

SAME_RATE = 0.03
"""Largest relative difference of two rates that count as equal after an interruption."""


FoundKind: TypeAlias = Literal["growth_stopped", "growth_began", "rate_changed"]
"""Why a segment begins without a mark; the kind of its event, too."""


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """A segment whose end was found in the trace, without a mark.

    It lasts from ``start_s`` to ``end_s`` (s); ``next_kind`` is why the segment after it begins. If both times are
    equal, there is no such segment, and the present one gets another ``next_kind``.
    """

    start_s: float
    end_s: float
    rate: Measurement
    cycles: float
    counted: Measurement
    next_kind: FoundKind


@dataclass(slots=True)
class GrowthTracker:
    """Rate and oscillation count of the current segment.

    Call :meth:`feed` with corrected samples, :meth:`update` at about 2 Hz and :meth:`start_segment` at a mark of the
    user. ``segment_start_s`` is the start of the segment, ``onset_s`` that of the oscillation and ``search_start_s``
    that of the trace in which one is searched (s). ``latest`` is the last result, ``best`` the segment's. ``history``
    are recent fits. ``stopped_s`` is the time at which an oscillation of ``stopped_hz`` stopped or changed, NaN while
    it goes on; ``found`` are the segments that ended since the last call of :meth:`pop_found`. The count waits while
    it is ``doubtful`` whether the oscillation goes on; until ``trusted_s`` (s) it did. ``known_hz`` is the rate of an
    earlier segment (0: none). ``cause`` is the last other cause of an oscillation. ``count_note`` is a note on the
    count. While ``veto`` is not empty the rate is undetermined for this reason.
    """

    trace: IntensityTrace
    segment_start_s: float = 0.0
    onset_s: float = 0.0
    search_start_s: float = 0.0
    latest: Oscillation = field(default_factory=lambda: undetermined_oscillation(TOO_SHORT))
    best: Oscillation | None = None
    counts: Counts = field(default_factory=Counts)
    counted_before: float = 0.0
    history: list[Fit] = field(default_factory=list)
    stopped_s: float = math.nan
    stopped_hz: float = 0.0
    known_hz: float = 0.0
    found: list[FoundSegment] = field(default_factory=list)
    doubtful: bool = False
    doubtful_since_s: float = 0.0
    trusted_s: float = -math.inf
    unconfirmed_hz: float = 0.0
    cause: OtherCause | None = None
    laser: Laser = field(default_factory=Laser)
    count_note: str = ""
    veto: str = ""
    next_search_s: float = 0.0
    next_rotating_fit_s: float = 0.0
    last_fit_s: float = -math.inf
    newest_s: float = -math.inf

    @property
    def counter(self) -> LayerCounter:
        """The count since the last segment mark."""
        return self.counts.segment

    def feed(self, corrected: CorrectedTrace) -> None:
        """Add samples at the frame rate."""
        self.trace.feed(corrected.t, corrected.y, corrected.background, corrected.motion)

    def start_segment(self, time_s: float) -> None:
        """Begin a new segment at ``time_s``, at a mark of the user: the count begins at 0."""
        self.known_hz = float(self.best.rate) if self.best else self.known_hz
        self.segment_start_s = self.onset_s = self.search_start_s = time_s
        self.latest, self.best = undetermined_oscillation(TOO_SHORT), None
        self.counts.begin_segment(time_s)
        self.counted_before = 0.0
        self.history, self.found, self.count_note = [], [], ""
        self.stopped_s, self.stopped_hz = math.nan, 0.0
        self.doubtful, self.unconfirmed_hz, self.cause = False, 0.0, None
        self.next_search_s = 0.0

    def pop_found(self) -> list[FoundSegment]:
        """Remove and return the segments whose end was found since the last call."""
        found, self.found = self.found, []
        return found

    def update(self, now: float, rotation_hz: float = 0.0) -> Oscillation:
        """Repeat the fit if it is due at ``now`` (s) and return the latest result."""
        self.laser.expire(now)
        if self.veto:
            if self.best is not None and self.best.best and now - self.best.best.t_end < VETO_REACH_S:
                self.best = None
            self._interrupt(now, self.veto)
            return self.latest
        if rotation_hz and now < self.next_rotating_fit_s:
            return self._reported(now)  # a joint fit with the rotation costs ten times as much
        self.next_rotating_fit_s = now + ROTATING_FIT_S
        self.counts.set_fit_interval(1.0 + (ROTATING_FIT_S if rotation_hz else 0.0))
        self.trace.retune(self.trace.clock())
        if not rotation_hz:
            self.laser.update(self.trace, self.segment_start_s, now)
        if self.latest.determined and now < self.last_fit_s + 0.03 / float(self.latest.rate):
            return self._reported(now)  # another 3 % of a period changes a fit by less than its uncertainty
        t, y = self._notched(self.onset_s)
        self._watch_clock(t)
        if math.isfinite(self.newest_s) and now - self.newest_s > _longest_blank_s(self.latest.best):
            self.counts.end_run(self.newest_s)
            self._interrupt(now, f"no light or no frames since {self.newest_s:.1f} s")
        elif rotation_hz:
            self._update_rotating(now, rotation_hz)
        else:
            self._update_at_rest(now, t, y)
        if self.latest.best is not None and not self.doubtful:
            self.last_fit_s = now
            self._add_to_history(self.latest)
            self.counts.update(self.latest, self.onset_s)
            self.best = _better(self.best, self.latest)
        return self._reported(now)

    def _reported(self, now: float) -> Oscillation:
        """Return the latest result; the count at ``now`` (s) is reported with it, so later ones are not smaller."""
        waits = not self.latest.determined or self.doubtful
        self.counts.report(now, waits=waits, doubted_s=self._doubted_s)
        return self.latest

    def _interrupt(self, now: float, why: str) -> None:
        """End the run of growth because no rate can be given any more; samples up to ``now`` are not used again."""
        if self.latest.determined:
            self.counts.end_run(self.doubtful_since_s if self.doubtful else now)
        self.history, self.doubtful, self.unconfirmed_hz = [], False, 0.0
        self.stopped_s, self.stopped_hz = math.nan, 0.0
        self.onset_s = self.search_start_s = now
        self.latest = undetermined_oscillation(why)

    def _update_at_rest(self, now: float, t: F64, y: F64) -> None:
        before = self._prediction(float(t[-1])) if len(t) else None
        comparison = compare(before, t, y) if before is not None else None
        self._update_doubt(before, comparison, t, y)
        if before is not None and comparison is not None and not comparison.goes_on:
            self._stop(before, t, y, changed=comparison.oscillates)
        elif self._waits(now):
            return
        elif self.latest.determined:
            change = self._recent_change(comparison)
            self.latest = self._checked(self._fitted(t, y, float(self.latest.rate), change))
        if not self.latest.determined and now >= self.next_search_s:
            self._search(now)
        self._confirm_stop(now)

    def _watch_clock(self, t: F64) -> None:
        """Discard the earlier fits if late timestamps were corrected since then, because this changed their times."""
        if len(t) and t[-1] < self.newest_s - 1e-6:
            self.history = []
        self.newest_s = float(t[-1]) if len(t) else self.newest_s

    # The end of growth: an earlier fit does not predict the newest periods any more.

    def _update_doubt(self, before: Fit | None, comparison: Continuation | None, t: F64, y: F64) -> None:
        was_doubtful = self.doubtful
        self.doubtful = before is not None and before.t_end > self.trusted_s and is_doubtful(before, t, y)
        if was_doubtful:
            self.doubtful |= comparison is not None and not comparison.is_clear
            is_long = self.doubtful and not self._waits(float(t[-1]))
            if is_long and comparison is not None and comparison.goes_on:
                # The end of growth would be seen by now. The next doubt needs a fit that ends after this one.
                self.doubtful, self.trusted_s = False, float(t[-1])
        if self.doubtful and not was_doubtful:
            self.doubtful_since_s = float(t[-1])

    @property
    def _doubted_s(self) -> float:
        """Time (s) at which growth may have ended; NaN without a doubt."""
        if not (self.doubtful and self.latest.best is not None):
            return math.nan
        return self.doubtful_since_s - DOUBT_PERIODS / self.latest.best.frequency

    def _waits(self, now: float) -> bool:
        """Return True while it is doubtful whether growth goes on: a fit would follow its end with a changed rate."""
        return (
            self.doubtful
            and self.latest.best is not None
            and now - self.doubtful_since_s < MAX_WAIT_PERIODS / self.latest.best.frequency
        )

    def _recent_change(self, comparison: Continuation | None) -> Change:
        """Return what the last fit and the newest periods show about a change of the rate."""
        if self.latest.best is not None and self.latest.best.model.drifts:
            return "drift"
        return "none" if comparison is not None and comparison.is_exact else "unknown"

    def _prediction(self, now: float) -> Fit | None:
        """Return the newest fit that ended more than about a period before ``now`` (s)."""
        old = [f for f in self.history if f.t_end <= now - PREDICTION_AGE / f.frequency]
        return old[-1] if old else None

    def _add_to_history(self, result: Oscillation) -> None:
        """Add the best fit of a result to ``history``, with the uncertainty of the whole result."""
        fit = result.best
        assert fit is not None
        if not self.history or fit.t_end >= self.history[-1].t_end + HISTORY_STEP / fit.frequency:
            sigma_hz = math.hypot(result.rate.sigma or 0.0, float(result.rate) - fit.frequency)
            self.history = [*self.history[1 - HISTORY_FITS :], replace(fit, sigma_hz=sigma_hz)]

    def _stop(self, before: Fit, t: F64, y: F64, *, changed: bool) -> None:
        """End the run of growth where the trace stopped following the prediction by the fit ``before``.

        ``changed`` is True if it still oscillates, at another rate.
        """
        time_s = stop_time(before, t, y)
        self.counts.end_run(time_s, changed=changed)
        self.stopped_s, self.stopped_hz, self.onset_s = time_s, before.frequency, time_s
        self.history, self.next_search_s = [], 0.0
        self.latest = undetermined_oscillation(f"the oscillation stopped or changed at about {time_s:.1f} s")

    def _confirm_stop(self, now: float) -> None:
        """End the segment where growth stopped, when nothing oscillated since for some periods."""
        if self.stopped_hz > 0.0 and now - self.stopped_s > CONFIRMED_PERIODS / self.stopped_hz:
            self._end_segment(self.stopped_s, "growth_stopped")
            self.stopped_hz = 0.0

    def _end_segment(self, time_s: float, next_kind: FoundKind) -> None:
        """End the segment at ``time_s`` without a mark; the count goes on."""
        total = self.counter.value(time_s)
        rate = self.best.rate if self.best else self.latest.rate
        counted = (
            measured(total - self.counted_before, self.counter.sigma(time_s), "oscillations")
            if self.best
            else undetermined(rate.why, "oscillations")
        )
        cycles = self.best.cycles if self.best else 0.0
        self.found.append(FoundSegment(self.segment_start_s, time_s, rate, cycles, counted, next_kind))
        self.known_hz = float(self.best.rate) if self.best else self.known_hz
        self.segment_start_s = self.search_start_s = time_s
        self.best, self.counted_before = None, total

    # The search for an oscillation that is not known yet.

    def _search(self, now: float) -> None:
        start_s = self.search_start_s if math.isnan(self.stopped_s) else self.stopped_s
        # A search costs ten fits: without a result, the interval grows with the length of the segment.
        self.next_search_s = now + max(0.4, 0.03 * (now - start_s))
        t, y = self._notched(start_s)
        answer = self._checked(self._fitted(t, y))
        if not self._is_confirmed(answer, t, y):
            explained = self.cause is not None and self.cause.time_s > self.stopped_s
            if math.isnan(self.stopped_s) or explained:
                self.latest = answer if answer.best is None else _unconfirmed(answer)
            return
        assert answer.best is not None
        onset_s = onset_time(answer.best, t, y, float(t[0]))
        late = onset_s > float(t[0])
        if late:
            growing = t >= onset_s
            answer = self._checked(self._fitted(t[growing], y[growing], float(answer.rate)))
            if answer.best is None:  # a window with the rest before the growth gives a wrong rate
                self.unconfirmed_hz = 0.0
                self.latest = answer if math.isnan(self.stopped_s) else self.latest
                return
        self._resume(onset_s if late else start_s, late, float(answer.rate))
        self.latest = answer

    def _fitted(
        self, t: F64, y: F64, near_hz: float | None = None, change: Change = "unknown"
    ) -> Oscillation:
        """Search or fit the oscillation of a trace at rest without the laser's pulses."""
        return analyse_trace(t, y, near_hz, change=change, pulse_hz=self.laser.hz)

    def _is_confirmed(self, answer: Oscillation, t: F64, y: F64) -> bool:
        """Return True if a rate just found may be given: it is certain, or the previous fit found the same rate."""
        if answer.best is None:
            self.unconfirmed_hz = 0.0
            return False
        rate, sigma = float(answer.rate), answer.rate.sigma or 0.0
        last, self.unconfirmed_hz = self.unconfirmed_hz, rate
        if answer.cycles < INCREASE_CYCLES and -answer.best.decay > MAX_INCREASE * answer.best.frequency:
            return False
        window = cut_window(t, y, answer.span_s)
        if is_uneven(window, answer.best):
            return False
        if abs(rate - last) < 2.0 * sigma:
            return True
        if self.laser.hz > 0.0:
            return False
        if answer.cycles > CONFIRMED_CYCLES:
            return True
        return walk_evidence(window, answer.best) > CONFIRMED_EVIDENCE

    def _resume(self, onset_s: float, late: bool, hz: float) -> None:
        """Begin a run of growth at ``onset_s``; after an unmarked stop or change, a segment ends there."""
        self.onset_s = onset_s
        if math.isnan(self.stopped_s):
            return
        if self.stopped_hz > 0.0 and late:
            self._end_segment(self.stopped_s, "growth_stopped")
            self._end_segment(onset_s, "growth_began")
        elif self.stopped_hz <= 0.0:
            # There was no rest if the next oscillation begins where the last one ended.
            self._end_segment(onset_s, "growth_began" if late else "rate_changed")
        elif abs(hz / self.stopped_hz - 1.0) > SAME_RATE:
            self._end_segment(self.stopped_s, "rate_changed")
        self.stopped_s, self.stopped_hz = math.nan, 0.0

    # Under rotation: joint fits with the rotation's harmonics.

    def _update_rotating(self, now: float, rotation_hz: float) -> None:
        answer = self.latest
        if answer.determined:
            answer, _, _ = self._fit_rotating(self.onset_s, float(answer.rate), rotation_hz)
        if not answer.determined and now >= self.next_search_s:
            answer, t, started_late = self._fit_rotating(self.segment_start_s, None, rotation_hz)
            self.next_search_s = now + max(2.4, 0.03 * (now - self.segment_start_s))
            if answer.determined and not started_late:
                self.onset_s = self._rotating_onset(answer, t, rotation_hz)
        self.latest = answer

    def _fit_rotating(
        self, start_s: float, near_hz: float | None, rotation_hz: float
    ) -> tuple[Oscillation, F64, bool]:
        """Fit the trace from ``start_s`` on, or from the onset of the growth if that is later.

        Returns the result, the times of the samples (N,), and True if the growth began later.
        """
        started_late = False
        t, y = slowed(*self._notched(start_s))
        answer = analyse_trace(t, y, near_hz, rotation_hz)
        if answer.best is not None and _covers(answer, t, 0.95):
            rest_s = rest_before_onset(t, y, float(answer.rate), rotation_hz)
            if rest_s > 0:
                growing = t >= t[0] + rest_s
                refit = analyse_trace(t[growing], y[growing], float(answer.rate), rotation_hz)
                if refit.determined:
                    answer, self.onset_s, started_late = refit, float(t[0]) + rest_s, True
        return self._checked(answer, rotation_hz), t, started_late

    def _rotating_onset(self, answer: Oscillation, t: F64, rotation_hz: float) -> float:
        """Return the onset (s) of the growth just found in a trace with times ``t``, as early as it can be followed."""
        if _covers(answer, t, 0.97):
            return self.segment_start_s
        # Under rotation growth is found only after some turns, and may have begun before the window of the fit.
        t, y = slowed(*self._notched(self.segment_start_s))
        if extends_to_start(t, y, answer.rate, rotation_hz):
            rest_s = rest_before_onset(t, y, float(answer.rate), rotation_hz)
            return float(t[0]) + rest_s if rest_s else self.segment_start_s
        return float(t[-1]) - answer.span_s

    def _checked(self, answer: Oscillation, rotation_hz: float = 0.0) -> Oscillation:
        """Return a fitted oscillation as the rate of growth, or the reason why it is not growth."""
        if answer.best is None:
            return answer
        pulses = None if rotation_hz else self.laser.pulses_in(answer.best, self.trace)
        if pulses is not None and pulses.certain and self.laser.notice(answer.best, pulses.hz):
            self.next_search_s = 0.0  # without the pulses the trace may show the layers
        around = Surroundings(
            self.trace, self.segment_start_s, self.laser, pulses is not None, self.known_hz, rotation_hz
        )
        why = other_cause(answer.best, around)
        if why:
            self.cause = OtherCause(why, answer.best.t_end, answer.best.frequency, answer.best.cycles)
        elif self.cause is not None and self.cause.holds_for(answer.best):
            why = self.cause.why
        if why:
            return undetermined_oscillation(why, answer.cycles, answer.r2, answer.span_s)
        relative_sigma, note = clock_uncertainty(self.trace.clock(), self.trace.stated_fps)
        if not note:
            return answer
        rate, sigma = float(answer.rate), answer.rate.sigma or 0.0
        note = "; ".join(filter(None, (answer.rate.note, note)))
        return replace(answer, rate=measured(rate, math.hypot(sigma, relative_sigma * rate), "1/s", note))

    def _notched(self, start_s: float) -> tuple[F64, F64]:
        """Return the trace from ``start_s`` (s) on without the laser's pulses."""
        return self.laser.removed(*self.trace.since(start_s))

    # The count.

    def oscillations_counted(self, now: float, unit: str = "oscillations") -> Measurement:
        """Return the oscillations since the user's last mark, extrapolated from the last fit to ``now`` (s).

        Each oscillation is usually one layer.
        """
        return self.counted(self.counter, now, unit, self.count_note)

    def counted(self, counter: LayerCounter, now: float, unit: str, note: str = "") -> Measurement:
        """Return one of the :attr:`counts` at ``now`` (s), with from when and until when was counted."""
        if not counter.has_count:
            return undetermined(self.latest.rate.why or TOO_SHORT, unit)
        notes = [note] if note else []
        begin_s = counter.runs[0][0] if counter.runs else counter.onset_s
        rate = counter.rate or self.known_hz
        if (begin_s - counter.start_s) * rate > 0.3:
            notes.append(f"counted from {begin_s:.1f} s on")
        if not math.isnan(counter.doubted_s):
            notes.append(f"growth may have ended or changed after {counter.doubted_s:.1f} s")
        if not self.latest.determined:
            slower = "; the rate changed then, and growth may have gone on" if counter.slowed_variance else ""
            notes.append(f"counted until {min(now, counter.phase_time_s):.1f} s, undetermined since{slower}")
        return measured(counter.value(now), counter.sigma(now), unit, "; ".join(notes))

    def segment_counted(self, now: float) -> Measurement:
        """Return the oscillations of the current segment alone; :meth:`oscillations_counted` adds those before it."""
        counted = self.oscillations_counted(now)
        if counted.value is None or self.counted_before == 0.0:
            return counted
        if self.best is None:
            return undetermined(self.latest.rate.why, counted.unit)
        return replace(counted, value=counted.value - self.counted_before)


def _longest_blank_s(fit: Fit | None) -> float:
    """Return for how long a rate is kept without new samples, in s: late stamps are corrected after some seconds."""
    return MAX_BLANK_S if fit is None else max(MAX_BLANK_S, PREDICTION_AGE / fit.frequency)


def _unconfirmed(answer: Oscillation) -> Oscillation:
    why = f"about {float(answer.rate):.2g} oscillations per second, to be confirmed by the next frames"
    return undetermined_oscillation(why, answer.cycles, answer.r2, answer.span_s)


def _better(best: Oscillation | None, latest: Oscillation) -> Oscillation:
    """Return the rate of the segment: the more certain one of two that agree, else the newer one."""
    if best is None:
        return latest
    old, new = float(best.rate), float(latest.rate)
    sigma_old, sigma_new = best.rate.sigma or 0.0, latest.rate.sigma or 0.0
    if abs(new - old) > 2.0 * math.hypot(sigma_old, sigma_new) or sigma_new / new <= sigma_old / old:
        return latest
    return best


def _covers(answer: Oscillation, t: F64, share: float) -> bool:
    """Return True if a fit used ``share`` of the trace at ``t``; under rotation its filter cuts up to 0.8 periods."""
    span = float(t[-1] - t[0])
    return answer.span_s > min(share * span, span - 0.8 / float(answer.rate))
